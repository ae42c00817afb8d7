"""What `messagebus serve` keeps of a connection that the bus holds: one descriptor, and nothing when it is over."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from urllib.parse import urlencode

import pytest

from ..clients import FORM
from ..crowd import TRANSPORTS, subscription
from ..eventually import eventually
from ..raw_http import AFTERWARDS, exchange, head
from ..serve_helpers import IDLE_SOCKETS
from ..servers import Server

APP = "tests.apps.echo:app"
COUNT = 5
POLLS = 100


@pytest.fixture(scope="module", params=[False, True], ids=["", "access log"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """One that has served requests of every kind before."""
    with contextlib.closing(Server("serve", APP, args=("--access-log",) if request.param else ())) as server:
        server.start()
        for transport in TRANSPORTS:
            with server.connect() as connection:
                connection.sendall(subscription(transport, "warm", "/warm"))
                publish(server, "/warm")
                read_until(connection, b'"hello"')
        yield server
        assert "Traceback" not in server.output(), server.output()[-5000:]


def get(server: Server, path: str) -> bytes:
    """The body; the server has closed the connection by then."""
    (answered,) = exchange(server, head(f"GET {path} HTTP/1.1", "Host: x", "Connection: close"))
    assert answered.status == 200
    return answered.body


def publish(server: Server, channel: str) -> None:
    body = json.dumps({"channel": channel, "data": "hello"}).encode()
    lines = ("Host: x", "Connection: close", "Content-Type: application/json", f"Content-Length: {len(body)}")
    (answered,) = exchange(server, head("POST /publish HTTP/1.1", *lines, body=body))
    assert answered.status == 200


def read_until(connection: object, end: bytes) -> bytes:
    """Everything up to ``end``, or to the end of the connection where that is empty."""
    received = bytearray()
    while not end or end not in received:
        data = connection.recv(1 << 16)  # type: ignore[attr-defined]
        if not data:
            assert not end, f"the connection ended: {bytes(received)!r}"
            break
        received += data
    return bytes(received)


def handlers(server: Server) -> int:
    """Besides that of the request which asks."""
    return int(get(server, "/handlers")) - 1


def at_rest(server: Server) -> int:
    """Descriptors when every connection is over."""
    eventually(lambda: server.open_sockets() <= IDLE_SOCKETS, message="a socket is left open")
    eventually(lambda: handlers(server) == 0, message="a handler is kept of a connection that is over")
    return len(server.open_fds())


def poll(client: str, channel: str, query: str = "") -> bytes:
    body = urlencode({channel: 0})
    return head(
        f"POST /message-bus/{client}/poll{query} HTTP/1.1",
        *("Host: x", "Connection: keep-alive", "Dont-Chunk: true", f"Content-Type: {FORM}"),
        f"Content-Length: {len(body)}",
        body=body.encode(),
    )


@pytest.mark.parametrize("cut", [False, True], ids=["", "in two packets"])
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_held_connection_is_one_descriptor_and_no_handler_and_is_logged_where_asked(
    server: Server, transport: str, cut: bool
) -> None:
    channel = f"/{transport}/{cut}"
    before, logged = at_rest(server), len(server.output())
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(server.connect()) for _ in range(COUNT)]
        for number, connection in enumerate(connections):
            asked = subscription(transport, f"{transport}-{cut}-{number}", channel)
            if cut:  # gevent's own code reads such a head
                connection.sendall(asked[:30])
                get(server, "/hello")
                connection.sendall(asked[30:])
            else:
                connection.sendall(asked)
        eventually(lambda: handlers(server) == 0, message="a handler is kept for a held connection")
        eventually(lambda: len(server.open_fds()) == before + COUNT)
        publish(server, channel)
        for connection in connections:
            read_until(connection, b'"hello"')
        if transport != "long-polling":
            assert len(server.open_fds()) == before + COUNT
    assert at_rest(server) == before
    lines = [line for line in server.output()[logged:].splitlines() if f"/message-bus/{transport}-{cut}-" in line]
    assert len(lines) == (COUNT if server.args else 0)


def test_what_follows_a_poll_that_is_held_is_not_answered(server: Server) -> None:
    """The answer says that the connection ends with it, so the client asks again on another."""
    for packets in ([poll("a", "/behind/1") + AFTERWARDS], [poll("b", "/behind/2"), AFTERWARDS]):
        channel = f"/behind/{len(packets)}"
        before = at_rest(server)
        with server.connect() as connection:
            for packet in packets:
                connection.sendall(packet)
                eventually(lambda: handlers(server) == 0)
            eventually(lambda before=before: len(server.open_fds()) == before + 1)  # type: ignore[misc]
            publish(server, channel)
            answered = read_until(connection, b"")
        assert answered.count(b"HTTP/1.1 ") == 1
        assert b"Connection: close\r\n" in answered
        assert answered.endswith(b"}]")
        assert at_rest(server) == before


def test_what_follows_a_poll_that_is_answered_at_once_is_answered_too(server: Server) -> None:
    answered = exchange(server, poll("c", "/at-once", "?dlp=t") + AFTERWARDS)
    assert [each.body for each in answered] == [b"[]", b"hello"]


def test_many_polls_over_one_connection_cost_one_descriptor_and_one_handler(server: Server) -> None:
    before = at_rest(server)
    with server.connect() as connection:
        for _ in range(POLLS):
            connection.sendall(poll("d", "/many", "?dlp=t"))
            assert read_until(connection, b"\r\n\r\n[]").startswith(b"HTTP/1.1 200 OK\r\n")
        assert len(server.open_fds()) == before + 1
        eventually(lambda: handlers(server) == 1)
    assert at_rest(server) == before


def test_a_request_that_is_held_may_have_a_body_that_nobody_reads_or_waits_for(server: Server) -> None:
    before = at_rest(server)
    path = "/message-bus/e/sse?%2Funread=0"
    body = head(f"GET {path} HTTP/1.1", "Host: x", "Content-Length: 5", body=b"abcde")
    chunks = head(f"GET {path} HTTP/1.1", "Host: x", "Transfer-Encoding: chunked", body=b"1\r\na\r\n0\r\n\r\n")
    for packets in ([body], [body[:-5], body[-5:]], [chunks], [chunks[:-11], chunks[-11:]]):
        with server.connect() as connection:
            for packet in packets:
                connection.sendall(packet)
                get(server, "/hello")
            publish(server, "/unread")
            read_until(connection, b'"hello"')
    assert at_rest(server) == before


def test_requests_are_logged_where_asked_and_only_there(server: Server) -> None:
    before = len(server.output())
    exchange(server, head("GET /hello?logged HTTP/1.1", "Host: x", "Connection: close"))
    if server.args:
        line = eventually(lambda: server.output()[before:].strip())
        assert '"GET /hello?logged HTTP/1.1" 200 ' in line
        assert "\n" not in line
    else:
        get(server, "/hello")
        assert len(server.output().splitlines()) == 1, "where it listens, and nothing more"


def test_frames_behind_a_handshake_are_read(server: Server) -> None:
    """A client may send them in the packet of its request, whole or in part."""
    handshake = (
        b"GET /message-bus/x/ws?%2Fa=0 HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    command = b'{"ping":7,"id":7}'
    frame = bytes([0x81, 0x80 | len(command), 0, 0, 0, 0]) + command
    for cut in (0, 3, len(frame)):
        with server.connect() as connection:
            connection.sendall(handshake + frame[:cut])
            received = b""
            while b"\r\n\r\n" not in received:
                received += connection.recv(4096)
            connection.sendall(frame[cut:])
            while b'"id":7' not in received:
                received += connection.recv(4096)
