"""How ``messagebus serve`` ends: in order, or where something is stuck."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed

from .. import processes
from ..clients import Ended, EventSource, WebSocket
from ..eventually import eventually
from ..fixtures_servers import ServeApp
from ..serve_helpers import APP, IDLE_SOCKETS, begin, in_background, refuses


@pytest.mark.parametrize("workers", [1, 2])
def test_a_request_that_is_being_answered_is_finished_and_may_still_publish(
    serve_app: ServeApp, redis_url: str, tmp_path: Path, workers: int
) -> None:
    server = serve_app("serve", APP, args=("--url", redis_url, "--stop-timeout", "60"), workers=workers)
    with EventSource.connect(server.url, {"/a": 0}) as events, WebSocket.connect(server.url, {"/a": 0}) as sock:
        events.next_batch()
        sock.next_batch()
        release = tmp_path / "release"
        thread, came = begin(server, f"/publish-late?until={release}")
        server_thread, code = in_background(server.stop)
        assert sock.closed() == 1001
        assert came == [], "clients are told at once"
        release.touch()
        thread.join(30)
        assert came == [(200, b"1")]
        server_thread.join(30)
        assert code == [0]
    assert "Traceback" not in server.output()


def test_idle_connections_are_closed_at_once_and_the_last_answer_says_that_it_is_the_last(
    serve_app: ServeApp, tmp_path: Path
) -> None:
    server = serve_app("serve", APP, args=("--stop-timeout", "60"))
    release = tmp_path / "release"
    with contextlib.ExitStack() as stack:
        idle = [stack.enter_context(server.connect()) for _ in range(3)]
        for connection in idle:
            connection.sendall(b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n")
            assert connection.recv(4096).endswith(b"hello")
        busy = stack.enter_context(server.connect())
        busy.sendall(f"GET /wait?until={release} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        eventually(lambda: "begun: /wait" in server.output())
        fresh = stack.enter_context(server.connect())
        eventually(lambda: server.open_sockets() == IDLE_SOCKETS + len([*idle, busy, fresh]))
        thread, code = in_background(server.stop)
        assert idle[0].recv(4096) == b""
        fresh.sendall(b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n")  # it was accepted, so it is served
        assert b"Connection: close" in fresh.recv(4096)
        for connection in idle[1:]:
            assert connection.recv(4096) == b""
        assert code == [], "they did not have to wait for the one that is being answered"
        release.touch()
        answer = busy.recv(4096)
        assert answer.endswith(b"waited")
        assert b"Connection: close" in answer
        thread.join(30)
        assert code == [0]


def test_what_takes_longer_than_the_stop_timeout_is_cut_off_and_the_log_says_so(serve_app: ServeApp) -> None:
    server = serve_app("serve", APP, args=("--stop-timeout", "0.5"))
    thread, came = begin(server, "/sleep")
    assert server.stop() == 0
    thread.join(30)
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
        begin(server, path)
        assert server.stop() == 1, "the code tells"
    assert "does not end, and is killed" in server.output()


def test_a_server_that_drains_refuses_new_connections_and_serves_those_that_it_has(serve_app: ServeApp) -> None:
    server = serve_app("serve", APP, args=("--drain", "4"))
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(WebSocket.connect(server.url, {"/a": 0})) for _ in range(20)]
        for sock in socks:
            sock.next_batch()
        os.kill(server.pid, signal.SIGTERM)

        eventually(lambda: refuses(server))
        assert any(still_open(sock) for sock in socks), "it refuses as soon as it drains"
        assert [sock.closed() for sock in socks] == [1001] * len(socks)


def still_open(sock: WebSocket) -> bool:
    """Whether the server answers."""
    try:
        return sock.ask({"ping": 1}) == {"ok": {"pong": 1}}
    except (Ended, ConnectionClosed):
        return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_it_at_once(serve_app: ServeApp, number: int) -> None:
    server = serve_app("serve", APP, args=("--stop-timeout", "60"))
    begin(server, "/sleep")
    pid = server.pid
    os.kill(pid, number)
    eventually(lambda: refuses(server))
    assert processes.running(pid), "the first one waits for the request"
    os.kill(pid, number)
    eventually(lambda: not processes.group_members(pid))


def test_quit_ends_it_at_once(serve_app: ServeApp) -> None:
    server = serve_app("serve", APP, args=("--stop-timeout", "60"))
    begin(server, "/sleep")
    pid = server.pid
    os.kill(pid, signal.SIGQUIT)
    eventually(lambda: not processes.group_members(pid))
