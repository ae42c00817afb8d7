"""``messagebus start``, ``stop`` and ``restart``: the server in the background, known by its pid file."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import click

FAILED = 1
CANNOT_START = 2
SHOWN = 4000
"""Bytes of the log that are shown after a start that failed."""
LOOK_SECONDS = 0.05
TITLE = "gunicorn: master [messagebus]"
"""The name that the process has where setproctitle is installed."""

_PID_FILE = click.option(
    "--pid-file",
    "--pid",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    help="Where the number of the server's first process stands.",
)
_LOG_FILE = click.option(
    "--log-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="What the server writes goes there, behind what there is.  [default: the pid file with .log behind it]",
)
_START_WAIT = click.option(
    "--start-wait", type=click.FloatRange(min=0.1), default=90.0, show_default=True, help="Seconds until it serves."
)
_STOP_WAIT = click.option(
    "--stop-wait",
    type=click.FloatRange(min=0.1),
    default=30.0,
    show_default=True,
    help="Seconds to end in; above --stop-timeout.",
)
_ARGUMENTS = click.argument("arguments", metavar="[SERVE ARGUMENTS]...", nargs=-1, type=click.UNPROCESSED)
_OTHERS = {"ignore_unknown_options": True, "max_content_width": 100}


class NotOurs(click.ClickException):
    """The pid file names a process that is not its server, or nothing. Nothing is sent to it."""

    exit_code = 2


@dataclass(frozen=True)
class Running:
    """A server that runs in the background."""

    pid: int
    arguments: tuple[str, ...] | None
    """What ``messagebus serve`` was given, without the pid file; ``None``: unknown."""
    directory: str


@click.command(context_settings=_OTHERS)
@_PID_FILE
@_LOG_FILE
@_START_WAIT
@_ARGUMENTS
def start(pid_file: Path, log_file: Path | None, start_wait: float, arguments: tuple[str, ...]) -> None:
    """Start messagebus serve in the background, and wait until it serves.

    What is not named here goes to messagebus serve: see messagebus serve --help. systemd, Docker and other supervisors
    want messagebus serve itself.

    \b
      messagebus start --pid-file run/bus.pid app:app --bind 127.0.0.1:8000
    """
    running = find(pid_file)
    if running is not None:
        click.echo(f"Error: it runs already, as process {running.pid}", err=True)
        sys.exit(CANNOT_START)
    _start(pid_file, log_file, start_wait, arguments, os.getcwd())


@click.command()
@_PID_FILE
@_STOP_WAIT
def stop(pid_file: Path, stop_wait: float) -> None:
    """End the server in order, as SIGTERM does, and wait until it has ended.

    Only a process that is the server of this pid file is ended. Exit code 1: it has not ended in time.
    """
    running = find(pid_file)
    if running is None:
        click.echo("it does not run")
        return
    _stop(running, stop_wait)


@click.command(context_settings=_OTHERS)
@_PID_FILE
@_LOG_FILE
@_START_WAIT
@_STOP_WAIT
@_ARGUMENTS
def restart(
    pid_file: Path, log_file: Path | None, start_wait: float, stop_wait: float, arguments: tuple[str, ...]
) -> None:
    """End the server, and start it with these arguments, or without any with those that it had.

    For a moment nobody listens. kill -HUP, sent to the server, reloads the app without that.
    """
    running = find(pid_file)
    directory = os.getcwd()
    if not arguments and running is not None:
        if running.arguments is None:
            raise click.UsageError("what the server was started with is not known here: give its arguments")
        arguments, directory = running.arguments, running.directory
    if running is not None:
        _stop(running, stop_wait)
    _start(pid_file, log_file, start_wait, arguments, directory)


def find(pid_file: Path) -> Running | None:
    """The server of a pid file; ``None``: it does not run.

    Raises:
        NotOurs: Another process has the number by now, or the file has none.
    """
    try:
        text = pid_file.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise NotOurs(f"{pid_file} cannot be read: {error}") from None
    if not text.isdecimal() or not 1 < int(text) < 2**31:
        raise NotOurs(f"{pid_file} has no process's number in it")
    pid = int(text)
    if not _lives(pid):
        return None
    words, directory = _command_of(pid)
    if words[:1] == [TITLE]:
        return Running(pid, None, directory)
    if "serve" in words and "--pid-file" in words[:-1]:
        at = words.index("--pid-file")
        if os.path.realpath(os.path.join(directory, words[at + 1])) == os.path.realpath(pid_file):
            rest = words[:at] + words[at + 2 :]
            return Running(pid, tuple(rest[rest.index("serve") + 1 :]), directory)
    raise NotOurs(f"process {pid} is not the server of {pid_file}: remove the file if that one has ended")


def _command_of(pid: int) -> tuple[list[str], str]:
    """The words of a process's command, and its working directory."""
    try:
        raw = Path(f"/proc/{pid}/cmdline").read_bytes()
        words = os.fsdecode(raw).rstrip("\0").split("\0")
        return words, os.readlink(f"/proc/{pid}/cwd")
    except OSError:
        pass
    # No Linux, or another user's process, whose directory is not shown.
    ps = shutil.which("ps")
    if ps is None:
        return [], os.getcwd()
    done = subprocess.run([ps, "-ww", "-o", "command=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return done.stdout.split(), os.getcwd()


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    with contextlib.suppress(OSError):
        # Ended, and nobody has asked for its code: where the first process of a container does not.
        return (
            Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()[0] != "Z"
        )
    return True


def _stop(running: Running, seconds: float) -> None:
    try:
        os.kill(running.pid, signal.SIGTERM)
    except ProcessLookupError:
        pass
    except PermissionError:
        raise NotOurs(f"process {running.pid} is another user's") from None
    deadline = time.monotonic() + seconds
    while _lives(running.pid):
        if time.monotonic() >= deadline:
            click.echo(f"Error: process {running.pid} has not ended within {seconds:g} s", err=True)
            sys.exit(FAILED)
        time.sleep(LOOK_SECONDS)
    click.echo(f"process {running.pid} has ended")


def _start(pid_file: Path, log_file: Path | None, seconds: float, arguments: tuple[str, ...], directory: str) -> None:
    pid_file = pid_file.absolute()
    log_file = (log_file or pid_file.with_name(f"{pid_file.name}.log")).absolute()
    try:
        log = log_file.open("ab")
    except OSError as error:
        click.echo(f"Error: {log_file} cannot be written: {error.strerror}", err=True)
        sys.exit(CANNOT_START)
    with (
        log,
        tempfile.TemporaryDirectory(prefix="messagebus-") as place,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told,
    ):
        begun = log.tell()
        # The server says when it serves as it does to systemd.
        told.bind(f"{place}/ready")
        told.settimeout(LOOK_SECONDS)
        command = [sys.executable, "-m", "messagebus", "serve", *arguments, "--pid-file", str(pid_file)]
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=directory,
            env={**os.environ, "NOTIFY_SOCKET": f"{place}/ready"},
            start_new_session=True,
        )
        serves = _wait(process, told, time.monotonic() + seconds)
    if serves:
        click.echo(f"messagebus serves as process {process.pid}; its log is {log_file}")
        process.returncode = 0  # it is nobody's child from now on
        return
    with log_file.open("rb") as file:
        file.seek(begun)
        said = file.read(SHOWN).decode("utf-8", "replace").strip()
    click.echo(said or f"Error: it does not serve after {seconds:g} s", err=True)
    sys.exit(CANNOT_START)


def _wait(process: subprocess.Popen[bytes], told: socket.socket, deadline: float) -> bool:
    """Whether the server serves; otherwise it has ended."""
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(TimeoutError):
            if b"READY=1" in told.recv(4096):
                return True
    if process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10.0)
    if process.poll() is None:
        process.kill()
        process.wait()
    return False
