"""The Redis of a run: on the load's core, nothing on disk."""

from __future__ import annotations

import shutil
import tempfile
from typing import Any

import redis

from .machine import LOAD_CORE
from .processes import Process, free_port


class RedisServer:
    def __init__(self) -> None:
        self.port = free_port()
        self._directory = tempfile.TemporaryDirectory(prefix="messagebus-bench-")
        executable = shutil.which("redis-server")
        assert executable, "redis-server is missing; make bench installs it"
        self.process = Process(
            [
                *(executable, "--bind", "127.0.0.1", "--port", str(self.port), "--dir", self._directory.name),
                *("--save", "", "--appendonly", "no"),
                # A server that was stopped for a moment must find everything that was published meanwhile.
                *("--client-output-buffer-limit", "pubsub 0 0 0"),
            ],
            LOAD_CORE,
        )
        self.process.wait_for(self.port)
        self.client: Any = redis.Redis(port=self.port, protocol=2)

    def url(self, database: int = 0) -> str:
        return f"redis://127.0.0.1:{self.port}/{database}"

    def empty(self) -> None:
        """Forget everything. Where somebody has announced messages together, no process hears by channel."""
        self.client.flushall()

    def commands(self) -> int:
        """Commands that it has carried out, other than what this asks with."""
        stats = self.client.info("commandstats")
        return sum(entry["calls"] for name, entry in stats.items() if name not in ("cmdstat_info", "cmdstat_config"))

    def stop(self) -> None:
        self.client.close()
        self.process.stop()
        self._directory.cleanup()
