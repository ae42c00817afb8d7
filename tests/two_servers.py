"""Two servers on one store, for stories of what the bus can do beside publishing and reading."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from messagebus import Bus

from .clients import request
from .partitioned import name_in
from .servers import Server

P = 8
"""Partitions of a cluster."""
KEY = "a-key-that-is-long-enough"
BEARER = {"Authorization": f"Bearer {KEY}"}


@dataclass
class Site:
    """The servers, and a program on the same store."""

    url: str
    """The store's."""
    servers: list[Server]
    bus: Bus

    def names(self, begin: str) -> list[str]:
        """Three channels; where there are partitions, each is on another node."""
        if "cluster" in self.url:
            return [name_in(partition, P, begin) for partition in (0, P // 2, P - 1)]
        return [f"{begin}{number}" for number in range(3)]

    def ask(self, method: str, path: str, body: Any = None, at: int = 0, **headers: str) -> tuple[int, Any]:
        """The status of an answer of the bus, and its JSON. The body is sent as JSON, a list as lines of it."""
        kind, text = "application/json", json.dumps(body)
        if isinstance(body, list):
            kind, text = "application/x-ndjson", "\n".join(map(json.dumps, body))
        given = {**BEARER, "Content-Type": kind, **{name.replace("_", "-"): value for name, value in headers.items()}}
        sent = None if body is None else text
        with request(self.servers[at].url, method, f"/message-bus/{path}", sent, given) as answer:
            return answer.status, json.loads(answer.read())

    def members(self, rooms: list[str], at: int) -> dict[str, list[str]]:
        """Who is in each room, as a server knows it."""
        found: dict[str, list[str]] = json.loads(self.servers[at].get(f"/members?rooms={','.join(rooms)}")[1])
        return found


@contextlib.contextmanager
def two_servers(url: str, **more: str) -> Iterator[Site]:
    """``url``: of the store. No traceback may be in their logs."""
    env = {
        "MESSAGEBUS_URL": url,
        "MESSAGEBUS_ADMIN": "1",
        "MESSAGEBUS_STATISTICS": "1",
        "MESSAGEBUS_ADMIN_KEYS": KEY,
        "MESSAGEBUS_HTTP_PUBLISHING": "1",
        "MESSAGEBUS_PUBLISHER_KEYS": KEY,
        "MESSAGEBUS_PRESENCE_GRACE": "1",
        **more,
    }
    with contextlib.ExitStack() as stack:
        servers = [Server("serve", "tests.apps.features:app", env=env) for _ in range(2)]
        for server in servers:
            stack.callback(server.close)
            server.start()
        yield Site(url, servers, stack.enter_context(contextlib.closing(Bus(url=url))))
        for server in servers:
            assert "Traceback" not in server.output(), server.output()[-5000:]
