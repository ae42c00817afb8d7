"""How ``messagebus serve`` ends: in order, or where something is stuck."""

from __future__ import annotations

import contextlib
import os
import signal
import time

import pytest

from .. import processes
from ..clients import EventSource, WebSocket
from ..eventually import eventually
from ..fixtures_servers import ServeApp
from ..serve_helpers import APP, in_background


@pytest.mark.parametrize("workers", [1, 2])
def test_a_request_that_is_being_answered_is_finished_and_may_still_publish(
    serve_app: ServeApp, redis_url: str, workers: int
) -> None:
    server = serve_app("serve", APP, args=("--url", redis_url), workers=workers)
    with EventSource.connect(server.url, {"/a": 0}) as events, WebSocket.connect(server.url, {"/a": 0}) as sock:
        events.next_batch()
        sock.next_batch()
        thread, came = in_background(lambda: server.get("/publish-after/2.5"))
        time.sleep(0.5)  # it has to be in the view
        server_thread, code = in_background(server.stop)
        assert sock.closed() == 1001
        assert came == [], "clients are told at once"
        thread.join(10)
        assert came == [(200, b"1")]
        server_thread.join(10)
        assert code == [0]
    assert "Traceback" not in server.output()


def test_idle_connections_are_closed_at_once_and_the_last_answer_says_that_it_is_the_last(serve_app: ServeApp) -> None:
    server = serve_app("serve", APP)
    with contextlib.ExitStack() as stack:
        idle = [stack.enter_context(server.connect()) for _ in range(3)]
        for connection in idle:
            connection.sendall(b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n")
            assert connection.recv(4096).endswith(b"hello")
        busy = stack.enter_context(server.connect())
        busy.sendall(b"GET /sleep/3.0 HTTP/1.1\r\nHost: x\r\n\r\n")
        fresh = stack.enter_context(server.connect())
        time.sleep(0.3)
        thread, code = in_background(server.stop)
        assert idle[0].recv(4096) == b""
        fresh.sendall(b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n")  # it was accepted, so it is served
        assert b"Connection: close" in fresh.recv(4096)
        for connection in idle[1:]:
            assert connection.recv(4096) == b""
        assert code == [], "they did not have to wait for the one that is being answered"
        answer = busy.recv(4096)
        assert answer.endswith(b"slept")
        assert b"Connection: close" in answer
        thread.join(10)
        assert code == [0]


def test_what_takes_longer_than_the_stop_timeout_is_cut_off_and_the_log_says_so(serve_app: ServeApp) -> None:
    server = serve_app("serve", APP, args=("--stop-timeout", "0.5"))
    thread, came = in_background(lambda: server.get("/sleep/20.0"))
    time.sleep(0.3)
    started = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - started < 10
    thread.join(5)
    assert isinstance(came[0], Exception)
    assert "1 requests were not answered within 0.5 s, and are cut off" in server.output()


@pytest.mark.parametrize("path", ["/spin", "/block"])
def test_a_worker_that_is_stuck_does_not_keep_the_server_from_ending(
    serve_app: ServeApp, redis_url: str, path: str
) -> None:
    server = serve_app("serve", APP, args=("--url", redis_url, "--stop-timeout", "1"), workers=2)
    sockets = [WebSocket.connect(server.url, {"/a": 0}) for _ in range(8)]
    with contextlib.ExitStack() as stack:
        for sock in sockets:
            stack.enter_context(sock)
            sock.next_batch()
        in_background(lambda: server.get(path, timeout=60))
        time.sleep(0.5)
        started = time.monotonic()
        assert server.stop(timeout=20) == 1, "the code tells"
        assert time.monotonic() - started < 15
    assert "does not end, and is killed" in server.output()


def test_a_server_that_drains_refuses_new_connections_and_serves_those_that_it_has(serve_app: ServeApp) -> None:
    server = serve_app("serve", APP, args=("--drain", "4"))
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(WebSocket.connect(server.url, {"/a": 0})) for _ in range(20)]
        for sock in socks:
            sock.next_batch()
        os.kill(server.pid, signal.SIGTERM)

        def refuses() -> bool:
            try:
                server.connect().close()
            except ConnectionRefusedError:
                return True
            return False

        eventually(refuses)
        since = time.monotonic()
        assert [sock.closed() for sock in socks] == [1001] * len(socks)
        assert time.monotonic() - since > 1.0, "it refuses as soon as it drains"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_it_at_once(serve_app: ServeApp, number: int) -> None:
    server = serve_app("serve", APP, args=("--stop-timeout", "60"))
    in_background(lambda: server.get("/sleep/60.0", timeout=60))
    time.sleep(0.3)
    pid = server.pid
    os.kill(pid, number)
    time.sleep(0.5)
    assert processes.running(pid), "the first one waits for the request"
    started = time.monotonic()
    os.kill(pid, number)
    eventually(lambda: not processes.group_members(pid), timeout=15)
    assert time.monotonic() - started < 15


def test_quit_ends_it_at_once(serve_app: ServeApp) -> None:
    server = serve_app("serve", APP, args=("--stop-timeout", "60"))
    in_background(lambda: server.get("/sleep/60.0", timeout=60))
    time.sleep(0.3)
    pid = server.pid
    os.kill(pid, signal.SIGQUIT)
    eventually(lambda: not processes.group_members(pid), timeout=15)
