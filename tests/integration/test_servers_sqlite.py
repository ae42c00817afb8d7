"""Servers with several processes, Celery, a worker script and a cron script on one SQLite file."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from messagebus import Bus

from ..clients import EventSource, Polling, Streaming, WebSocket
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
LOAD = """if True:
    import sys
    from messagebus import Bus
    bus = Bus(url=sys.argv[1], max_backlog_size=100_000)
    while True:
        print(bus.publish("/load", "more"), flush=True)
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
    # What they have left behind, the next one that listens clears away.
    heard: list[Any] = []
    with contextlib.closing(Bus(url=url)) as bus:
        bus.subscribe("/jobs", lambda message: heard.append(message.data))
        bus.publish("/jobs", 8)
        eventually(lambda: heard == [8])
    assert list((tmp_path / "bus.db-listeners").iterdir()) == []


@contextlib.contextmanager
def celery(directory: Path, url: str) -> Iterator[dict[str, str]]:
    """A Celery worker of two processes whose tasks publish, with a broker in files. Yields the environment for those
    that give it tasks."""
    broker = directory / "broker"
    broker.mkdir()
    env = {**os.environ, "MESSAGEBUS_URL": url, "TEST_BROKER": str(broker)}
    command = [sys.executable, "-m", "celery", "-A", "tests.apps.celery_tasks", "worker", "--concurrency", "2"]
    with (
        open(directory / "celery.log", "wb+") as log,
        subprocess.Popen(
            [*command, "--without-mingle", "--without-gossip", "--loglevel", "INFO"],
            cwd=ROOT,
            env=env,
            stdout=log,
            stderr=subprocess.STDOUT,
        ) as worker,
    ):
        try:
            eventually(lambda: b" ready." in (directory / "celery.log").read_bytes(), 30)
            yield env
        finally:
            worker.terminate()
            said = (directory / "celery.log").read_text()
    assert "Traceback" not in said, said


@pytest.mark.parametrize("kind", ["gunicorn-gthread", "serve"])
def test_tasks_of_celery_and_a_cron_script_reach_the_pages_of_four_workers(
    serve_app: ServeApp, tmp_path: Path, kind: str
) -> None:
    url = f"sqlite:///{tmp_path}/bus.db"
    server = serve_app(kind, workers=4, env={"MESSAGEBUS_URL": url})
    with celery(tmp_path, url) as env, contextlib.ExitStack() as stack:
        clients = [
            stack.enter_context(transport.connect(server.url, {"/reports": 0}))
            for _ in range(3)
            for transport in (WebSocket, EventSource, Streaming)
        ]
        ask = "from tests.apps.celery_tasks import make_report as task; [task.delay(n) for n in range(6)]"
        subprocess.run([sys.executable, "-c", ask], cwd=ROOT, env=env, check=True)
        subprocess.run([sys.executable, "-c", CRON.replace("/chat", "/reports"), url], cwd=ROOT, check=True)
        for client in clients:
            came = client.messages(6 * 3 + 1)
            assert [message["message_id"] for message in came] == list(range(1, 20))
            reports = [message["data"] for message in came if message["data"] != "from cron"]
            assert sorted(report[:2] for report in reports) == [[n, done] for n in range(6) for done in (0, 50, 100)]
            # In both of its processes, which have forked before they published.
            assert len({pid for _, _, pid in reports}) == 2
    assert "Traceback" not in server.output()


def test_workers_and_publishers_that_are_killed_under_load_cost_no_page_a_message(
    serve_app: ServeApp, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/bus.db"
    server = serve_app("serve", workers=4, env={"MESSAGEBUS_URL": url})
    command = [sys.executable, "-c", LOAD, url]
    given: list[int] = []
    with contextlib.closing(Bus(url=url, max_backlog_size=100_000)) as bus, contextlib.ExitStack() as stack:
        clients = [
            stack.enter_context(transport.connect(server.url, {"/load": 0}, epoch=""))
            for _ in range(3)
            for transport in (WebSocket, EventSource, Streaming)
        ]
        stop = threading.Event()

        def publish_steadily() -> None:
            while not stop.wait(0.005):
                given.append(bus.publish("/load", "steady") or 0)

        steady = threading.Thread(target=publish_steadily)
        steady.start()
        stack.callback(stop.set)
        for _ in range(6):
            with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as program:
                assert program.stdout is not None
                # At some moment of its writing.
                for _ in range(random.randrange(1, 60)):
                    given.append(int(program.stdout.readline()))
                os.kill(random.choice(server.worker_pids()), signal.SIGKILL)
                program.kill()
                given += [int(line) for line in program.stdout.read().splitlines(keepends=True) if line[-1:] == b"\n"]
            eventually(lambda: len(server.worker_pids()) == 4)
        stop.set()
        steady.join()
        last = bus.publish("/load", "the end")
        assert last is not None
        for client in clients:
            came = client.messages(last, resume=True)
            assert [message["message_id"] for message in came] == list(range(1, last + 1))
            assert client.gaps == []
    assert len(given) == len(set(given)) > 100
    # A publisher that was killed between its commit and its word has published one more.
    assert set(given) <= set(range(1, last + 1))
    assert last - 1 - len(given) <= 6


@pytest.mark.parametrize("kind", ["gunicorn-gthread", "gunicorn-gevent", "uwsgi"])
def test_several_workers_in_memory_are_told_once_each_of_the_file_that_cures_it(serve_app: ServeApp, kind: str) -> None:
    server = serve_app(kind, workers=2)
    for _ in range(20):
        with Polling.connect(server.url, {"/chat": 0}) as client:
            client.next_batch()
    output = eventually(lambda: server.output() if "memory:// is each one's own" in server.output() else "")
    assert 1 <= output.count("memory:// is each one's own") <= 2
    assert "sqlite:////var/lib/myapp/bus.db" in output
    assert "redis://" in output
