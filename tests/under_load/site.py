"""The deployment: nginx, two servers, one Redis, and a way between each two that can be cut."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from messagebus import Bus
from tests.nginx_server import Nginx
from tests.redis_server import RedisServer
from tests.servers import Server

from .ways import Way, Ways

NAMES = ("east", "west")
BACKLOG = 1_000_000
"""Nothing that is published is dropped before it has been counted."""


@dataclass
class Site:
    url: str
    """nginx's."""
    servers: dict[str, Server]
    to_server: dict[str, Way]
    """Between nginx and a server."""
    to_redis: dict[str, Way]
    """Between a server and Redis."""
    redis: RedisServer
    notes: Path

    def ask(self, name: str, path: str) -> Any:
        """One of the servers, without nginx."""
        status, body = self.servers[name].get(path)
        assert status == 200, body
        return json.loads(body)

    def count(self, word: str, but: Sequence[int] = ()) -> list[str]:
        """The subscriptions of which this was noted, but for those of some processes."""
        lines = [line.split() for line in self.notes.read_text().splitlines()]
        return sorted(token for said, pid, token in lines if said == word and int(pid) not in but)


@contextlib.asynccontextmanager
async def deployed(directory: Path, kind: str = "serve", **env: str) -> AsyncIterator[Site]:
    """The servers run and are reached; all of it ends with the block."""
    async with contextlib.AsyncExitStack() as stack:
        redis = RedisServer(
            aof=True, settings=("--appendfsync", "everysec", "--client-output-buffer-limit", "pubsub 0 0 0")
        )
        stack.callback(redis.stop)
        redis.start()
        notes = directory / "notes"
        notes.touch()
        servers: dict[str, Server] = {}
        ways = stack.enter_context(Ways())
        to_redis: dict[str, Way] = {}
        to_server: dict[str, Way] = {}
        for name in NAMES:
            to_redis[name] = ways.to(redis.port)
            settings = {
                "MESSAGEBUS_URL": redis.url.replace(str(redis.port), str(to_redis[name].port)),
                "MESSAGEBUS_MAX_BACKLOG_SIZE": str(BACKLOG),
                "MESSAGEBUS_MAX_GLOBAL_BACKLOG_SIZE": str(BACKLOG),
                "NOTES": str(notes),
                **env,
            }
            servers[name] = server = Server(kind, "tests.apps.rooms:app", env=settings)
            stack.callback(server.close)
            await asyncio.to_thread(server.start)
            to_server[name] = ways.to(server.port)
        (directory / "nginx").mkdir()
        nginx = Nginx([f"127.0.0.1:{way.port}" for way in to_server.values()], directory / "nginx")
        stack.callback(nginx.close)
        await asyncio.to_thread(nginx.start)
        yield Site(nginx.url, servers, to_server, to_redis, redis, notes)


def stored(redis: RedisServer, channel: str) -> list[Any]:
    """What is kept of a channel, in the order of its ids."""
    with contextlib.closing(Bus(url=redis.url)) as bus:
        return [message.data for message in bus.backlog(channel)]
