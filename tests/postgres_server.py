"""A private PostgreSQL in a temporary directory, on a free TCP port and a unix socket; to be killed and restarted."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import psycopg

from .eventually import eventually
from .ports import free_port

USER, PASSWORD = "messagebus", "hunter2"


def _binaries() -> Path:
    """Where ``initdb`` is; Debian keeps it out of the PATH, by version."""
    found = shutil.which("initdb")
    if found:
        return Path(found).resolve().parent
    versions = Path("/usr/lib/postgresql").glob("*/bin/initdb")
    newest = max(versions, key=lambda path: int(path.parts[-3]), default=None)
    assert newest, "PostgreSQL is not installed, but the tests need it: apt-get install postgresql"
    return newest.parent


# PostgreSQL refuses to run as root, and so its files have to be the other user's.
AS_USER: dict[str, Any] = {"user": "postgres", "group": "postgres"} if os.geteuid() == 0 else {}


def _directory() -> tempfile.TemporaryDirectory[str]:
    directory = tempfile.TemporaryDirectory(prefix="messagebus-postgres-")
    if AS_USER:
        shutil.chown(directory.name, **AS_USER)
    return directory


@functools.cache
def _pristine() -> tempfile.TemporaryDirectory[str]:
    """A cluster for the servers to begin with a copy of: to make one takes a second."""
    directory = _directory()
    password_file = Path(directory.name, "password")
    password_file.write_text(PASSWORD)
    password_file.chmod(0o644)
    command = [
        *(str(_binaries() / "initdb"), "-D", f"{directory.name}/data", "-U", USER, "-E", "UTF8", "--locale=C"),
        *("--no-sync", "-A", "scram-sha-256", f"--pwfile={password_file}"),
    ]
    result = subprocess.run(command, cwd=directory.name, capture_output=True, text=True, **AS_USER)
    assert result.returncode == 0, result.stdout + result.stderr
    return directory


class PostgresServer:
    """Runs from ``start`` to ``stop``; its data survive ``end`` and ``kill``."""

    def __init__(self) -> None:
        self._directory = _directory()
        self.directory = Path(self._directory.name)
        self.data = self.directory / "data"
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        subprocess.run(["cp", "-r", f"{_pristine().name}/data", str(self.data)], check=True, **AS_USER)

    def url_of(self, database: str = "postgres", password: str = PASSWORD) -> str:
        return f"postgresql://{USER}:{password}@127.0.0.1:{self.port}/{database}"

    @property
    def url(self) -> str:
        return self.url_of()

    @property
    def unix_url(self) -> str:
        return f"postgresql:///postgres?host={self.directory}&port={self.port}&user={USER}&password={PASSWORD}"

    def client(self) -> psycopg.Connection[Any]:
        """A plain connection, as any other program has, in autocommit mode. Close it, or use it in ``with``."""
        return psycopg.connect(self.url, autocommit=True, connect_timeout=30)

    def empty(self) -> None:
        """Drop whatever is in the database."""
        with self.client() as client:
            client.execute("SET client_min_messages = warning")
            client.execute("DROP SCHEMA public CASCADE")
            client.execute("CREATE SCHEMA public")

    def start(self, *settings: str) -> PostgresServer:
        """``settings``: such as ``default_transaction_read_only=on``."""
        log = self.directory / "log"
        command = [
            *(str(_binaries() / "postgres"), "-D", str(self.data), "-p", str(self.port)),
            *("-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={self.directory}"),
            # Not the disk's speed is tested; a killed process loses nothing by it.
            *("-c", "fsync=off"),
        ]
        for setting in settings:
            command += ["-c", setting]
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                command, cwd=self.directory, stdin=subprocess.DEVNULL, stdout=output, stderr=output, **AS_USER
            )
        process = self.process

        def answers() -> bool:
            assert process.poll() is None, f"PostgreSQL ended: {log.read_text()}"
            try:
                with psycopg.connect(self.unix_url, connect_timeout=5):
                    return True
            except psycopg.OperationalError:
                return False

        eventually(answers, message="PostgreSQL does not answer")
        return self

    def end(self, how: signal.Signals = signal.SIGINT) -> None:
        """``SIGINT``: takes leave of its clients ("fast"); ``SIGQUIT``: at once, and recovers at the next start."""
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait(30)
            self.process = None

    def kill(self) -> None:
        """As the kernel would: at once, without a word to the clients or the disk. Its children see it and follow."""
        self.end(signal.SIGKILL)
        # The next one refuses to start while they have its memory.
        eventually(lambda: not self.pids(), message="its children live on")

    def pids(self) -> list[int]:
        """The processes of the server, one for each connection among them: those that work in its directory."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    if Path(os.readlink(entry / "cwd")) == self.data:
                        found.append(int(entry.name))
        return found

    def stop(self) -> None:
        self.end()
        self._directory.cleanup()
