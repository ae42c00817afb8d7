"""``messagebus exec``: the lines of a program are messages."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..eventually import eventually
from ..fixtures_servers import ServeApp
from ..redis_server import RedisServer
from ..serve_helpers import alone
from ..shell import Shell

KEY = "a-key-that-is-long-enough"
STUBBORN = "trap '' TERM; echo begun; while :; do sleep 0.05; done"


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(f"sqlite:///{tmp_path}/bus.db")


@pytest.fixture(params=["store", "server"])
def either(request: pytest.FixtureRequest, shell: Shell, serve_app: ServeApp) -> Iterator[Shell]:
    limit = {"MESSAGEBUS_MAX_MESSAGE_SIZE": "10000"}
    if request.param == "store":
        shell.environment.update(limit)
        yield shell
    else:
        server = alone(serve_app, "--url", shell.url, env={"MESSAGEBUS_PUBLISHER_KEYS": KEY, **limit})
        yield Shell(server.url, KEY)


def begun(shell: Shell, process: subprocess.Popen[bytes]) -> None:
    eventually(lambda: "begun" in shell.data("backlog", "/out") or process.poll() is not None)
    assert process.poll() is None


def test_its_lines_are_messages_for_late_viewers_too_and_its_code_is_the_commands(either: Shell) -> None:
    done = either.run("exec", "/out", "--", "sh", "-c", "echo one; echo two >&2; printf 'last\\303'; exit 7")
    assert (done.returncode, done.stdout, done.stderr) == (7, "", "two\n")
    assert either.data("subscribe", "/out", "--from", "1", "--count", "2") == ["one", "last\ufffd"]


def test_what_the_channel_has_of_an_earlier_run_can_be_forgotten(either: Shell) -> None:
    either.run("exec", "/out", "--", "echo", "first")
    either.run("exec", "/out", "--", "echo", "second")
    either.run("exec", "/out", "--forget", "--", "echo", "third")
    assert [(each["message_id"], each["data"]) for each in either.lines("backlog", "/out")] == [(3, "third")]


def test_it_reads_the_messages_of_another_channel_a_line_for_each(either: Shell) -> None:
    program = "echo begun; read -r a; echo 1 $a; read -r b; echo 2 $b; read -r c; echo 3 $c"
    process = either.start("exec", "/out", "--input", "/in", "--", "bash", "-c", program)
    begun(either, process)
    either.lines("publish", "/in", "hello")
    either.lines("publish", "/in", "rm\nrm")
    either.lines("publish", "/in", "--json", '{"a": 1}')
    assert process.communicate(timeout=30) == (b"", b"")
    assert process.returncode == 0
    assert either.data("backlog", "/out") == ["begun", "1 hello", "2 rm\\nrm", '3 {"a":1}']


def test_lines_of_json_are_published_as_json_and_others_left_out(shell: Shell) -> None:
    done = shell.run("exec", "/out", "--json", "--", "sh", "-c", "echo 1; echo oops; echo '[2]'")
    assert done.returncode == 0
    assert "not published, for it is not JSON: oops" in done.stderr
    assert shell.data("backlog", "/out") == [1, [2]]


def test_a_line_that_is_too_long_is_left_out_alone(either: Shell) -> None:
    program = "print('a'); print('x' * 10_001); print('b')"
    done = either.run("exec", "/out", "--", "python3", "-c", program)
    assert done.returncode == 0
    assert "a line was not published" in done.stderr
    assert either.data("backlog", "/out") == ["a", "b"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_program_in_order_and_its_last_words_are_published(
    shell: Shell, number: signal.Signals
) -> None:
    program = "trap 'echo bye; exit 3' TERM; echo begun; while :; do sleep 0.05; done"
    process = shell.start("exec", "/out", "--", "bash", "-c", program)
    begun(shell, process)
    process.send_signal(number)
    process.communicate(timeout=30)
    assert process.returncode == 3
    assert shell.data("backlog", "/out") == ["begun", "bye"]


def test_a_program_that_does_not_end_is_killed_with_all_that_it_has_started(shell: Shell) -> None:
    process = shell.start("exec", "/out", "--stop-wait", "0.2", "--", "bash", "-c", STUBBORN)
    begun(shell, process)
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=30) == (b"", b"")
    assert process.returncode == 128 + signal.SIGKILL


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("exec", "/out", "--", "no-such-program"), 2, "no-such-program cannot be started: No such file"),
        (("exec", "out", "--", "true"), 2, "a channel starts with '/'"),
        (("exec", "/out", "--input", "/out", "--", "true"), 2, "would read its own lines"),
        (("exec", "/out", "--max-backlog-size", "0", "--", "echo", "x"), 2, "max_backlog_size"),
        (("exec", "/out"), 2, "Missing argument"),
    ],
)
def test_what_cannot_be_done_is_said(shell: Shell, arguments: tuple[str, ...], code: int, says: str) -> None:
    done = shell.run(*arguments)
    assert done.returncode == code
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_without_the_right_key_no_program_is_started(serve_app: ServeApp, tmp_path: Path) -> None:
    server = alone(serve_app, env={"MESSAGEBUS_PUBLISHER_KEYS": KEY})
    done = Shell(server.url, "another-key-that-is-long").run("exec", "/out", "--", "touch", str(tmp_path / "started"))
    assert done.returncode == 1
    assert "401" in done.stderr
    assert not (tmp_path / "started").exists()


@pytest.mark.redis
def test_while_the_store_is_away_the_program_waits_and_each_line_comes_once(
    mortal_redis: RedisServer, tmp_path: Path
) -> None:
    shell = Shell(mortal_redis.url)
    gate = tmp_path / "gate"
    program = f"echo begun; while [ ! -e {gate} ]; do sleep 0.05; done; for i in 1 2 3; do echo $i; done"
    process = shell.start("exec", "/out", "--", "bash", "-c", program)
    begun(shell, process)
    mortal_redis.kill()
    gate.touch()
    assert process.stderr is not None
    assert b"the program waits" in process.stderr.readline()
    mortal_redis.start()
    assert process.communicate(timeout=60)[1] == b""
    assert process.returncode == 0
    assert shell.data("backlog", "/out") == ["1", "2", "3"]  # it has come back empty


def test_while_the_server_is_away_the_program_waits_and_each_line_comes_once(
    serve_app: ServeApp, shell: Shell, tmp_path: Path
) -> None:
    server = alone(serve_app, "--url", shell.url, env={"MESSAGEBUS_PUBLISHER_KEYS": KEY})
    gate = tmp_path / "gate"
    program = f"echo begun; while [ ! -e {gate} ]; do sleep 0.05; done; for i in 1 2 3; do echo $i; done"
    process = Shell(server.url, KEY).start("exec", "/out", "--", "bash", "-c", program)
    begun(shell, process)
    server.stop()
    gate.touch()
    assert process.stderr is not None
    assert b"the program waits" in process.stderr.readline()
    server.start()
    assert process.communicate(timeout=60)[1] == b""
    assert process.returncode == 0
    assert shell.data("backlog", "/out") == ["begun", "1", "2", "3"]
