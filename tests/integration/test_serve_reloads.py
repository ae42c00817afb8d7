"""What ``messagebus serve`` does at the signals that reload, replace or resize it, and what a supervisor sees."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from .. import processes
from ..clients import Refused, WebSocket
from ..eventually import eventually
from ..fixtures_servers import ServeApp
from ..serve_helpers import APP, alone, get, hammer, in_background, publish
from ..servers import ROOT, Server


def test_hangup_reloads_the_app_without_a_refused_request(serve_app: ServeApp, redis_url: str, tmp_path: Path) -> None:
    module = tmp_path / "versioned.py"
    source = "from tests.apps.slow import app\napp.get('/version')(lambda: '1')\n"
    module.write_text(source)
    server = serve_app("serve", "versioned:app", args=("--url", redis_url), workers=2, cwd=tmp_path)
    old = set(server.worker_pids())
    stop = threading.Event()
    thread, failed = in_background(lambda: hammer(server, stop))
    with WebSocket.connect(server.url, {"/a": 0}) as sock:
        sock.next_batch()
        module.write_text(source.replace("'1'", "'2'"))
        os.kill(server.pid, signal.SIGHUP)
        assert sock.closed() == 1001
    eventually(lambda: len(server.worker_pids()) == 2 and not old & set(server.worker_pids()))
    for _ in range(4):
        assert server.get("/version") == (200, b"2")
    stop.set()
    thread.join(30)
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
    eventually(lambda: "not reloaded" in server.output())
    assert "SyntaxError" in server.output()
    assert server.get("/version") == (200, b"1"), "the old worker goes on"
    module.write_text(source.replace("'1'", "'2'"))
    os.kill(server.pid, signal.SIGHUP)
    eventually(lambda: get(server, "/version") == b"2")


def test_hangup_reads_the_config_file_again_and_a_wrong_one_changes_nothing(
    serve_app: ServeApp, tmp_path: Path
) -> None:
    path = tmp_path / "bus.toml"
    url = f'url = "sqlite:///{tmp_path}/bus.db"\nanonymous_publish = true\n'
    path.write_text(url + '[channels."/a"]\nmax_backlog_size = 2\n')
    server = alone(serve_app, "--config", str(path))
    (old,) = server.worker_pids()

    def stored() -> object:
        return publish(server, "/a", "x")[1]["stored_messages"]

    assert [stored() for _ in range(3)] == [1, 2, 2]
    path.write_text(url + '[channels."/a"]\nmax_backlog_size = "many"\n')
    os.kill(server.pid, signal.SIGHUP)
    eventually(lambda: "not reloaded: its options are wrong; the old ones go on" in server.output())
    assert f"the options stay as they were: {path}, line 4: " in server.output()
    assert server.worker_pids() == [old]
    assert stored() == 2
    path.write_text(url + '[channels."/a"]\nmax_backlog_size = 3\n')
    os.kill(server.pid, signal.SIGHUP)
    eventually(lambda: old not in server.worker_pids())
    eventually(lambda: stored() == 3)


def test_reload_restarts_the_worker_when_the_config_file_changes(serve_app: ServeApp, tmp_path: Path) -> None:
    path = tmp_path / "bus.toml"
    path.write_text("max_message_size = 1000\n")
    server = alone(serve_app, "--config", str(path), "--reload", "--allow-anonymous-publish")

    def status() -> int | None:
        try:
            return publish(server, "/a", "x" * 2000)[0]
        except Refused as refusal:
            return refusal.status
        except OSError:
            return None  # the worker restarts

    assert status() == 413
    changed = tmp_path / "changed"
    changed.write_text("max_message_size = 3000\n")
    later = path.stat().st_mtime + 2  # of the file's time, seconds are compared
    os.utime(changed, (later, later))
    changed.rename(path)
    eventually(lambda: status() == 202)


def test_usr2_starts_a_successor_on_the_same_sockets_without_a_refused_request(
    serve_app: ServeApp, redis_url: str, tmp_path: Path
) -> None:
    pid_file = tmp_path / "pid"
    server = serve_app("serve", APP, args=("--url", redis_url, "--pid-file", str(pid_file)), workers=2)
    first = server.pid
    assert int(pid_file.read_text()) == first
    stop = threading.Event()
    thread, failed = in_background(lambda: hammer(server, stop))
    os.kill(first, signal.SIGUSR2)
    successor_file = tmp_path / "pid.2"
    eventually(successor_file.exists)
    successor = int(successor_file.read_text())
    eventually(lambda: len(processes.children(successor)) == 2)
    eventually(lambda: server.output().count("listening on") == 4)
    os.kill(first, signal.SIGTERM)
    assert server._process is not None
    assert server._process.wait(30) == 0
    eventually(lambda: pid_file.exists() and int(pid_file.read_text()) == successor)
    for _ in range(20):
        assert server.get("/hello")[0] == 200
    stop.set()
    thread.join(30)
    os.kill(successor, signal.SIGTERM)
    eventually(lambda: not processes.group_members(first))
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
    eventually(lambda: len(server.worker_pids()) == 3)
    os.kill(server.pid, signal.SIGTTOU)
    eventually(lambda: len(server.worker_pids()) == 2)
    assert server.get("/hello") == (200, b"hello")


def test_reload_restarts_the_worker_when_a_file_of_the_app_changes(serve_app: ServeApp, tmp_path: Path) -> None:
    module = tmp_path / "versioned.py"
    source = "from tests.apps.slow import app\napp.get('/version')(lambda: '1')\n"
    module.write_text(source)
    server = serve_app("serve", "versioned:app", args=("--reload",), cwd=tmp_path)
    assert server.get("/version") == (200, b"1")
    for version in ("2", "3"):
        changed = tmp_path / "changed"
        changed.write_text(source.replace("'1'", f"'{version}'"))
        later = module.stat().st_mtime + 2  # of the file's time, seconds are compared
        os.utime(changed, (later, later))
        changed.rename(module)
        eventually(lambda version=version: get(server, "/version") == version.encode())  # type: ignore[misc]


def test_a_supervisor_is_told_when_it_is_ready_and_when_it_ends(serve_app: ServeApp, tmp_path: Path) -> None:
    (tmp_path / "late.py").write_text("import time\ntime.sleep(1)\nfrom tests.apps.slow import app\n")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
        notified.bind(str(tmp_path / "notify"))
        notified.settimeout(30)
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
        assert probe.get("/hello") == (200, b"hello")
        thread, failed = in_background(lambda: hammer(probe, stop))
        for _ in range(2):
            process.terminate()
            assert process.wait(30) == 0
            process = start()
            assert probe.get("/hello") == (200, b"hello")
        stop.set()
        thread.join(30)
        assert failed == [[]]
    finally:
        process.terminate()
        process.wait(30)
        held.close()
        probe.close()
