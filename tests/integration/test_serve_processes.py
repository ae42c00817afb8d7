"""``messagebus serve``: its processes, from the start to whatever end."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path

import pytest

from .. import processes
from ..clients import EventSource, WebSocket
from ..eventually import eventually
from ..fixtures_servers import ServeApp
from ..ports import free_port
from ..servers import ROOT, Server

APP = "tests.apps.slow:app"


def in_background(call: Callable[[], object]) -> tuple[threading.Thread, list[object]]:
    """Runs a call in a thread; the list gets what it returned or raised."""
    came: list[object] = []

    def run() -> None:
        try:
            came.append(call())
        except Exception as error:
            came.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, came


def get(server: Server, path: str, timeout: float = 5.0) -> bytes | None:
    """The body; ``None`` where there is no answer."""
    try:
        return server.get(path, timeout=timeout)[1]
    except (OSError, HTTPException):
        return None


def cpu_used(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# --- in order ---


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


# --- stuck ---


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


@pytest.mark.parametrize("path", ["/spin", "/block"])
def test_a_worker_that_gives_no_sign_of_life_is_replaced_and_the_log_shows_where_it_stood(
    serve_app: ServeApp, path: str
) -> None:
    server = serve_app("serve", APP, args=("--timeout", "2"))
    (stuck,) = server.worker_pids()
    in_background(lambda: server.get(path, timeout=60))
    eventually(lambda: (get(server, "/pid", 1.0) or b"").decode() not in ("", str(stuck)), timeout=30)
    output = server.output()
    assert f"WORKER TIMEOUT (pid:{stuck})" in output
    assert f"in {path[1:]}\n" in output


def test_an_app_that_is_not_loaded_in_time_ends_the_start(tmp_path: Path) -> None:
    tmp_path.joinpath("endless.py").write_text("import time\ntime.sleep(60)\n")
    started = time.monotonic()
    result = fail_to_serve("endless:app", "--start-timeout", "1", cwd=tmp_path)
    assert result.returncode == 2
    assert "was not loaded within 1 s" in result.stderr
    assert time.monotonic() - started < 8


# --- deaths ---


def test_workers_end_in_order_when_their_master_was_killed(serve_app: ServeApp, redis_url: str) -> None:
    server = serve_app("serve", APP, args=("--url", redis_url), workers=3)
    sockets = [WebSocket.connect(server.url, {"/a": 0}) for _ in range(6)]
    workers = server.worker_pids()
    with contextlib.ExitStack() as stack:
        for sock in sockets:
            stack.enter_context(sock)
            sock.next_batch()
        os.kill(server.pid, signal.SIGKILL)
        with contextlib.closing(Server("serve", APP, port=server.port)) as successor:
            successor.start()  # at once: a supervisor does not wait either
            assert successor.get("/hello") == (200, b"hello")
        for sock in sockets:
            assert sock.closed() == 1001
    eventually(lambda: not any(map(processes.running, workers)), timeout=5)


def test_a_worker_that_dies_is_replaced_once_a_second(serve_app: ServeApp) -> None:
    server = serve_app("serve", APP)
    seen = set()
    deadline = time.monotonic() + 4
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError, ValueError):
            pid = int(server.get("/pid", timeout=2)[1])
            seen.add(pid)
            server.get("/exit", timeout=2)
    assert 2 <= len(seen) <= 6
    assert server.running


def test_children_that_are_not_its_workers_are_left_alone(tmp_path: Path) -> None:
    """As the first process of a container, or behind an entry script, it has children that it did not start."""
    port = free_port()
    serve = f"exec {sys.executable} -m messagebus serve {APP} --bind 127.0.0.1:{port} --workers 2 --url redis://x/0"
    script = f"sleep 8 & sleep 9 & {serve} --store-wait 0"
    process = subprocess.Popen(["sh", "-c", script], cwd=ROOT, start_new_session=True)
    try:
        eventually(lambda: len(processes.children(process.pid)) == 4, timeout=10)
        eventually(lambda: len(processes.children(process.pid)) == 2, timeout=15)
        time.sleep(1.5)
        assert len(processes.children(process.pid)) == 2
    finally:
        process.terminate()
        assert process.wait(15) == 0


def test_it_reaps_orphans_as_the_first_process_of_a_pid_namespace(redis_url: str) -> None:
    port = free_port()
    command = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", sys.executable, "-m", "messagebus"]
    command += ["serve", APP, "--bind", f"127.0.0.1:{port}", "--workers", "2", "--url", redis_url]
    process = subprocess.Popen(command, cwd=ROOT, start_new_session=True)
    server = Server("serve", APP, port=port)
    try:
        eventually(lambda: get(server, "/hello") == b"hello", timeout=30)
        (first,) = processes.children(process.pid)
        eventually(lambda: len(processes.children(first)) == 2)
        for _ in range(5):
            assert server.get("/orphan") == (200, b"left")
        eventually(lambda: _all_children(first) == 2, message="zombies, or workers too many")
        time.sleep(1.5)
        assert _all_children(first) == 2
        os.kill(first, signal.SIGTERM)
        assert process.wait(15) == 0
    finally:
        process.kill()
        server.close()


def _all_children(pid: int) -> int:
    """With zombies."""
    return len(Path(f"/proc/{pid}/task/{pid}/children").read_text().split())


# --- reloads ---


def _hammer(server: Server, stop: threading.Event) -> list[object]:
    """Requests one after the other, each on a connection of its own; what was not answered with 200."""
    failed: list[object] = []
    while not stop.is_set():
        try:
            answered = server.get("/hello", timeout=20)
            if answered[0] != 200:
                failed.append(answered)
        except OSError as error:
            failed.append(error)
        time.sleep(0.02)
    return failed


def test_hangup_reloads_the_app_without_a_refused_request(serve_app: ServeApp, redis_url: str, tmp_path: Path) -> None:
    module = tmp_path / "versioned.py"
    source = "from tests.apps.slow import app\napp.get('/version')(lambda: '1')\n"
    module.write_text(source)
    server = serve_app("serve", "versioned:app", args=("--url", redis_url), workers=2, cwd=tmp_path)
    old = set(server.worker_pids())
    stop = threading.Event()
    thread, failed = in_background(lambda: _hammer(server, stop))
    with WebSocket.connect(server.url, {"/a": 0}) as sock:
        sock.next_batch()
        module.write_text(source.replace("'1'", "'2'"))
        sock.timeout = 30.0
        os.kill(server.pid, signal.SIGHUP)
        assert sock.closed() == 1001
    eventually(lambda: len(server.worker_pids()) == 2 and not old & set(server.worker_pids()), timeout=20)
    for _ in range(4):
        assert server.get("/version") == (200, b"2")
    stop.set()
    thread.join(10)
    assert failed == [[]]


def test_an_app_that_is_broken_at_a_reload_is_tried_again_until_it_is_mended(
    serve_app: ServeApp, tmp_path: Path
) -> None:
    module = tmp_path / "versioned.py"
    source = "from tests.apps.slow import app\napp.get('/version')(lambda: '1')\n"
    module.write_text(source)
    server = serve_app("serve", "versioned:app", cwd=tmp_path)
    module.write_text("this is no Python")
    os.kill(server.pid, signal.SIGHUP)
    eventually(lambda: "not reloaded" in server.output(), timeout=10)
    assert "SyntaxError" in server.output()
    assert server.get("/version") == (200, b"1"), "the old worker goes on"
    module.write_text(source.replace("'1'", "'2'"))
    os.kill(server.pid, signal.SIGHUP)
    eventually(lambda: get(server, "/version") == b"2", timeout=30)


def test_usr2_starts_a_successor_on_the_same_sockets_without_a_refused_request(
    serve_app: ServeApp, redis_url: str, tmp_path: Path
) -> None:
    pid_file = tmp_path / "pid"
    server = serve_app("serve", APP, args=("--url", redis_url, "--pid-file", str(pid_file)), workers=2)
    first = server.pid
    assert int(pid_file.read_text()) == first
    stop = threading.Event()
    thread, failed = in_background(lambda: _hammer(server, stop))
    os.kill(first, signal.SIGUSR2)
    successor_file = tmp_path / "pid.2"
    eventually(successor_file.exists, timeout=10)
    successor = int(successor_file.read_text())
    eventually(lambda: len(processes.children(successor)) == 2, timeout=10)
    eventually(lambda: server.output().count("listening on") == 4, timeout=10)
    os.kill(first, signal.SIGTERM)
    assert server._process is not None
    assert server._process.wait(15) == 0
    eventually(lambda: pid_file.exists() and int(pid_file.read_text()) == successor, timeout=5)
    for _ in range(20):
        assert server.get("/hello")[0] == 200
    stop.set()
    thread.join(10)
    os.kill(successor, signal.SIGTERM)
    eventually(lambda: not processes.group_members(first), timeout=10)
    assert failed == [[]]
    assert not pid_file.exists()


def test_other_signals_change_the_number_of_workers_or_nothing(serve_app: ServeApp, redis_url: str) -> None:
    server = serve_app("serve", APP, args=("--url", redis_url), workers=2)
    before = set(server.worker_pids())
    os.kill(server.pid, signal.SIGUSR1)
    os.kill(server.pid, signal.SIGWINCH)
    for pid in before:
        os.kill(pid, signal.SIGUSR1)
        os.kill(pid, signal.SIGHUP)
        os.kill(pid, signal.SIGINT)
    time.sleep(0.5)
    assert set(server.worker_pids()) == before
    os.kill(server.pid, signal.SIGTTIN)
    eventually(lambda: len(server.worker_pids()) == 3, timeout=5)
    os.kill(server.pid, signal.SIGTTOU)
    eventually(lambda: len(server.worker_pids()) == 2, timeout=5)
    assert server.get("/hello") == (200, b"hello")


def test_reload_restarts_the_worker_when_a_file_of_the_app_changes(serve_app: ServeApp, tmp_path: Path) -> None:
    module = tmp_path / "versioned.py"
    source = "from tests.apps.slow import app\napp.get('/version')(lambda: '1')\n"
    module.write_text(source)
    server = serve_app("serve", "versioned:app", args=("--reload",), cwd=tmp_path)
    assert server.get("/version") == (200, b"1")
    for version in ("2", "3"):
        time.sleep(1.1)  # of the file's time, seconds are compared
        module.write_text(source.replace("'1'", f"'{version}'"))
        eventually(lambda version=version: get(server, "/version") == version.encode(), timeout=15)  # type: ignore[misc]


# --- what a supervisor sees ---


def fail_to_serve(*args: str, cwd: Path = ROOT, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "messagebus", "serve", "--bind", f"127.0.0.1:{free_port()}", *args]
    environ = {**os.environ, "PYTHONPATH": f"{cwd}{os.pathsep}{ROOT}", **(env or {})}
    return subprocess.run(command, cwd=cwd, env=environ, capture_output=True, text=True, timeout=30)


def test_a_supervisor_is_told_when_it_is_ready_and_when_it_ends(serve_app: ServeApp, tmp_path: Path) -> None:
    (tmp_path / "late.py").write_text("import time\ntime.sleep(1)\nfrom tests.apps.slow import app\n")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
        notified.bind(str(tmp_path / "notify"))
        notified.settimeout(10)
        env = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "2000000"}
        started = time.monotonic()
        server = serve_app("serve", "late:app", env=env, cwd=tmp_path)
        said = notified.recv(4096).decode()
        assert time.monotonic() - started > 1, "not before the app is loaded"
        assert f"READY=1\nMAINPID={server.pid}" in said
        assert notified.recv(4096) == b"WATCHDOG=1"
        os.kill(server.pid, signal.SIGHUP)
        messages: list[str] = []
        while not messages or "READY" not in messages[-1]:
            messages.append(notified.recv(4096).decode())
        assert any(message.startswith("RELOADING=1\nMONOTONIC_USEC=") for message in messages)
        server.stop()
        messages = []
        while not messages or messages[-1] != "STOPPING=1":
            messages.append(notified.recv(4096).decode())


@pytest.mark.parametrize("by", ["LISTEN_FDS", "fd://"])
def test_restarts_under_a_socket_that_somebody_else_holds_refuse_nobody(redis_url: str, by: str) -> None:
    """As with systemd's socket units: the listening socket outlives the service."""
    held = socket.create_server(("127.0.0.1", 0), backlog=512)
    port = held.getsockname()[1]
    probe = Server("serve", APP, port=port)
    serve = f"exec {sys.executable} -m messagebus serve {APP} --workers 2 --url {redis_url}"
    if by == "LISTEN_FDS":
        script = f"LISTEN_FDS=1 LISTEN_PID=$$ LISTEN_FDNAMES=web {serve}"
    else:
        script = f"{serve} --bind fd://3"

    def start() -> subprocess.Popen[bytes]:
        # The shell moves the descriptor to where systemd puts it.
        number = held.fileno()
        moved = f"exec 3<&{number}; " if number != 3 else ""
        return subprocess.Popen(
            ["bash", "-c", moved + script],
            cwd=ROOT,
            pass_fds=[number],
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )

    stop = threading.Event()
    process = start()
    try:
        assert probe.get("/hello", timeout=20) == (200, b"hello")
        thread, failed = in_background(lambda: _hammer(probe, stop))
        for _ in range(2):
            process.terminate()
            assert process.wait(15) == 0
            process = start()
            assert probe.get("/hello", timeout=20) == (200, b"hello")
        stop.set()
        thread.join(20)
        assert failed == [[]]
    finally:
        process.terminate()
        process.wait(15)
        held.close()
        probe.close()


def test_an_idle_server_uses_no_processor_time(serve_app: ServeApp) -> None:
    server = serve_app("serve", APP)
    pids = [server.pid, *server.worker_pids()]
    time.sleep(0.5)
    before = [cpu_used(pid) for pid in pids]
    time.sleep(2)
    assert max(cpu_used(pid) - was for pid, was in zip(pids, before, strict=True)) < 0.1


def test_the_master_is_a_small_process(serve_app: ServeApp) -> None:
    server = serve_app("serve", APP)
    assert processes.rss_kb(server.pid) < 36 * 1024
