"""Eight workers, each with pages on its own 10,000 of 100,000 channels: what each pays, and what it pays alone."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from urllib.parse import quote

from ..contenders import MessageBus
from ..context import Context
from ..crowd import Crowd
from ..publishers import Publisher
from ..redis_cluster import RedisCluster
from ..redis_server import RedisServer
from ..results import Row, Section
from ..wires import OURS, Wire, payload

WORKERS = 8
PAGES, CHANNELS = 100, 100
"""Pages of a worker, and channels of a page."""
TOTAL = 100_000
"""Channels: those that no worker has as well."""
ROUNDS, PAUSE = 10, 0.01
"""Messages for each worker that are published at once, every so many seconds."""
NODES = 3


@dataclass(frozen=True)
class Page(Wire):
    """One WebSocket that follows several channels; what it is given is the beginning of their names."""

    def request(self, channel: str, number: int, position: int) -> bytes:
        query = "&".join([f"{quote(name, safe='')}={position}" for name in channels_of(channel)])
        return Wire(self.transport, f"{self.path}?{query}", self.ready).request("", number, position)


PAGE = Page("websocket", "/message-bus/c{number}/ws", OURS["websocket"].ready)


def channels_of(page: str) -> list[str]:
    return [f"{page}-{number}" for number in range(CHANNELS)]


def run(context: Context) -> Section:
    rows = [Row("messagebus, Redis, by_channel"), Row(f"messagebus, Redis Cluster, {NODES} nodes")]
    with contextlib.ExitStack() as ends:
        cluster = RedisCluster(NODES)
        ends.callback(cluster.stop)
        stores: Sequence[RedisServer | RedisCluster] = (context.redis, cluster)
        for row, store in zip(rows, stores, strict=True):
            for _ in range(context.runs):
                row.add(**_run(context, store))
                context.say(f"{row.name}: {row.runs}")
    return Section(
        f"{WORKERS} workers on one core, each with {PAGES} pages of {CHANNELS} channels, of {TOTAL:,} channels",
        {
            "alone": "s of a core for a message on each of its channels, alone",
            "each": "the same while all channels get one, mean",
            "most": "the worker that took the most",
            "times": "mean, to alone",
            "resident": "MB of a worker",
        },
        rows,
        reference=rows[0].name,
        notes=[
            "The workers take turns on one core, and each finds its cache filled by the others. What a worker pays "
            "beside others that have cores of their own is in the tables of strangers and of the cluster."
        ],
    )


def _run(context: Context, store: RedisServer | RedisCluster) -> dict[str, float]:
    pages = context.some(PAGES)
    context.redis.empty()
    with contextlib.ExitStack() as ends:
        workers = [ends.enter_context(Worker(context, store, number, pages)) for number in range(WORKERS)]
        out = ends.enter_context(closing(workers[0].server.publisher()))
        nobodys = [context.channel() for _ in range(context.some(TOTAL) - WORKERS * pages * CHANNELS)]
        own = [worker.channels for worker in workers]
        share = len(nobodys) // len(own[0])
        rounds = [[names[at] for names in own] + nobodys[at * share : (at + 1) * share] for at in range(len(own[0]))]

        [alone] = _cost(out, [[name] for name in own[0]], workers[:1])
        costs = _cost(out, rounds, workers)
        resident = sum(worker.server.process.resident_kb() for worker in workers) / WORKERS / 1024
    mean = sum(costs) / WORKERS
    return {"alone": alone, "each": mean, "most": max(costs), "times": mean / alone, "resident": resident}


class Worker:
    """A server with its pages."""

    def __init__(self, context: Context, store: RedisServer | RedisCluster, number: int, pages: int) -> None:
        self.server = MessageBus(store, announce="by_channel")
        names = [context.channel() for _ in range(pages)]
        self.channels = [channel for name in names for channel in channels_of(name)]
        self._rounds = 0
        self.crowd = Crowd(self.server.port, PAGE, names, first=number * pages)

    def __enter__(self) -> Worker:
        self.crowd.open()
        return self

    def __exit__(self, *error: object) -> None:
        self.crowd.close()
        self.server.stop()

    def read_all(self) -> None:
        """Read until there is one message more on each channel."""
        self._rounds += 1
        self.crowd.read_until(self._rounds * len(self.channels), 120.0)
        # The partitions of a cluster have no common order.
        self.crowd.check(self._rounds * CHANNELS, in_order=False)


def _cost(out: Publisher, rounds: Sequence[Sequence[str]], workers: Sequence[Worker]) -> list[float]:
    """Publish a message on every channel, some rounds at once. Returns the seconds of a core that each worker took."""
    for worker in workers:
        worker.server.process.settle()
    before = [worker.server.process.cpu_seconds() for worker in workers]
    began = time.perf_counter()
    for burst, begin in enumerate(range(0, len(rounds), ROUNDS)):
        # Alone, its own messages come at the same times as among those of all.
        while time.perf_counter() < began + burst * PAUSE:
            for worker in workers:
                worker.crowd.read()
        out.publish([(name, payload(1)) for names in rounds[begin : begin + ROUNDS] for name in names])
    for worker in workers:
        worker.read_all()
    for worker in workers:
        worker.server.process.settle()
    return [worker.server.process.cpu_seconds() - then for worker, then in zip(workers, before, strict=True)]
