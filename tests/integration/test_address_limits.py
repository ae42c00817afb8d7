"""How much one address may take of a real server, behind a proxy that is trusted and without one."""

from __future__ import annotations

import contextlib
import http.client
import json
from typing import Any

import pytest

from ..clients import Refused, WebSocket
from ..eventually import eventually
from ..fixtures_servers import ServeApp
from ..serve_helpers import alone
from ..servers import Server

SOMEBODY, SOMEBODY_ELSE = "203.0.113.7", "198.51.100.1"
LIMITS = {
    "MESSAGEBUS_MAX_CLIENTS_PER_ADDRESS": "2",
    "MESSAGEBUS_MAX_PUBLISHES_PER_CLIENT": "3",
    "MESSAGEBUS_CLIENT_PUBLISH": "/chat",
}


def ask(server: Server, method: str, path: str, forwarded: str, body: str | None = None) -> Any:
    """A connection, and the head of its answer."""
    connection = http.client.HTTPConnection(server.host, server.port, timeout=10)
    headers = {"X-Forwarded-For": forwarded, "Content-Type": "application/x-www-form-urlencoded"}
    connection.request(method, f"/message-bus/{path}", body, headers)
    return connection, connection.getresponse()


def test_an_address_has_so_many_clients_and_others_have_theirs(serve_app: ServeApp) -> None:
    server = alone(serve_app, env={**LIMITS, "MESSAGEBUS_TRUSTED_PROXIES": "1"})
    with contextlib.ExitStack() as stack:

        def subscribe(forwarded: str, path: str = "me/sse?/chat=-1", body: str | None = None) -> Any:
            connection, response = ask(server, "GET" if body is None else "POST", path, forwarded, body)
            stack.callback(connection.close)
            stack.callback(response.close)
            return connection, response

        first = subscribe(SOMEBODY)
        assert first[1].status == subscribe(SOMEBODY, "poller/poll", "/chat=-1&__seq=1")[1].status == 200
        # Who counts is told by the last address, whatever the client has written before it.
        for path, body in (
            ("me/sse?/chat=-1", None),
            ("me/stream?/chat=-1", None),
            ("other/poll", "/chat=-1&__seq=1"),
        ):
            refused = subscribe(f"{SOMEBODY_ELSE}, {SOMEBODY}", path, body)[1]
            error = json.loads(refused.read())["error"]
            assert (refused.status, refused.getheader("Retry-After")) == (429, "10")
            assert (error["code"], error["field"]) == ("too_many_clients", "max_clients_per_address")
        assert subscribe(SOMEBODY_ELSE)[1].status == 200
        # A client's next poll takes the place of the one before.
        assert subscribe(SOMEBODY, "poller/poll", "/chat=-1&__seq=2")[1].status == 200
        first[1].close()
        first[0].close()

        def finds_room() -> bool:
            return bool(subscribe(SOMEBODY)[1].status == 200)

        eventually(finds_room)


def test_where_no_proxy_is_trusted_nobody_chooses_an_address(serve_app: ServeApp) -> None:
    server = alone(serve_app, env=LIMITS)
    with contextlib.ExitStack() as stack:
        for _ in range(4):  # all from the same private address, where a proxy may be
            connection, response = ask(server, "GET", "me/sse?/chat=-1", SOMEBODY)
            stack.callback(connection.close)
            stack.callback(response.close)
            assert response.status == 200


def test_a_websocket_publishes_no_more_than_a_client_may(serve_app: ServeApp) -> None:
    server = alone(serve_app, env={**LIMITS, "MESSAGEBUS_TRUSTED_PROXIES": "1"})
    headers = {"X-Forwarded-For": SOMEBODY}
    with WebSocket.connect(server.url, {}, headers=headers) as client, WebSocket.connect(server.url, {}) as other:
        for number in range(40):
            client.send({"publish": {"channel": "/chat", "data": number}, "id": number})
        answers = [client.answer() for _ in range(40)]
        published = [answer["ok"]["message_id"] for answer in answers if "ok" in answer]
        assert published == [*range(1, len(published) + 1)]
        assert published[:3] == [1, 2, 3]
        [refused, *_] = [answer["error"] for answer in answers if "error" in answer]
        assert refused["code"] == "too_many_publishes"
        assert "max_publishes_per_client" in refused["message"]
        other.send({"publish": {"channel": "/chat", "data": "mine"}, "id": 1})
        assert other.answer() == {"id": 1, "ok": {"message_id": published[-1] + 1}}


def test_a_websocket_beyond_the_clients_of_an_address_is_refused_before_it_opens(serve_app: ServeApp) -> None:
    server = alone(serve_app, env={**LIMITS, "MESSAGEBUS_TRUSTED_PROXIES": "1"})
    headers = {"X-Forwarded-For": SOMEBODY}
    with WebSocket.connect(server.url, {}, headers=headers), WebSocket.connect(server.url, {}, headers=headers):
        with pytest.raises(Refused) as refused:
            WebSocket.connect(server.url, {}, headers=headers)
        assert refused.value.status == 429
