"""Sockets of an app's own, on every server that lets its sockets be taken."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import Frame, Opcode
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Origin

from ..clients import request
from ..eventually import eventually
from ..raw_http import head
from ..servers import SERVERS, Server

APP = "tests.apps.sockets:app"
TAKING = [kind for kind in SERVERS if kind != "waitress"]
ACCEPTS_BY_ITSELF = ("geventwebsocket", "gunicorn-geventwebsocket")
"""Servers that answer 101 before the app is asked."""


def started(kind: str, **env: str) -> Iterator[Server]:
    with contextlib.closing(Server(kind, APP, env={f"MESSAGEBUS_{name.upper()}": env[name] for name in env})) as server:
        server.start()
        yield server


@pytest.fixture(scope="module", params=TAKING)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    for server in started(request.param):
        yield server
        assert "Traceback" not in server.output(), server.output()[-5000:]


@pytest.fixture(scope="module")
def narrow() -> Iterator[Server]:
    """One with narrow limits."""
    yield from started(
        "serve", max_frame_size="2000", max_commands="40", max_outbox="100000", write_timeout="0.5", max_talks="3"
    )


@pytest.fixture(params=["/talk", "/called"])
def path(request: pytest.FixtureRequest) -> str:
    """Served by a thread, and by none."""
    name: str = request.param
    return name


@contextlib.contextmanager
def opened(server: Server, path: str, **options: Any) -> Iterator[ClientConnection]:
    """A socket, of which the first message has been read."""
    with connect(f"{server.ws_url}{path}", proxy=None, compression=None, **options) as ws:
        ws.recv(30)
        yield ws


def facts(server: Server) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(server.get("/log")[1])
    return found


def closed(ws: ClientConnection) -> tuple[int | None, str]:
    """Read to the end."""
    try:
        while True:
            ws.recv(30)
    except ConnectionClosed as end:
        return (end.rcvd.code, end.rcvd.reason) if end.rcvd else (None, "")


def refused(server: Server, path: str, **options: Any) -> tuple[int, str]:
    with pytest.raises(InvalidStatus) as found:
        connect(f"{server.ws_url}{path}", proxy=None, **options)
    response = found.value.response
    return response.status_code, (response.body or b"").decode()


def handshake(path: str) -> bytes:
    return head(
        f"GET {path} HTTP/1.1",
        "Host: x",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
    )


# --- on every server ---


def test_text_and_bytes_go_both_ways_and_nothing_is_left_behind(server: Server, path: str) -> None:
    name = f"both-{path[1:]}"
    with opened(server, f"{path}?name={name}") as ws:
        for message in ("text ü", b"\x00\xff", "", "x" * 70_000):
            ws.send(message)
            assert ws.recv(30) == message
        assert facts(server)["sockets"] == 1
        ws.close(4000, "enough")
    ends = eventually(lambda: [entry for entry in facts(server)["log"] if entry[0] == name and 4000 in entry])
    assert ends == [
        [name, 4000, "enough"] if path == "/talk" else [name, "close", 4000, "enough", "tests.apps.sockets"]
    ]
    found = eventually(lambda: (now := facts(server))["running"] == 0 and now)
    assert (found["threads"], found["sockets"], found["addresses"]) == ([], 0, 0)


def test_a_talk_has_the_apps_context_and_not_the_requests(server: Server) -> None:
    before = facts(server)["torn_down"]
    with connect(f"{server.ws_url}/talk?name=me", proxy=None) as ws:
        said = json.loads(ws.recv(30))
        assert said == {"name": "me", "app": "tests.apps.sockets", "request": False}
    eventually(lambda: facts(server)["torn_down"] == before + 1)


def test_what_the_app_adds_to_a_response_is_on_the_101(server: Server) -> None:
    if server.kind in ACCEPTS_BY_ITSELF:
        return
    with opened(server, "/talk", subprotocols=["c", "a", "b"]) as ws:
        assert ws.response is not None
        assert (ws.response.headers["X-After"], ws.response.headers["Set-Cookie"]) == ("kept", "seen=yes; Path=/")
        assert ws.subprotocol == "a"


def test_a_view_that_refuses_is_heard_before_the_handshake(server: Server) -> None:
    if server.kind in ACCEPTS_BY_ITSELF:
        with contextlib.suppress(ConnectionClosed), connect(f"{server.ws_url}/talk?name=intruder", proxy=None) as ws:
            pytest.fail(f"it was told {ws.recv(30)!r}")
    else:
        assert refused(server, "/talk?name=intruder")[0] == 403


def test_a_client_that_goes_without_a_word_ends_the_code(server: Server, path: str) -> None:
    name = f"gone-{path[1:]}"
    with opened(server, f"{path}?name={name}") as ws:
        ws.socket.shutdown(socket.SHUT_RDWR)
    assert eventually(lambda: [entry for entry in facts(server)["log"] if entry[0] == name and 1006 in entry])
    eventually(lambda: facts(server)["running"] == 0)


def test_a_message_behind_the_handshake_is_received(server: Server) -> None:
    if server.kind in ACCEPTS_BY_ITSELF:
        return
    message = Frame(Opcode.TEXT, b"early").serialize(mask=True)
    with server.connect() as connection:
        connection.sendall(handshake("/called") + message)
        received = b""
        while b"early" not in received:
            part = connection.recv(1 << 16)
            assert part, received
            received += part


def test_a_server_that_keeps_its_sockets_says_so() -> None:
    for server in started("waitress"):
        status, body = refused(server, "/talk")
        assert (status, json.loads(body)["error"]["code"]) == (501, "no_websocket")


# --- how it ends ---


@pytest.mark.parametrize(("word", "close"), [("return", (1000, "")), ("close", (4001, "as you like"))])
def test_a_talk_that_is_over_closes(narrow: Server, word: str, close: tuple[int, str]) -> None:
    with opened(narrow, "/talk") as ws:
        ws.send(word)
        assert closed(ws) == close


def test_what_the_code_raises_closes_with_1011_and_is_logged(narrow: Server, path: str) -> None:
    with opened(narrow, f"{path}?name=raises") as ws:
        ws.send("raise")
        assert closed(ws) == (1011, "the server has failed")
    eventually(lambda: f"the socket of {path} failed" in narrow.output())
    assert eventually(lambda: "the talk fails" in narrow.output() if path == "/talk" else facts(narrow)["log"])
    eventually(lambda: facts(narrow)["running"] == 0)


def test_a_user_that_is_disconnected_loses_its_sockets(narrow: Server, path: str) -> None:
    with opened(narrow, path, additional_headers={"X-User": "ann"}) as ws, opened(narrow, "/called") as other:
        order = json.dumps({"user_ids": ["ann"], "reason": "logged out"})
        with request(narrow.url, "POST", "/revoke", order, {"Content-Type": "application/json"}) as response:
            assert response.status == 200
        assert closed(ws) == (4403, "logged out")
        other.send("still here")
        assert other.recv(30) == "still here"


@pytest.mark.parametrize("kind", ["serve", "gunicorn-gthread"])
def test_a_server_that_stops_closes_with_1001_and_the_code_ends(kind: str, path: str) -> None:
    for server in started(kind):
        with opened(server, f"{path}?name=stopped") as ws:
            server.stop()
            assert closed(ws)[0] in ((1001,) if kind == "serve" else (1001, None))
        assert kind != "serve" or "ended stopped 1001" in server.output()


# --- limits ---


def test_limits_close_with_the_codes_of_the_bus(narrow: Server, path: str) -> None:
    for messages, code in (["x" * 2001], 1009), ([b"x" * 2001], 1009), (["x"] * 100, 1008):
        with opened(narrow, path) as ws:
            with contextlib.suppress(ConnectionClosed):
                for message in messages:
                    ws.send(message)
            assert closed(ws)[0] == code
    with opened(narrow, path) as ws:
        ws.send(b"\xff", text=True)
        assert closed(ws)[0] == 1007


def test_pings_are_answered_and_fragments_joined(narrow: Server, path: str) -> None:
    with opened(narrow, path) as ws:
        assert ws.ping(b"x").wait(30)
        ws.send(iter([b"\x00", b"\x01", b"\x02"]))
        assert ws.recv(30) == b"\x00\x01\x02"


def test_receive_ends_with_none_where_nothing_comes_in_time(narrow: Server) -> None:
    with opened(narrow, "/talk") as ws:
        ws.send("silence")
        assert ws.recv(30) == "None"


def test_a_talk_waits_for_a_slow_client_and_a_dead_one_is_cut(narrow: Server) -> None:
    with connect(f"{narrow.ws_url}/flood", proxy=None, max_queue=1, close_timeout=0.1) as ws:
        for _ in range(1000):  # ten times as much as may wait
            assert len(ws.recv(30)) == 10_000
        eventually(lambda: ["flood", 1006] in facts(narrow)["log"], message="it reads no more")


def test_a_function_does_not_wait_for_a_slow_client(narrow: Server) -> None:
    with opened(narrow, "/called", max_queue=1, close_timeout=0.1) as ws:
        ws.send("flood")
        eventually(lambda: any(entry[1:3] == ["close", 1013] for entry in facts(narrow)["log"]))


def test_talks_beyond_their_number_are_refused_and_others_are_not(narrow: Server) -> None:
    eventually(lambda: facts(narrow)["running"] == 0)
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(opened(narrow, "/talk"))
        status, body = refused(narrow, "/talk")
        assert status == 503
        assert "max_talks" in body
        with opened(narrow, "/called") as ws:
            ws.send("served")
            assert ws.recv(30) == "served"


def test_a_client_that_sends_faster_than_it_is_heard_waits_and_nothing_is_lost() -> None:
    frame = Frame(Opcode.BINARY, bytes(10_000)).serialize(mask=True)
    for server in started("serve", max_commands="1000000", max_frame_size="20000"):
        with server.connect() as connection:
            connection.sendall(handshake("/deaf"))
            connection.settimeout(1.0)
            sent = 0
            with contextlib.suppress(TimeoutError):
                while sent < 5_000 * len(frame):
                    sent += connection.send(frame[sent % len(frame) :])
            assert sent < 5_000 * len(frame), "nobody stopped it"
            connection.settimeout(30.0)
            server.get("/go")
            connection.sendall(frame[sent % len(frame) :])
            connection.sendall(Frame(Opcode.TEXT, b"how many?").serialize(mask=True))
            number = str(sent // len(frame) + 1).encode()
            received = b""
            while not received.endswith(number):
                part = connection.recv(1 << 16)
                assert part, (received, number)
                received += part


def test_own_sockets_count_as_clients() -> None:
    for server in started("serve", max_active_clients="1"):
        none = partial(lambda server: facts(server)["sockets"] == 0, server)
        with opened(server, "/called"):
            status, body = refused(server, "/called")
            assert status == 503
            assert "max_active_clients" in body
        eventually(none)
        with opened(server, "/called"):
            pass


# --- who may connect ---


def test_pages_of_other_origins_are_refused_unless_the_view_says_otherwise(narrow: Server) -> None:
    status, body = refused(narrow, "/called", origin="https://elsewhere.example")
    assert (status, json.loads(body)["error"]["code"]) == (403, "forbidden_origin")
    with connect(f"{narrow.ws_url}/anybody", proxy=None, origin=Origin("https://elsewhere.example")) as ws:
        ws.send("welcome")
        assert ws.recv(30) == "welcome"


def test_a_rule_that_is_for_no_websocket_is_explained(narrow: Server) -> None:
    assert refused(narrow, "/plain")[0] == 400
    assert narrow.get("/talk")[0] == 400
    eventually(lambda: "a WebSocket to '/plain' was refused" in narrow.output())
    assert "its rule has websocket=True" in narrow.output()


def test_a_request_that_is_no_handshake_is_told_what_lacks(narrow: Server) -> None:
    status, body = narrow.get("/plain")
    assert (status, json.loads(body)["error"]["code"]) == (426, "upgrade_required")
