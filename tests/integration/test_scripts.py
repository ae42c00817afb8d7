"""Scripts that publish and end: what they say when it went nowhere, and how soon they end."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.ports import free_port

APP = """
import flask
from messagebus import MessageBus
app = flask.Flask(__name__)
app.config["MESSAGEBUS_URL"] = {url!r}
app.register_blueprint(MessageBus.blueprint)

@app.cli.command("pub")
def pub():
    print("id", MessageBus.publish("/chat", "a"))
"""


def run(tmp_path: Path, *command: str, **env: str) -> tuple[float, subprocess.CompletedProcess[str]]:
    began = time.monotonic()
    result = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, **env}, capture_output=True, text=True, timeout=60
    )
    return time.monotonic() - began, result


def python(tmp_path: Path, program: str, **env: str) -> subprocess.CompletedProcess[str]:
    return run(tmp_path, sys.executable, "-c", program, **env)[1]


@pytest.mark.redis
def test_a_command_of_the_app_publishes_and_ends_silently(tmp_path: Path, redis_url: str) -> None:
    (tmp_path / "app.py").write_text(APP.format(url=redis_url))
    _, result = run(tmp_path, sys.executable, "-m", "flask", "--app", "app", "pub")
    assert (result.returncode, result.stdout, result.stderr) == (0, "id 1\n", "")


def test_a_script_that_knows_no_store_is_told_that_nobody_got_its_messages(tmp_path: Path) -> None:
    result = python(tmp_path, "from messagebus import MessageBus\nfor n in range(3): MessageBus.publish('/chat', n)\n")
    assert result.returncode == 0
    assert result.stderr.count("3 messages went nowhere") == 1
    assert "MESSAGEBUS_URL=redis://" in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.redis
def test_a_script_that_imports_the_app_after_the_first_publish_is_told_so(tmp_path: Path, redis_url: str) -> None:
    (tmp_path / "app.py").write_text(APP.format(url=redis_url))
    program = """if True:
        from messagebus import MessageBus
        MessageBus.publish("/chat", "too early")
        import app
        MessageBus.publish("/chat", "in time")
        print([message.data for message in MessageBus.backlog("/chat")])
    """
    result = python(tmp_path, program)
    assert result.stdout == "['in time']\n"
    assert result.stderr.count("1 message went nowhere") == 1
    assert "import the app" in result.stderr


@pytest.mark.parametrize(
    "program",
    [
        "MessageBus.subscribe('/chat', print); MessageBus.publish('/chat', 1)",
        "MessageBus.publish('/chat', 1); assert len(MessageBus.backlog('/chat')) == 1",
        "MessageBus.last_id('/chat')",
    ],
)
def test_who_listens_or_reads_or_publishes_nothing_is_told_nothing(tmp_path: Path, program: str) -> None:
    assert python(tmp_path, f"from messagebus import MessageBus\n{program}").stderr == ""


def test_with_the_store_away_a_command_ends_within_seconds_and_says_how_many_were_lost(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP.format(url=f"redis://127.0.0.1:{free_port()}/0"))
    alone, _ = run(tmp_path, sys.executable, "-c", "import app")
    took, result = run(tmp_path, sys.executable, "-m", "flask", "--app", "app", "pub")
    assert result.stdout == "id None\n"
    assert "1 message was lost" in result.stderr
    assert took - alone < 20
