"""What messages cost a worker that are for nobody of it: with all of them announced together, and by channel."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from ..contenders import Entry, MessageBus
from ..context import Context
from ..crowd import Crowd
from ..publishers import Publisher
from ..results import Bound, Row, Section
from ..wires import payload

STORES = ("Redis, together", "Redis, by_channel", "SQLite")
MESSAGES = 200_000
CHANNELS = 10_000
"""That a worker has subscribers on. Seven others have as many, of which it should notice nothing."""
WORKERS = 8
BURST = 100
OWN, PAUSE = 12, 0.01
"""Of the messages for all workers, published every so many seconds, that are for the one."""
RATE = 50_000
"""Messages a second for which the cost is told."""
MOST, MOST_BESIDE_OTHERS = 1.0, 1.3


def run(context: Context) -> Section:
    rows = {store: Row(f"messagebus, {store}") for store in STORES}
    for store, row in rows.items():
        for _ in range(context.runs):
            with _started(context, store) as server:
                row.add(strangers=strangers(context, server))
            with _started(context, store) as server:
                row.add(**eighth(context, server))
            context.say(f"{row.name}: {row.runs}")
    return Section(
        f"Strangers: {MESSAGES:,} messages for others; and {CHANNELS:,} channels of {WORKERS * CHANNELS:,}",
        {
            "strangers": f"of a core at {RATE:,} messages/s for others, %",
            "alone": "s of a core for its own eighth alone",
            "beside": "s beside the other seven",
            "times": "times as much",
        },
        [*rows.values()],
        [
            bound
            for store in STORES[1:]
            for bound in (
                Bound(
                    f"{store}, % of a core for {RATE:,} strangers' messages/s",
                    rows[store].median("strangers"),
                    most=MOST,
                ),
                Bound(
                    f"{store}, its own eighth beside the others", rows[store].median("times"), most=MOST_BESIDE_OTHERS
                ),
            )
        ],
    )


@contextmanager
def _started(context: Context, store: str) -> Iterator[MessageBus]:
    with tempfile.TemporaryDirectory(prefix="messagebus-bench-") as directory:
        if store == "SQLite":
            server = MessageBus(file=Path(directory) / "bus.db")
        else:
            context.redis.empty()
            server = MessageBus(context.redis, announce=store.removeprefix("Redis, "))
        try:
            yield server
        finally:
            server.stop()


def strangers(context: Context, server: MessageBus) -> float:
    """Per cent of a core that one subscriber's worker pays for messages on other channels."""
    count = context.some(MESSAGES)
    mine, other = context.channel(), context.channel()
    with Crowd(server.port, Entry(server, "websocket").wire, [mine]) as crowd, closing(server.publisher()) as out:
        crowd.open()
        server.process.settle()
        cpu = server.process.cpu_seconds()
        _publish(out, [other] * count)
        # When its own has come, so have those before it.
        out.publish([(mine, payload(1))])
        crowd.read_until(1, 60.0)
        crowd.check(1)
        server.process.settle()
        return 100 * (server.process.cpu_seconds() - cpu) * RATE / count


def eighth(context: Context, server: MessageBus) -> dict[str, float]:
    """Seconds of a core for a message on each of a worker's channels: alone, and among those of seven others."""
    count = context.some(CHANNELS)
    channels = [context.channel() for _ in range(count)]
    others = [context.channel() for _ in range(count)]
    with Crowd(server.port, Entry(server, "websocket").wire, channels) as crowd, closing(server.publisher()) as out:
        crowd.open()

        def cost(number: int, every: Sequence[str], burst: int) -> float:
            server.process.settle()
            cpu, began = server.process.cpu_seconds(), time.perf_counter()
            for burst_number, begin in enumerate(range(0, len(every), burst)):
                # Alone its own messages come at the same times as beside the others'.
                while time.perf_counter() < began + burst_number * PAUSE:
                    crowd.read()
                _publish(out, every[begin : begin + burst], number)
            crowd.read_until(number * count, 120.0)
            crowd.check(number)
            server.process.settle()
            return server.process.cpu_seconds() - cpu

        alone = cost(1, channels, OWN)
        every = [name for mine, other in zip(channels, others, strict=True) for name in (mine, *[other] * 7)]
        beside = cost(2, every, OWN * WORKERS)
    return {"alone": alone, "beside": beside, "times": beside / alone}


def _publish(publisher: Publisher, channels: Sequence[str], number: int = 1) -> None:
    for begin in range(0, len(channels), BURST):
        publisher.publish([(channel, payload(number)) for channel in channels[begin : begin + BURST]])
