"""One host without a server: SQLite beside Redis, and beside a process that asks its file every 0.1 s as Rails does."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from array import array
from contextlib import closing
from pathlib import Path

from ..contenders import Entry, MessageBus
from ..context import Context
from ..crowd import Crowd
from ..machine import SERVER_CORE
from ..processes import Process
from ..results import Bound, Row, Section
from ..wires import payload

MESSAGES = 500
PAUSE = 0.01
IDLE = 20.0
"""Seconds that a worker with one subscriber is watched."""
LEAST_ONE, LEAST_MANY, MOST_DELAY, MOST_IDLE = 5000, 50_000, 5.0, 0.1


def run(context: Context) -> Section:
    with tempfile.TemporaryDirectory(prefix="messagebus-bench-") as directory:
        rows = {"SQLite": Row("messagebus, SQLite"), "polls": Row("the same, asking every 0.1 s, as Rails does")}
        rows["Redis"] = Row("messagebus, Redis")
        for number in range(context.runs):
            for name, row in rows.items():
                file = Path(directory) / f"{name}-{number}.db"
                if name != "polls":
                    url = context.redis.url(5) if name == "Redis" else f"sqlite:///{file}.publishing"
                    seconds = "0.3" if context.quick else "2"
                    command = [sys.executable, "-m", "bench.servers.publishing", "bus", url, seconds]
                    row.add(**json.loads(Process(command, SERVER_CORE).run()))
                row.add(**_serving(context, name, file))
                context.say(f"{row.name}: {row.runs}")
    sqlite = rows["SQLite"]
    return Section(
        f"One host: a message every {1000 * PAUSE:.0f} ms to one WebSocket; messages of 160 bytes",
        {
            "one": "publishes/s, one by one",
            "many": "messages/s, 100 a call",
            "p50": "store to socket p50, ms",
            "p99": "p99, ms",
            "idle": "idle worker, % of a core",
        },
        [*rows.values()],
        [
            Bound("SQLite, publishes/s one by one", sqlite.median("one"), LEAST_ONE),
            Bound("SQLite, messages/s in hundreds", sqlite.median("many"), LEAST_MANY),
            Bound("SQLite, store to socket, p99, ms", sqlite.median("p99"), most=MOST_DELAY),
            Bound("SQLite, an idle worker, % of a core", sqlite.median("idle"), most=MOST_IDLE),
        ],
    )


def _serving(context: Context, name: str, file: Path) -> dict[str, float]:
    """How long messages take from the store to a socket, and what a worker costs that gets none."""
    app = "polling" if name == "polls" else "app"
    server = MessageBus(context.redis) if name == "Redis" else MessageBus(file=file, app=app)
    try:
        channel = context.channel()
        with (
            Crowd(server.port, Entry(server, "websocket").wire, [channel]) as crowd,
            closing(server.publisher()) as out,
        ):
            crowd.open()
            server.process.settle()
            delays = array("d")
            for number in range(1, context.some(MESSAGES) + 1):
                time.sleep(PAUSE)
                sent = time.perf_counter()
                out.publish([(channel, payload(number))])
                # It is in the store now.
                delays.append(crowd.read_until(number, 5.0) - sent)
            crowd.check(len(delays))
            worker = server.process.pids()[-1]
            before, began = _nanoseconds(worker), time.perf_counter()
            time.sleep(1.0 if context.quick else IDLE)
            idle = (_nanoseconds(worker) - before) / 1e9 / (time.perf_counter() - began)
        ordered = sorted(delays)
        p50, p99 = (1000 * ordered[int(len(ordered) * part)] for part in (0.5, 0.99))
        return {"p50": p50, "p99": p99, "idle": 100 * idle}
    finally:
        server.stop()


def _nanoseconds(pid: int) -> int:
    """Of a processor, by all threads of a process; the clock ticks of ``cpu_seconds`` are too coarse here."""
    return sum(int(each.read_text().split()[0]) for each in Path(f"/proc/{pid}/task").glob("*/schedstat"))
