"""A private redis-server in a temporary directory, on a free TCP port and a unix socket; to be killed and restarted."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import redis

from .eventually import eventually
from .ports import free_port


class RedisServer:
    """Runs from ``start`` to ``stop``; its data survive ``kill`` only with ``aof``."""

    def __init__(
        self,
        *,
        aof: bool = False,
        password: str | None = None,
        tls: tuple[Path, Path] | None = None,
        settings: Sequence[str] = (),
    ) -> None:
        """``tls``: certificate and key; then ``tls_port`` listens as well. ``settings``: further arguments."""
        executable = shutil.which("redis-server")
        assert executable, "redis-server is not installed, but the tests need it: apt-get install redis-server"
        self._directory = tempfile.TemporaryDirectory(prefix="messagebus-redis-")
        self.directory = Path(self._directory.name)
        self.port = free_port()
        self.tls_port = free_port()
        self.socket = self.directory / "redis.sock"
        self.password = password
        self.process: subprocess.Popen[bytes] | None = None
        self._command = [
            *(executable, "--bind", "127.0.0.1", "--port", str(self.port), "--unixsocket", str(self.socket)),
            *("--dir", str(self.directory), "--save", "", "--repl-diskless-sync-delay", "0"),
            *("--appendonly", "yes" if aof else "no", "--appendfsync", "always"),
        ]
        self._command += settings
        if password:
            self._command += ["--requirepass", password]
        if tls:
            self._command += ["--tls-port", str(self.tls_port), "--tls-auth-clients", "no"]
            self._command += ["--tls-cert-file", str(tls[0]), "--tls-key-file", str(tls[1])]

    @property
    def url(self) -> str:
        return f"redis://{f':{self.password}@' if self.password else ''}127.0.0.1:{self.port}/0"

    @property
    def unix_url(self) -> str:
        return f"unix://{self.socket}"

    def client(self, **options: Any) -> redis.Redis:
        """A plain client, as any other program has. Close it, or use it in ``with``."""
        return redis.Redis(host="127.0.0.1", port=self.port, password=self.password, protocol=2, **options)

    def start(self, *, hidden: bool = False) -> RedisServer:
        """``hidden``: only to be found by its unix socket, until ``show``."""
        log = self.directory / "log"
        command = [*self._command, "--port", "0"] if hidden else self._command
        with log.open("ab") as output:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        process = self.process
        with redis.Redis(unix_socket_path=str(self.socket), password=self.password) as client:

            def answers() -> bool:
                assert process.poll() is None, f"redis-server ended: {log.read_text()}"
                try:
                    return bool(client.ping())
                except (redis.ConnectionError, redis.TimeoutError):
                    return False

            eventually(answers, message="redis-server does not answer")
        return self

    def show(self) -> None:
        """Listen on the port, too, after a start as ``hidden``. Needs Redis 7."""
        with redis.Redis(unix_socket_path=str(self.socket), password=self.password) as client:
            client.config_set("port", self.port)

    def kill(self) -> None:
        """As the kernel would: at once, without a word to the clients or the disk."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def stop(self) -> None:
        self.kill()
        self._directory.cleanup()
