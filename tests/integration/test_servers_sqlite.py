"""Servers with several processes, a worker script and a cron script on one SQLite file."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ..clients import EventSource, WebSocket
from ..eventually import eventually
from ..fixtures_servers import ServeApp
from ..servers import ROOT
from .test_servers import publish

CRON = "import sys; from messagebus import Bus; print(Bus(url=sys.argv[1]).publish('/chat', 'from cron'))"
WORKER = """if True:
    import sys
    from messagebus import Bus
    bus = Bus(url=sys.argv[1])
    bus.subscribe("/jobs", lambda message: bus.publish("/chat", ["done", message.data]))
    print("ready", flush=True)
    sys.stdin.read()
    bus.close()
"""
SEVERAL: list[tuple[str, dict[str, Any]]] = [
    ("gunicorn-gthread", {}),
    ("gunicorn-gthread", {"preload": True}),
    ("gunicorn-gevent", {}),
    ("serve", {}),
]


@pytest.mark.parametrize(("kind", "options"), SEVERAL, ids=["gunicorn", "preload", "gevent", "serve"])
def test_four_workers_a_worker_script_and_a_cron_script_share_one_file(
    serve_app: ServeApp, tmp_path: Path, kind: str, options: dict[str, Any]
) -> None:
    url = f"sqlite:///{tmp_path}/bus.db"
    server = serve_app(kind, workers=4, env={"MESSAGEBUS_URL": url}, **options)
    command = [sys.executable, "-c", WORKER, url]
    with (
        subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as worker,
        contextlib.ExitStack() as stack,
    ):
        stack.callback(worker.kill)
        assert worker.stdout is not None
        assert worker.stdout.readline() == b"ready\n"
        # Connections enough that they cannot all be in one process.
        clients = [
            stack.enter_context(transport.connect(server.url, {"/chat": 0}))
            for _ in range(6)
            for transport in (WebSocket, EventSource)
        ]
        for number in range(1, 21):
            assert publish(server, "/chat", number) == number
        subprocess.run([sys.executable, "-c", CRON, url], cwd=ROOT, check=True)
        publish(server, "/jobs", 7)
        expected = [*range(1, 21), "from cron", ["done", 7]]
        for client in clients:
            assert client.data(len(expected)) == expected
    assert "Traceback" not in server.output()
    server.stop()
    # What they have left behind, the next one clears away.
    subprocess.run([sys.executable, "-c", CRON, url], cwd=ROOT, check=True)
    assert list((tmp_path / "bus.db-listeners").iterdir()) == []


@pytest.mark.parametrize("kind", ["gunicorn-gthread", "gunicorn-gevent"])
def test_several_workers_in_memory_are_told_once_each_of_the_file_that_cures_it(serve_app: ServeApp, kind: str) -> None:
    server = serve_app(kind, workers=2)
    for _ in range(20):
        with EventSource.connect(server.url, {"/chat": 0}):
            pass
    output = eventually(lambda: server.output() if "memory:// is each one's own" in server.output() else "")
    assert 1 <= output.count("memory:// is each one's own") <= 2
    assert "sqlite:////var/lib/myapp/bus.db" in output
    assert "redis://" in output
