"""What one client, or all of them, may take of ``messagebus serve``, without a proxy in front."""

from __future__ import annotations

import contextlib
import resource
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from messagebus import Bus

from ..clients import EventSource, WebSocket
from ..eventually import eventually
from ..fixtures_servers import ServeApp
from ..processes import cpu_used
from ..raw_http import exchange, head
from ..serve_helpers import IDLE_SOCKETS
from ..servers import Server

APP = "tests.apps.slow:app"
GET = b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n"
UNFINISHED = {
    "nothing": b"",
    "half a request line": b"GET /hel",
    "half a head": b"GET /hello HTTP/1.1\r\nHost: x\r\nX-A",
    "half a body": b"POST /length HTTP/1.1\r\nContent-Length: 100\r\n\r\nabc",
    "half a chunk": b"POST /length HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n64\r\nabc",
    "half a long body": b"POST /length HTTP/1.1\r\nContent-Length: 900000\r\n\r\n" + bytes(200_000),
    "an idle connection": GET,
}


@pytest.fixture(scope="module")
def hasty() -> Iterator[Server]:
    """A server that waits for nobody."""
    args = ("--head-timeout", "1", "--body-timeout", "1", "--keep-alive", "1", "--send-timeout", "1")
    with contextlib.closing(Server("serve", APP, args=args)) as server:
        server.start()
        yield server
        assert "Traceback" not in server.output(), server.output()[-5000:]


def read_to_end(connection: socket.socket) -> bytes:
    received = b""
    with contextlib.suppress(ConnectionError):
        while data := connection.recv(1 << 16):
            received += data
    return received


@pytest.mark.parametrize("name", UNFINISHED)
def test_who_does_not_finish_is_told_and_ended(hasty: Server, name: str) -> None:
    with hasty.connect() as connection:
        connection.sendall(UNFINISHED[name])
        answered = read_to_end(connection)
    if name == "nothing":
        assert answered == b""
    elif name == "an idle connection":
        assert answered.endswith(b"hello")
    else:
        assert answered.startswith(b"HTTP/1.1 408 ")
        assert b"Connection: close\r\n" in answered


def test_a_head_that_trickles_has_no_more_time_than_any_other(hasty: Server) -> None:
    def trickle() -> None:
        for byte in UNFINISHED["half a head"] * 20:  # half a minute
            connection.sendall(bytes([byte]))
            time.sleep(0.05)

    with hasty.connect() as connection, pytest.raises(OSError, match=r"reset|Broken pipe"):
        trickle()


def test_a_body_that_comes_steadily_has_the_time_that_it_takes(hasty: Server) -> None:
    size = 4000
    with hasty.connect() as connection:
        connection.sendall(b"POST /length HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % size)
        for _ in range(10):  # two seconds; the body alone would be allowed one
            time.sleep(0.2)
            connection.sendall(bytes(size // 10))
        assert connection.recv(4096).endswith(b"4000")


def test_an_answer_that_nobody_reads_is_given_up(serve_app: ServeApp) -> None:
    server = serve_app("serve", "tests.apps.echo:app", args=("--send-timeout", "1"))
    (pid,) = server.worker_pids()
    eventually(lambda: server.open_sockets() <= IDLE_SOCKETS)
    before = set(server.open_fds(pid).values())
    with server.connect() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.sendall(b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n")
        assert connection.recv(4096).endswith(b"hello")
        (held,) = set(server.open_fds(pid).values()) - before
        for _ in range(20):
            connection.sendall(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
        eventually(lambda: held not in server.open_fds(pid).values())


def test_who_is_refused_while_sending_reads_why(serve_app: ServeApp) -> None:
    """To close a connection on which bytes come in loses the answer."""
    server = serve_app("serve", APP, args=("--body-size", "1000"))
    for framing, body in (("Content-Length: 1000000", bytes(1_000_000)), ("Transfer-Encoding: chunked", b"f4240\r\n")):
        request = head("POST /length HTTP/1.1", "Host: x", framing, body=body + bytes(1_000_000))
        (answered,) = exchange(server, request)
        assert answered.status == 413
        assert b"1000 bytes at most" in answered.body


def test_nobody_is_asked_to_send_what_would_be_refused(serve_app: ServeApp) -> None:
    server = serve_app("serve", APP, args=("--body-size", "1000"))
    request = head("POST /length HTTP/1.1", "Host: x", "Content-Length: 1001", "Expect: 100-continue")
    assert [answered.status for answered in exchange(server, request)] == [413]


def test_beyond_the_limit_the_connection_that_was_idle_for_longest_makes_room(serve_app: ServeApp) -> None:
    server = serve_app("serve", APP, args=("--connections", "5"))
    with contextlib.ExitStack() as stack:
        silent: list[socket.socket] = []
        eventually(lambda: server.open_sockets() == IDLE_SOCKETS)
        for _ in range(5):
            silent.append(stack.enter_context(server.connect()))
            # Accepted one after the other, with another time for each.
            eventually(lambda: server.open_sockets() == IDLE_SOCKETS + len(silent))
            time.sleep(0.05)
        assert server.get("/hello") == (200, b"hello")
        assert silent[0].recv(100) == b""
        silent[4].sendall(GET)
        assert silent[4].recv(4096).endswith(b"hello")


def test_where_all_its_connections_are_at_work_the_next_one_is_told_to_come_back(
    serve_app: ServeApp, tmp_path: Path
) -> None:
    release = tmp_path / "release"
    server = serve_app("serve", APP, args=("--connections", "3"))
    with contextlib.ExitStack() as stack:
        busy = [stack.enter_context(server.connect()) for _ in range(3)]
        for connection in busy:
            connection.sendall(f"GET /wait?until={release} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        eventually(lambda: server.output().count("begun: /wait") == len(busy))
        (answered,) = exchange(server, GET)
        assert (answered.status, answered.header("retry-after")) == (503, "2")
        release.touch()
        for connection in busy:
            assert connection.recv(4096).endswith(b"waited")
    eventually(lambda: server.get("/hello")[0] == 200)
    assert "there are 3 connections" in server.output()


def test_an_address_has_no_more_connections_than_it_may(serve_app: ServeApp) -> None:
    server = serve_app("serve", APP, args=("--connections-per-address", "4"))
    with contextlib.ExitStack() as stack:
        for _ in range(4):
            connection = stack.enter_context(server.connect())
            connection.sendall(GET)
            assert connection.recv(4096).endswith(b"hello")
        assert [answered.status for answered in exchange(server, GET)] == [503]
        other = stack.enter_context(socket.socket())
        other.bind(("127.0.0.2", 0))
        other.connect((server.host, server.port))
        other.sendall(GET)
        assert other.recv(4096).endswith(b"hello")
    eventually(lambda: server.get("/hello")[0] == 200)
    assert "127.0.0.1 has 4 connections" in server.output()


def test_a_shortage_of_descriptors_is_survived(serve_app: ServeApp, redis_url: str) -> None:
    """Subscribers go on, the store is found again, pages get in, and the log and the processor are quiet."""
    server = serve_app("serve", args=("--url", redis_url))
    (pid,) = server.worker_pids()
    with contextlib.ExitStack() as stack:
        subscribers = [stack.enter_context(WebSocket.connect(server.url, {"/a": 0})) for _ in range(20)]
        for subscriber in subscribers:
            subscriber.next_batch()
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (100, 100))
        idle = []
        for number in range(200):
            connection = stack.enter_context(server.connect())
            idle.append(connection)
            if number % 2:
                connection.sendall(GET)
        time.sleep(1)
        before, logged = cpu_used(pid), len(server.output().splitlines())
        bus = stack.enter_context(contextlib.closing(Bus(url=redis_url)))
        import redis

        with contextlib.closing(redis.Redis.from_url(redis_url)) as client:
            client.client_kill_filter(_type="pubsub")
            client.client_kill_filter(_type="normal", skipme=True)
        for number in range(6):
            bus.publish("/a", number)
            time.sleep(0.5)
        for subscriber in subscribers:
            assert subscriber.data(6) == list(range(6))
        assert cpu_used(pid) - before < 1.0
        assert len(server.output().splitlines()) - logged < 8
        assert server.get("/hello", timeout=10) == (200, b"hello")
        with EventSource.connect(server.url, {"/a": 0}) as events:
            assert events.data(6) == list(range(6))
    assert "Traceback" not in server.output()


def test_a_storm_of_bad_requests_leaves_a_few_lines_in_the_log(hasty: Server) -> None:
    before = len(hasty.output().splitlines())
    for _ in range(100):
        exchange(hasty, b"\x16\x03\x01\x02 nonsense\r\n\r\n")
    assert len(hasty.output().splitlines()) - before <= 3
