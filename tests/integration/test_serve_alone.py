"""``messagebus serve`` without an app: which names it answers to, and who may publish."""

from __future__ import annotations

import json
from urllib.parse import quote

import pytest

from ..clients import EventSource, request
from ..fixtures_servers import ServeApp
from ..raw_http import exchange, head
from ..serve_helpers import alone
from ..servers import Server


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("127.0.0.1:8000", True),
        ("localhost", True),
        ("app.localhost:3000", True),
        ("[::1]:8000", True),
        ("192.168.1.7", True),
        ("bus:8000", True),
        ("bus.example.org", True),
        ("BUS.example.org:443", True),
        ("a.b.example.net", True),
        ("attacker.example", False),
        ("example.net", False),
        ("evil-example.net", False),
        ("localhost.attacker.example", False),
        ("127.0.0.1.attacker.example", False),
        ("", False),
    ],
)
def test_a_server_without_an_app_answers_to_its_own_names(host: str, allowed: bool) -> None:
    server = _named()
    headers = {"Host": host, "Origin": f"http://{host}"}
    for method, path in (
        ("POST", "/message-bus/x/poll?dlp=t"),
        ("GET", "/message-bus/static/messagebus.js"),
        ("POST", "/message-bus/publish?channel=/a"),
    ):
        with request(server.url, method, path, b"", {"Content-Type": "text/plain", **headers}) as response:
            assert (response.status != 403) is allowed
            if not allowed:
                assert json.load(response)["error"]["code"] == "forbidden_host"


_server: list[Server] = []


def _named() -> Server:
    if not _server:
        args = ("--allowed-host", "bus.example.org", "--allowed-host", "*.example.net", "--allow-anonymous-publish")
        server = Server("serve", "", args=args, ready="/message-bus/static/messagebus.js")
        server.start()
        _server.append(server)
    return _server[0]


def teardown_module() -> None:
    while _server:
        _server.pop().close()


def test_foreign_pages_cannot_publish_to_a_server_that_takes_anonymous_messages(serve_app: ServeApp) -> None:
    server = alone(serve_app, "--allow-anonymous-publish", env={"MESSAGEBUS_ALLOWED_ORIGINS": "https://good.example"})
    path = f"/message-bus/publish?channel={quote('/a')}"
    for origin, status in (
        ("https://evil.example", 403),
        ("null", 403),
        ("https://good.example", 202),
        (server.url, 202),
        (None, 202),
    ):
        headers = {"Content-Type": "text/plain"} | ({"Origin": origin} if origin else {})
        with request(server.url, "POST", path, b"x", headers) as response:
            assert response.status == status, origin
    with EventSource.connect(server.url, {"/a": 0}) as events:
        assert events.data(3) == ["x", "x", "x"]


def test_what_is_wrong_with_a_publish_is_said_as_json(serve_app: ServeApp) -> None:
    server = alone(serve_app, "--allow-anonymous-publish")
    chunked = head("POST /message-bus/publish?channel=/a HTTP/1.1", "Host: x.localhost", "Transfer-Encoding: chunked")
    long = chunked + b"20000\r\n%b\r\nzz\r\n" % bytes(0x20000)
    (answered,) = exchange(server, long)
    assert (answered.status, answered.json["error"]["code"]) == (400, "malformed")
    (answered,) = exchange(
        server, head("POST /message-bus/publish?\xe7=\xff HTTP/1.1", "Host: localhost", "Connection: close")
    )
    assert (answered.status, answered.json["error"]["field"]) == (400, "query")
