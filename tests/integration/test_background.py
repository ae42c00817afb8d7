"""``messagebus start``, ``stop`` and ``restart`` with real servers."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from .. import processes
from ..eventually import eventually
from ..ports import free_port

ROOT = Path(__file__).resolve().parents[2]


def run(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MESSAGEBUS", "REDIS"))}
    environment["PYTHONPATH"] = str(ROOT)
    return subprocess.run(
        [sys.executable, "-m", "messagebus", *arguments],
        capture_output=True,
        text=True,
        timeout=90,
        env=environment,
        cwd=cwd,
        check=False,
    )


def hello(port: int) -> bytes:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/hello", timeout=10) as answer:
        return bytes(answer.read())


@pytest.fixture
def pid_file(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "bus.pid"
    yield path
    run("stop", "--pid-file", str(path))


def pid_in(path: Path) -> int:
    return int(path.read_text())


def test_it_serves_when_start_returns_and_has_ended_when_stop_does(pid_file: Path) -> None:
    port = free_port()
    started = run("start", "--pid-file", str(pid_file), "tests.apps.basic:app", "--bind", f"127.0.0.1:{port}")
    assert started.returncode == 0, started.stderr
    assert hello(port) == b"hello"
    pid = pid_in(pid_file)
    assert f"process {pid}" in started.stdout
    members = processes.group_members(pid)
    assert len(members) >= 2
    stopped = run("stop", "--pid-file", str(pid_file))
    assert stopped.returncode == 0, stopped.stderr
    assert not pid_file.exists()
    with pytest.raises(OSError, match="refused"):
        hello(port)
    eventually(lambda: not processes.group_members(pid))


def test_a_second_start_is_refused_and_the_first_one_stays(pid_file: Path) -> None:
    port = free_port()
    arguments = ("start", "--pid-file", str(pid_file), "tests.apps.basic:app", "--bind", f"127.0.0.1:{port}")
    assert run(*arguments).returncode == 0
    pid = pid_in(pid_file)
    second = run(*arguments)
    assert second.returncode == 2
    assert f"it runs already, as process {pid}" in second.stderr
    assert pid_in(pid_file) == pid
    assert hello(port) == b"hello"


def test_a_restart_takes_the_arguments_that_it_had(pid_file: Path, tmp_path: Path) -> None:
    port = free_port()
    assert (
        run("start", "--pid-file", str(pid_file), "tests.apps.basic:app", "--bind", f"127.0.0.1:{port}").returncode == 0
    )
    before = pid_in(pid_file)
    again = run("restart", "--pid-file", str(pid_file), cwd=tmp_path)  # from elsewhere
    assert again.returncode == 0, again.stderr
    assert pid_in(pid_file) != before
    assert hello(port) == b"hello"


def test_a_start_that_fails_says_why_and_leaves_nothing(pid_file: Path) -> None:
    failed = run("start", "--pid-file", str(pid_file), "no_such_module:app", "--bind", f"127.0.0.1:{free_port()}")
    assert failed.returncode == 2
    assert "cannot import no_such_module:app" in failed.stderr
    assert "Traceback" not in failed.stderr
    assert not pid_file.exists()


def test_a_process_that_is_not_ours_is_left_alone(pid_file: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        pid_file.write_text(f"{other.pid}\n")
        for command in ("stop", "restart"):
            refused = run(command, "--pid-file", str(pid_file))
            assert refused.returncode == 2
            assert f"process {other.pid} is not the server of" in refused.stderr
        assert other.poll() is None
        pid_file.unlink()
        with contextlib.suppress(OSError):
            other.communicate(b"\n", timeout=10)


def test_the_server_of_another_pid_file_is_left_alone(pid_file: Path, tmp_path: Path) -> None:
    port = free_port()
    run("start", "--pid-file", str(pid_file), "tests.apps.basic:app", "--bind", f"127.0.0.1:{port}")
    stale = tmp_path / "stale.pid"
    stale.write_text(pid_file.read_text())
    assert run("stop", "--pid-file", str(stale)).returncode == 2
    assert hello(port) == b"hello"


@pytest.mark.parametrize("text", ["", "0", "1", "-1", "abc", "99999999999"])
def test_a_pid_file_without_a_number_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "odd.pid"
    path.write_text(text)
    refused = run("stop", "--pid-file", str(path))
    assert refused.returncode == 2
    assert "has no process's number" in refused.stderr


def test_stop_is_content_where_nothing_runs(tmp_path: Path) -> None:
    stopped = run("stop", "--pid-file", str(tmp_path / "none.pid"))
    assert (stopped.returncode, stopped.stdout) == (0, "it does not run\n")
