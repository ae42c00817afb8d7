"""The server's processor time with 10,000 idle subscribers, half on WebSocket and half on EventSource."""

from __future__ import annotations

import time

from ..contenders import MessageBus
from ..context import Context
from ..crowd import Crowd
from ..results import Bound, Row, Section
from ..wires import OURS

SUBSCRIBERS = 10_000
INTERVAL = 25.0
"""Seconds between heartbeats, the default; the first one comes after half of it at the earliest."""
WINDOWS = 3
MOST = 1.0


def run(context: Context) -> Section:
    half = context.some(SUBSCRIBERS) // 2
    row = Row("messagebus, Redis")
    server = MessageBus(context.redis)
    try:
        channel = context.channel()
        with (
            Crowd(server.port, OURS["websocket"], [channel] * half) as one,
            Crowd(server.port, OURS["eventsource"], [channel] * half) as other,
        ):
            one.open()
            other.open()
            _sleep(0.0 if context.quick else INTERVAL / 2, one, other)
            for _ in range(WINDOWS):
                cpu, began = server.process.cpu_seconds(), time.perf_counter()
                _sleep(1.0 if context.quick else INTERVAL / WINDOWS, one, other)
                cpu = server.process.cpu_seconds() - cpu
                row.add(busy=100 * cpu / (time.perf_counter() - began))
                context.say(str(row.runs))
            one.check(0)
            other.check(0)
    finally:
        server.stop()
    return Section(
        f"Idle: {2 * half:,} subscribers, heartbeats every {INTERVAL:.0f} s",
        {"busy": "of a core, %"},
        [row],
        [Bound("idle, % of a core", row.median("busy"), most=MOST)],
    )


def _sleep(seconds: float, *crowds: Crowd) -> None:
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        time.sleep(min(0.2, max(0.0, until - time.perf_counter())))
        for crowd in crowds:
            crowd.read()
