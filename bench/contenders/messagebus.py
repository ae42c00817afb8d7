"""This package, on ``messagebus serve``."""

from __future__ import annotations

import sys
import urllib.request
from pathlib import Path

from ..machine import SERVER_CORE
from ..processes import Process, free_port
from ..publishers import LinesPublisher, Publisher, StorePublisher
from ..redis_cluster import RedisCluster
from ..redis_server import RedisServer
from ..wires import OURS
from .base import Contender


class MessageBus(Contender):
    wires = OURS

    def __init__(
        self,
        redis: RedisServer | RedisCluster | None = None,
        workers: int = 1,
        through_flask: bool = False,
        app: str = "app",
        announce: str = "together",
        file: Path | None = None,
    ) -> None:
        """``redis`` or ``file``, of SQLite's: the store; without them memory. ``workers``: more than one share the
        bench's two cores. ``through_flask``: with an app that looks at every request. ``app``: another one of
        ``bench.servers``. ``announce``: the option ``redis_announce``."""
        self.name = "messagebus, " + ("Redis" if redis else "SQLite" if file else "memory")
        if through_flask:
            self.name += ", through Flask"
        self.port = free_port()
        self._announce = announce
        self.url = redis.url() if redis else f"sqlite:///{file}" if file else "memory://"
        self.process = Process(
            [
                *(sys.executable, "-m", "messagebus", "serve", f"bench.servers.{app}:app"),
                *("--bind", f"127.0.0.1:{self.port}", "--url", self.url, "--workers", str(workers)),
            ],
            SERVER_CORE if workers == 1 else None,
            {"MESSAGEBUS_REDIS_ANNOUNCE": announce, **({"BENCH_THROUGH_FLASK": "1"} if through_flask else {})},
        )
        self.process.wait_for(self.port)
        # It listens before its worker has loaded the app; those who come meanwhile wait.
        urllib.request.urlopen(f"http://127.0.0.1:{self.port}/message-bus/static/messagebus.js", timeout=20).close()

    def publisher(self) -> Publisher:
        return StorePublisher(self.url, self._announce) if self.url != "memory://" else LinesPublisher(self.port)
