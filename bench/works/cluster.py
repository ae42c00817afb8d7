"""A bus on a Redis Cluster of 1, 3 and 6 nodes beside one on a single Redis: publishing, delivering, and strangers."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager

from ..contenders import Entry, MessageBus
from ..context import Context
from ..crowd import Crowd
from ..machine import SERVER_CORE
from ..processes import Process
from ..redis_cluster import RedisCluster
from ..redis_server import RedisServer
from ..results import Bound, Row, Section
from .delivering import AHEAD, flood
from .strangers import CHANNELS, MOST, MOST_BESIDE_OTHERS, RATE, WORKERS, eighth, strangers

NODES = (1, 3, 6)
SUBSCRIBERS, MESSAGES = 200, 2000
LEAST = 0.8
"""Of the publishes on one Redis, one by one, as many on a cluster at least."""


def run(context: Context) -> Section:
    rows = {0: Row("messagebus, Redis, by_channel")}
    rows |= {nodes: Row(f"messagebus, Redis Cluster, {nodes} node{'s' if nodes > 1 else ''}") for nodes in NODES}
    with contextlib.ExitStack() as ends:
        stores: dict[int, RedisServer | RedisCluster] = {0: context.redis}
        for nodes in NODES:
            stores[nodes] = RedisCluster(nodes)
            ends.callback(stores[nodes].stop)
        for _ in range(context.runs):
            for nodes, row in rows.items():
                context.redis.empty()
                row.add(**_published(stores[nodes], "0.3" if context.quick else "0.5"))
                with _started(stores[nodes]) as server:
                    row.add(rate=_delivered(context, server), strangers=strangers(context, server))
                with _started(stores[nodes]) as server:
                    row.add(**eighth(context, server))
                context.say(f"{row.name}: {row.runs}")
    to_one = rows[3].median("one") / rows[0].median("one")
    bounds = [Bound("publishes, one by one, to those on one Redis", to_one, LEAST)]
    for nodes in NODES:
        bounds += [
            Bound(
                f"{nodes} node(s), % of a core for {RATE:,} strangers' messages/s",
                rows[nodes].median("strangers"),
                most=MOST,
            ),
            Bound(
                f"{nodes} node(s), its own eighth beside the others",
                rows[nodes].median("times"),
                most=MOST_BESIDE_OTHERS,
            ),
        ]
    return Section(
        f"A Redis Cluster: {CHANNELS:,} channels of {WORKERS * CHANNELS:,}, and {SUBSCRIBERS} subscribers",
        {
            "one": "publishes/s, one by one",
            "many": "100 a call",
            "rate": f"deliveries/s, {SUBSCRIBERS} to a channel",
            "strangers": f"of a core at {RATE:,} messages/s for others, %",
            "alone": "s of a core for its own eighth alone",
            "beside": "s beside the other seven",
            "times": "times as much",
        },
        list(rows.values()),
        bounds,
        reference=rows[0].name,
        notes=["All nodes share one core with the load, so that more of them do not publish more: see what they cost."],
    )


def _published(store: RedisServer | RedisCluster, seconds: str) -> dict[str, float]:
    command = [sys.executable, "-m", "bench.servers.publishing", "bus", store.url(), seconds, "by_channel"]
    found: dict[str, float] = json.loads(Process(command, SERVER_CORE).run())
    return found


@contextmanager
def _started(store: RedisServer | RedisCluster) -> Iterator[MessageBus]:
    server = MessageBus(store, announce="by_channel")
    try:
        yield server
    finally:
        server.stop()


def _delivered(context: Context, server: MessageBus) -> float:
    count, channel = context.some(MESSAGES), context.channel()
    with (
        Crowd(server.port, Entry(server, "websocket").wire, [channel] * SUBSCRIBERS) as crowd,
        closing(server.publisher()) as publisher,
    ):
        crowd.open()
        seconds = flood(crowd, publisher, channel, 1, count, 1, AHEAD)
        crowd.check(count)
    return count * SUBSCRIBERS / seconds
