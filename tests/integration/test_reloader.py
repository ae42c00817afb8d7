"""Functions that an app subscribes while it is imported are called where it is served, and nowhere else."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from messagebus import Bus
from tests.eventually import eventually
from tests.fixtures_servers import ServeApp
from tests.ports import free_port
from tests.redis_server import RedisServer
from tests.servers import ROOT, Server

pytestmark = pytest.mark.redis

APP = """
import os, sys
from flask import Flask
from messagebus import MessageBus

app = Flask(__name__)
app.register_blueprint(MessageBus.blueprint)

@MessageBus.subscribe("/jobs")
def work(message):
    with open("done", "a") as file:
        file.write(f"{os.getpid()} {message.data}\\n")

@app.get("/hello")
def hello():
    return str(os.getpid())

@app.cli.command()
def idle():
    MessageBus.publish("/jobs", "of the command")
    print("ready", flush=True)
    sys.stdin.read()

@app.cli.command()
def listen():
    MessageBus.start()
    print("ready", flush=True)
    sys.stdin.read()

if __name__ == "__main__":
    app.run(port=int(os.environ["PORT"]), debug=True)
"""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "app.py").write_text(APP)
    # The reloader looks at files by itself: watchdog would watch all of the clone, and drown in it.
    (tmp_path / "watchdog.py").write_text("raise ImportError")
    (tmp_path / "done").touch()
    return tmp_path


@pytest.fixture
def bus(redis_url: str) -> Iterator[Bus]:
    with contextlib.closing(Bus(url=redis_url)) as bus:
        yield bus


def calls(directory: Path) -> list[list[str]]:
    return [line.split(maxsplit=1) for line in (directory / "done").read_text().splitlines()]


def publish_and_see(bus: Bus, directory: Path, name: str, count: int = 5) -> set[str]:
    """Publish some jobs; each must be done once. The processes that did them."""
    jobs = [f"{name}-{number}" for number in range(count)]
    for job in jobs:
        bus.publish("/jobs", job)
    bus.publish("/jobs", f"last of {name}")
    eventually(lambda: any(job == f"last of {name}" for _, job in calls(directory)))
    done = [(pid, job) for pid, job in calls(directory) if job in jobs]
    assert [job for _, job in done] == jobs
    return {pid for pid, _ in done}


def served_by(server: Server) -> Callable[[], str]:
    return lambda: server.get("/hello", timeout=2.0)[1].decode()


def test_the_reloaders_parent_calls_nothing_and_hears_nothing(
    serve_app: ServeApp, redis_server: RedisServer, redis_url: str, bus: Bus, directory: Path
) -> None:
    server = serve_app("flask", "app:app", cwd=directory, args=["--debug"], env={"MESSAGEBUS_URL": redis_url})
    with redis_server.client() as redis:
        for number in range(2):
            pid = served_by(server)()
            assert publish_and_see(bus, directory, f"round {number}") == {pid}
            [(_, feeds)] = redis.pubsub_numsub("_message_bus_0")
            assert feeds == 1  # no more than the process that serves
            if number == 0:
                with (directory / "app.py").open("a") as file:
                    file.write("\n")

                def is_reloaded(before: str = pid) -> bool:
                    with contextlib.suppress(OSError):
                        return served_by(server)() != before
                    return False

                eventually(is_reloaded)
        server.stop()
        eventually(lambda: redis.pubsub_numsub("_message_bus_0")[0][1] == 0)


def test_the_parent_of_a_script_that_serves_itself_leaves_the_calls_to_its_child(
    redis_url: str, bus: Bus, directory: Path
) -> None:
    port = free_port()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MESSAGEBUS_URL": redis_url, "PORT": str(port)}
    process = subprocess.Popen(
        [sys.executable, "app.py"], cwd=directory, env=environment, stderr=subprocess.DEVNULL, start_new_session=True
    )
    server = Server("flask", "app:app", port=port)
    try:

        def answers() -> str | None:
            with contextlib.suppress(OSError):
                return served_by(server)()
            return None

        pid = eventually(answers)
        assert pid != str(process.pid)
        assert publish_and_see(bus, directory, "script") == {pid}
    finally:
        os.killpg(process.pid, 9)
        process.wait()
        server.close()


@pytest.mark.parametrize("command", ["idle", "listen"])
def test_a_command_calls_what_the_app_has_subscribed_only_when_it_starts_the_bus(
    redis_url: str, bus: Bus, directory: Path, command: str
) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MESSAGEBUS_URL": redis_url}
    with subprocess.Popen(
        [sys.executable, "-m", "flask", "--app", "app", command],
        cwd=directory,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "ready\n"
        heard: list[object] = []
        bus.subscribe("/jobs", lambda message: heard.append(message.data))
        if command == "listen":
            assert publish_and_see(bus, directory, command) == {str(process.pid)}
        else:
            bus.publish("/jobs", 1)
            eventually(lambda: heard == [1])
        process.stdin.close()
        assert process.wait(30) == 0
    if command == "idle":
        assert calls(directory) == []


def test_gunicorns_master_calls_nothing_of_an_app_that_it_preloads(
    serve_app: ServeApp, redis_url: str, bus: Bus, directory: Path
) -> None:
    server = serve_app("gunicorn-sync", "app:app", cwd=directory, preload=True, env={"MESSAGEBUS_URL": redis_url})
    assert server.get("/hello")[0] == 200
    assert publish_and_see(bus, directory, "preloaded") == {str(pid) for pid in server.worker_pids()}
