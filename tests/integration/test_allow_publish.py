"""Hooks that decide what pages publish, on real servers, over a WebSocket and by requests."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from websockets.sync.client import connect

from messagebus import Client

from ..client_base import request
from ..fixtures_servers import ServeApp
from ..redis_server import RedisServer
from ..servers import Server

Send = Callable[[dict[str, Any]], dict[str, Any]]
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module", params=["gunicorn-gthread", "serve"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    server = Server(request.param, "tests.apps.publishing_pages:app")
    try:
        server.start()
        yield server
    finally:
        server.close()


def sign_in(server: Server, name: str) -> dict[str, str]:
    with request(server.url, "POST", f"/login?name={name}") as response:
        assert response.status == 200
        return {"Cookie": response.headers["Set-Cookie"].partition(";")[0]}


def by_post(server: Server, headers: dict[str, str], value: dict[str, Any]) -> dict[str, Any]:
    body = json.dumps(value).encode()
    with request(server.url, "POST", "/message-bus/me/publish", body, {**JSON, **headers}) as response:
        answer: dict[str, Any] = json.loads(response.read())
        assert (response.status < 400) is ("ok" in answer)
        return answer


def by_websocket(server: Server, headers: dict[str, str], value: dict[str, Any]) -> dict[str, Any]:
    with connect(f"ws{server.url[4:]}/message-bus/me/ws", additional_headers=headers) as socket:
        socket.send(json.dumps({"publish": value, "id": 1}))
        while True:
            answer = json.loads(socket.recv(10))
            if isinstance(answer, dict):
                del answer["id"]
                return answer


def kept(server: Server, channel: str) -> list[Any]:
    with request(server.url, "GET", f"/backlog?channel={channel}") as response:
        data: list[Any] = json.loads(response.read())
        return data


@pytest.fixture(params=[by_post, by_websocket])
def send(request: pytest.FixtureRequest) -> Any:
    return request.param


def test_a_hook_fills_in_who_has_sent_it(server: Server, send: Any) -> None:
    channel = f"/chat/{send.__name__}"
    answer = send(server, sign_in(server, "Ann"), {"channel": channel, "data": {"text": "hi", "by": "Bob"}})
    assert answer == {"ok": {"message_id": 1}}
    assert kept(server, channel) == [{"text": "hi", "by": "Ann"}]


def test_each_hook_gets_what_the_one_before_has_returned(server: Server, send: Any) -> None:
    channel = f"/chat/loud/{send.__name__}"
    send(server, sign_in(server, "Ann"), {"channel": channel, "data": {"text": "hi"}})
    assert kept(server, channel) == [{"text": "HI", "by": "Ann"}]


@pytest.mark.parametrize(
    ("channel", "code", "message"),
    [
        ("/chat/7", "forbidden", "log in first"),
        ("/chat/loud/7", "forbidden", "log in first"),
        ("/silent", "forbidden", "/silent: the server does not take this message"),
        ("/other", "forbidden", "/other: the server lets no client publish to it"),
        ("/away", "unavailable", "the hook's own store"),
    ],
)
def test_a_refusal_reaches_the_client_and_nothing_is_stored(
    server: Server, send: Any, channel: str, code: str, message: str
) -> None:
    error = send(server, {}, {"channel": channel, "data": {"text": "hi"}})["error"]
    assert (error["code"], error["message"]) == (code, message)
    assert kept(server, channel) == []


@pytest.mark.redis
def test_a_request_is_not_kept_for_a_store_that_is_away_and_the_client_sends_it_again(
    serve_app: ServeApp, mortal_redis: RedisServer
) -> None:
    server = serve_app("serve", "tests.apps.publishing_pages:app", env={"MESSAGEBUS_URL": mortal_redis.url})
    cookie = sign_in(server, "Ann")
    value = {"channel": "/chat/7", "data": {"text": "hi"}, "key": "one"}
    mortal_redis.kill()
    # By the next request it may reach another worker, and the order would be lost.
    assert by_post(server, cookie, value)["error"]["code"] == "unavailable"
    # On a connection all reach the same one. And without a key the client cannot know what became of it.
    assert by_websocket(server, cookie, {**value, "key": "two"}) == {"ok": {"message_id": None}}
    assert by_post(server, cookie, {"channel": "/chat/7", "data": {"text": "no key"}}) == {"ok": {"message_id": None}}
    client = Client(server.url, transports=("polling",), headers=cookie)
    with ThreadPoolExecutor(1) as executor:
        sent = executor.submit(client.publish, "/chat/7", {"text": "insists"}, timeout=30.0)
        mortal_redis.start()
        assert sent.result(30.0) is not None
    assert by_post(server, cookie, value)["ok"]["message_id"]
    said = [message["text"] for message in kept(server, "/chat/7")]
    assert (sorted(said), said[-1]) == (["hi", "hi", "insists", "no key"], "hi")


def test_a_mistake_in_a_hook_tells_the_client_nothing_but_its_type(server: Server, send: Any) -> None:
    answer = send(server, sign_in(server, "Ann"), {"channel": "/chat/7", "data": {"a secret": 1}})
    assert answer["error"] == {"code": "internal", "message": "/chat/7: KeyError"}
    assert kept(server, "/chat/7") == []
