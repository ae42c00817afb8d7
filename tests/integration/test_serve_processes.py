"""The processes of ``messagebus serve``: stuck, dead, orphaned, idle."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from http.client import HTTPException
from pathlib import Path

import pytest

from .. import processes
from ..clients import WebSocket
from ..eventually import eventually
from ..fixtures_servers import ServeApp
from ..ports import free_port
from ..serve_helpers import APP, fail_to_serve, get, in_background
from ..servers import ROOT, Server


@pytest.mark.parametrize("path", ["/spin", "/block"])
def test_a_worker_that_gives_no_sign_of_life_is_replaced_and_the_log_shows_where_it_stood(
    serve_app: ServeApp, path: str
) -> None:
    server = serve_app("serve", APP, args=("--timeout", "2"))
    (stuck,) = server.worker_pids()
    in_background(lambda: server.get(path, timeout=60))
    eventually(lambda: (get(server, "/pid", 1.0) or b"").decode() not in ("", str(stuck)))
    output = server.output()
    assert f"WORKER TIMEOUT (pid:{stuck})" in output
    assert f"in {path[1:]}\n" in output


def test_an_app_that_is_not_loaded_in_time_ends_the_start(tmp_path: Path) -> None:
    tmp_path.joinpath("endless.py").write_text("import time\ntime.sleep(600)\n")
    result = fail_to_serve("endless:app", "--start-timeout", "1", cwd=tmp_path)
    assert result.returncode == 2
    assert "was not loaded within 1 s" in result.stderr


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
    eventually(lambda: not any(map(processes.running, workers)))


def test_a_worker_that_dies_is_replaced_once_a_second(serve_app: ServeApp) -> None:
    server = serve_app("serve", APP)
    seen: set[int] = set()
    began = time.monotonic()

    def has_died_four_times() -> bool:
        with contextlib.suppress(OSError, HTTPException):
            seen.add(int(server.get("/pid")[1]))
            server.get("/exit")
        return len(seen) == 4

    eventually(has_died_four_times)
    assert time.monotonic() - began > 1.5, "the second, third and fourth came a second after each other"
    assert server.running


def test_children_that_are_not_its_workers_are_left_alone(tmp_path: Path) -> None:
    """As the first process of a container, or behind an entry script, it has children that it did not start."""
    port = free_port()
    serve = f"exec {sys.executable} -m messagebus serve {APP} --bind 127.0.0.1:{port} --workers 2 --url redis://x/0"
    release = tmp_path / "release"
    child = f"(until [ -e {release} ]; do sleep 0.1; done)"
    script = f"{child} & {child} & {serve} --store-wait 0"
    process = subprocess.Popen(["sh", "-c", script], cwd=ROOT, start_new_session=True)
    try:
        eventually(lambda: len(processes.children(process.pid)) == 4)
        release.touch()
        eventually(lambda: len(processes.children(process.pid)) == 2)
        time.sleep(1.5)
        assert len(processes.children(process.pid)) == 2
    finally:
        process.terminate()
        assert process.wait(30) == 0


def test_it_reaps_orphans_as_the_first_process_of_a_pid_namespace(redis_url: str) -> None:
    port = free_port()
    command = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", sys.executable, "-m", "messagebus"]
    command += ["serve", APP, "--bind", f"127.0.0.1:{port}", "--workers", "2", "--url", redis_url]
    process = subprocess.Popen(command, cwd=ROOT, start_new_session=True)
    server = Server("serve", APP, port=port)
    try:
        eventually(lambda: get(server, "/hello") == b"hello")
        (first,) = processes.children(process.pid)
        eventually(lambda: len(processes.children(first)) == 2)
        for _ in range(5):
            assert server.get("/orphan") == (200, b"left")
        eventually(lambda: _all_children(first) == 2, message="zombies, or workers too many")
        time.sleep(1.5)
        assert _all_children(first) == 2
        os.kill(first, signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        process.kill()
        server.close()


def _all_children(pid: int) -> int:
    """With zombies."""
    return len(Path(f"/proc/{pid}/task/{pid}/children").read_text().split())


def test_an_idle_server_uses_no_processor_time(serve_app: ServeApp) -> None:
    server = serve_app("serve", APP)
    pids = [server.pid, *server.worker_pids()]
    time.sleep(0.5)
    before = [processes.cpu_used(pid) for pid in pids]
    time.sleep(2)
    assert max(processes.cpu_used(pid) - was for pid, was in zip(pids, before, strict=True)) < 0.1


def test_the_master_is_a_small_process(serve_app: ServeApp) -> None:
    server = serve_app("serve", APP)
    assert processes.rss_kb(server.pid) < 36 * 1024
