"""``messagebus exec --each``: a program for each viewer."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from messagebus.client import Client

from ..eventually import eventually
from ..fixtures_servers import ServeApp
from ..redis_server import RedisServer
from ..serve_helpers import alone
from ..servers import Server
from ..shell import Shell

CONFIG = """
[channels."/out/in"]
publish = "anyone"
subscribe = "nobody"
"""
ECHO = 'echo "$$ $MESSAGEBUS_CLIENT_ID"; while read -r line; do echo "$line!"; done'
"""Says its process and whose it is, then each line with an exclamation mark."""
STUBBORN = "trap '' TERM; echo $$; while :; do sleep 0.05; done"
BY_ITSELF = "echo $$; read -r code; exit $code"


class Viewer:
    """A client that follows ``/out``, and says something to its program."""

    def __init__(self, server: Server, client_id: str) -> None:
        self.lines: list[str] = []
        self.client = Client(server.url, client_id=client_id)
        self.client.subscribe("/out", lambda message: self.lines.append(message.data))
        self.client.start()
        assert self.client.wait_connected(30)

    def says(self, line: str) -> None:
        self.client.publish("/out/in", line)

    def gets(self, number: int) -> list[str]:
        eventually(lambda: len(self.lines) >= number, message=f"{number} lines")
        return self.lines

    @property
    def process(self) -> int:
        """That of its program, which has said it first."""
        return int(self.gets(1)[0].split()[0])


class Each:
    """``messagebus exec --each`` that runs, and what it says."""

    def __init__(self, shell: Shell, *arguments: str) -> None:
        self.process = shell.start("exec", "/out", "--each", *arguments)
        self.said = ""
        assert self.process.stderr is not None
        self._reader = threading.Thread(target=self._read, args=(self.process.stderr,))
        self._reader.start()
        eventually(lambda: self.process.pid in [each["pid"] for each in shell.lines("stats")[0]["by_worker"]])

    def _read(self, stderr: IO[bytes]) -> None:
        with stderr:
            for line in stderr:
                self.said += line.decode()

    def ends(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(30)
        self._reader.join()
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code


@pytest.fixture
def shell(request: pytest.FixtureRequest, tmp_path: Path) -> Shell:
    """On a file; where the test says so, on the store of a fixture."""
    store: str | None = getattr(request, "param", None)
    return Shell(f"sqlite:///{tmp_path}/bus.db" if store is None else request.getfixturevalue(store))


@pytest.fixture
def server(serve_app: ServeApp, shell: Shell, tmp_path: Path) -> Server:
    return serve(serve_app, shell, tmp_path)


@pytest.fixture
def viewers(server: Server) -> Iterator[list[Viewer]]:
    found: list[Viewer] = []
    yield found
    for viewer in found:
        viewer.client.stop()


@pytest.fixture
def running() -> Iterator[list[Each]]:
    found: list[Each] = []
    yield found
    for each in found:
        each.ends()


def serve(serve_app: ServeApp, shell: Shell, tmp_path: Path) -> Server:
    (tmp_path / "bus.toml").write_text(CONFIG)
    return alone(serve_app, "--url", shell.url, "--config", f"{tmp_path}/bus.toml", "--workers", "2")


def lives(process: int) -> bool:
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, 0)
        return True
    return False


@pytest.mark.parametrize("shell", [None, pytest.param("cluster_url", marks=pytest.mark.redis)], indirect=True)
def test_each_viewer_has_a_program_of_its_own_and_nobody_sees_anothers(
    server: Server, shell: Shell, viewers: list[Viewer], running: list[Each]
) -> None:
    running.append(Each(shell, "--input", "/out/in", "--", "sh", "-c", ECHO))
    names = ["anna", "bert", "carl", "dora"]
    viewers += [Viewer(server, name) for name in names]
    for viewer in viewers:
        viewer.says(f"I am {viewer.client.client_id}")  # at once: its program may not have begun
    for viewer, name in zip(viewers, names, strict=True):
        assert viewer.gets(2)[1:] == [f"I am {name}!"]
        assert viewer.lines[0].split()[1] == name
    assert len({viewer.process for viewer in viewers}) == 4
    assert running[0].said == ""


def test_a_program_ends_when_its_viewer_has_left_and_not_when_it_comes_back_in_time(
    server: Server, shell: Shell, viewers: list[Viewer], running: list[Each]
) -> None:
    running.append(Each(shell, "--input", "/out/in", "--leave-wait", "6", "--", "sh", "-c", ECHO))
    first = Viewer(server, "anna")
    process = first.process
    first.client.stop()
    viewers.append(Viewer(server, "anna"))
    viewers[0].says("again")
    assert viewers[0].gets(1) == ["again!"]
    assert lives(process)
    viewers[0].client.stop()
    eventually(lambda: not lives(process))
    viewers.append(Viewer(server, "anna"))
    assert viewers[1].process != process


def test_what_others_publish_is_for_nobody_or_for_those_whom_a_program_names(
    server: Server, shell: Shell, viewers: list[Viewer], running: list[Each]
) -> None:
    running.append(Each(shell, "--input", "/out/in", "--", "sh", "-c", ECHO))
    viewers += [Viewer(server, "anna"), Viewer(server, "bert")]
    anna, bert = (viewer.process for viewer in viewers)
    stranger = Client(server.url, client_id="stranger")
    with contextlib.closing(contextlib.ExitStack()) as stack:
        stack.callback(stranger.stop)
        stranger.start()
        stranger.publish("/out/in", "let me in")
    shell.lines("publish", "/out/in", "to all")
    shell.lines("publish", "/out/in", "to anna", "--client-id", "anna")
    viewers[1].says("last")
    assert viewers[0].gets(2) == [f"{anna} anna", "to anna!"]
    assert viewers[1].gets(2) == [f"{bert} bert", "last!"]


def test_beyond_the_bound_a_viewer_waits_for_its_turn_and_that_is_said(
    server: Server, shell: Shell, viewers: list[Viewer], running: list[Each]
) -> None:
    limits = ("--programs", "1", "--leave-wait", "0.5")
    running.append(Each(shell, "--input", "/out/in", *limits, "--", "sh", "-c", ECHO))
    viewers.append(Viewer(server, "anna"))
    first = viewers[0].process
    viewers.append(Viewer(server, "bert"))
    viewers[1].says("waiting")
    eventually(lambda: "1 programs run (--programs)" in running[0].said)
    assert viewers[1].lines == []
    viewers[0].client.stop()
    assert viewers[1].gets(2)[1] == "waiting!"
    assert not lives(first)
    assert running[0].said.count("--programs") == 1


def test_a_reload_of_the_server_leaves_programs_alone(
    server: Server, shell: Shell, viewers: list[Viewer], running: list[Each]
) -> None:
    running.append(Each(shell, "--input", "/out/in", "--leave-wait", "10", "--", "sh", "-c", ECHO))
    viewers += [Viewer(server, name) for name in ("anna", "bert", "carl")]
    processes = [viewer.process for viewer in viewers]
    before = {*server.worker_pids()}
    os.kill(server.pid, signal.SIGHUP)
    eventually(lambda: len(now := {*server.worker_pids()}) == 2 and not now & before, timeout=60)
    for viewer in viewers:
        viewer.says("still here")
    assert [viewer.gets(2)[1:] for viewer in viewers] == [["still here!"]] * 3
    assert [viewer.process for viewer in viewers] == processes
    assert all(map(lives, processes))


def test_a_signal_ends_all_programs_and_kills_those_that_do_not_end(
    server: Server, shell: Shell, viewers: list[Viewer]
) -> None:
    each = Each(shell, "--stop-wait", "0.5", "--", "bash", "-c", STUBBORN)
    viewers += [Viewer(server, "anna"), Viewer(server, "bert")]
    processes = [viewer.process for viewer in viewers]
    assert each.ends() == 0
    assert not any(map(lives, processes))


def test_a_program_that_ends_by_itself_is_started_again_when_its_viewer_is(
    server: Server, shell: Shell, viewers: list[Viewer], running: list[Each]
) -> None:
    running.append(Each(shell, "--input", "/out/in", "--leave-wait", "0", "--", "sh", "-c", BY_ITSELF))
    viewers += [Viewer(server, "anna"), Viewer(server, "bert")]
    process = viewers[0].process
    viewers[0].says("3")
    eventually(lambda: "anna: its program has ended with code 3" in running[0].said)
    viewers[1].says("0")
    eventually(lambda: not lives(viewers[1].process))
    viewers[0].client.stop()

    def again() -> bool:
        # Nobody tells when it is known that she has gone; but not before the next one who comes.
        viewers.append(Viewer(server, f"next-{len(viewers)}"))
        assert viewers[-1].process
        viewers.append(viewer := Viewer(server, "anna"))
        with contextlib.suppress(AssertionError):
            eventually(lambda: viewer.lines, timeout=2)
        viewer.client.stop()
        return bool(viewer.lines)

    eventually(again)
    assert viewers[-1].process != process


@pytest.mark.redis
def test_while_the_store_is_away_programs_live_on_and_lines_come_once(
    mortal_redis: RedisServer, serve_app: ServeApp, tmp_path: Path, running: list[Each]
) -> None:
    shell = Shell(mortal_redis.url)
    server = serve(serve_app, shell, tmp_path)
    gate = tmp_path / "gate"
    program = f"echo $$; while [ ! -e {gate} ]; do sleep 0.05; done; echo 1; echo 2; sleep 60"
    running.append(Each(shell, "--leave-wait", "1", "--", "bash", "-c", program))
    viewer = Viewer(server, "anna")
    try:
        process = viewer.process
        mortal_redis.kill()
        gate.touch()
        eventually(lambda: "the program waits" in running[0].said)
        mortal_redis.start()
        assert viewer.gets(3)[1:] == ["1", "2"]
        assert lives(process)
    finally:
        viewer.client.stop()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--", "no-such-program"), "no-such-program cannot be started"),
        (("--programs", "0", "--", "true"), "--programs"),
        (("--input", "/out", "--", "true"), "would read its own lines"),
    ],
)
def test_what_cannot_be_done_is_said(shell: Shell, arguments: tuple[str, ...], says: str) -> None:
    done = shell.run("exec", "/out", "--each", *arguments)
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_a_server_is_refused_with_the_reason_and_nothing_is_forgotten(serve_app: ServeApp, shell: Shell) -> None:
    key = "a-key-that-is-long-enough"
    server = alone(serve_app, "--url", shell.url, env={"MESSAGEBUS_PUBLISHER_KEYS": key})
    shell.lines("publish", "/out", "before")
    done = Shell(server.url, key).run("exec", "/out", "--each", "--forget", "--", "true")
    assert done.returncode == 2
    assert "Give the URL of the store" in done.stderr
    assert shell.data("backlog", "/out") == ["before"]
