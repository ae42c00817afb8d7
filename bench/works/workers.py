"""Two workers against one: fan-out from the store by WebSocket, both on the bench's two cores with the load."""

from __future__ import annotations

from contextlib import closing

from ..contenders import Entry, MessageBus
from ..context import Context
from ..crowd import Crowd
from ..results import Row, Section
from .delivering import AHEAD, flood

SUBSCRIBERS = 1000
MESSAGES = 400


def run(context: Context) -> Section:
    count = context.some(MESSAGES)
    rows = {workers: Row(f"messagebus, Redis, {workers} workers") for workers in (1, 2)}
    servers = {workers: MessageBus(context.redis, workers) for workers in rows}
    try:
        for _ in range(context.runs):
            for workers, server in servers.items():
                entry, channel = Entry(server, "websocket"), context.channel()
                with (
                    Crowd(server.port, entry.wire, [channel] * SUBSCRIBERS) as crowd,
                    closing(server.publisher()) as publisher,
                ):
                    connecting = crowd.open()
                    seconds = flood(crowd, publisher, channel, 1, count, 1, AHEAD)
                    crowd.check(count)
                server.process.settle()
                rows[workers].add(rate=count * SUBSCRIBERS / seconds, connect=SUBSCRIBERS / connecting)
                context.say(f"{rows[workers].name}: {rows[workers].runs}")
    finally:
        for server in servers.values():
            server.stop()
    return Section(
        f"Workers: fan-out to {SUBSCRIBERS:,} subscribers, WebSocket",
        {"rate": "deliveries/s", "connect": "connections/s"},
        list(rows.values()),
        reference=rows[1].name,
        notes=["On two cores the second worker shares its core with the load generator and Redis."],
    )
