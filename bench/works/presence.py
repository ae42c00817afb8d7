"""Who is there: a large room, as many small ones, and what subscribers pay who are in none."""

from __future__ import annotations

import time
from collections.abc import Callable
from urllib.parse import quote
from urllib.request import Request, urlopen

from ..contenders import MessageBus
from ..context import Context
from ..crowd import Crowd, Failed
from ..results import Bound, Row, Section

MEMBERS = 10_000
ROOMS = 100_000
FEW = 500
"""That are connected before memory is measured."""
TIMEOUT = 60.0


def run(context: Context) -> Section:
    members, rooms = context.some(MEMBERS), context.some(ROOMS)
    rows = {name: Row(name) for name in (PLAIN, BESIDE, ONE_ROOM, A_ROOM_EACH, JOINED)}
    cases: list[tuple[str, str, Callable[[str, int], str]]] = [
        (PLAIN, "app", lambda base, number: f"/plain{base}"),
        (BESIDE, "rooms", lambda base, number: f"/plain{base}"),
        (ONE_ROOM, "rooms", lambda base, number: f"/rooms{base}"),
        (A_ROOM_EACH, "rooms", lambda base, number: f"/rooms{base}/{number}"),
    ]
    for _ in range(context.runs):
        for name, app, channel in cases:
            base = context.channel()
            channels = [channel(base, number) for number in range(members)]
            rows[name].add(**_connected(context, app, channels, name == ONE_ROOM))
            context.say(f"{name}: {rows[name].runs}")
        rows[JOINED].add(**_joined(context, rooms))
        context.say(f"{JOINED}: {rows[JOINED].runs}")
    section = Section(
        f"Who is there: {members:,} members, and {rooms:,} rooms with one each",
        {"rate": "joins in a second of its CPU", "kb": "resident KB each", "seen": "ms until another process knows"},
        list(rows.values()),
        notes=[
            "WebSockets of one process, on Redis. The last row is `presence.join` in Python, without connections. The "
            "other process knows when it counts them all, or the member of the last room, after the last has come."
        ],
    )

    def of(row: str, figure: str) -> float:
        return section.median(row, figure)

    section.bounds += [
        Bound(
            "presence, connecting where there are rules, to without any", of(BESIDE, "rate") / of(PLAIN, "rate"), 0.85
        ),
        Bound("presence, joining a room, to connecting", of(ONE_ROOM, "rate") / of(PLAIN, "rate"), 0.6),
        Bound("presence, KB of a member of a large room", of(ONE_ROOM, "kb") - of(BESIDE, "kb"), most=2.0),
        Bound("presence, KB of a room with one member", of(JOINED, "kb"), most=2.0),
        Bound("presence, ms until another process knows", of(ONE_ROOM, "seen"), most=1000.0),
    ]
    return section


PLAIN = "no room, a server without rules"
BESIDE = "no room, a server with rules"
ONE_ROOM = "all in one room"
A_ROOM_EACH = "a room each"
JOINED = "a room each, joined by the program"


def _connected(context: Context, app: str, channels: list[str], is_seen: bool) -> dict[str, float]:
    # A server of its own: what it has once taken from the system it keeps.
    server, other = MessageBus(context.redis, app=app), MessageBus(context.redis, app="rooms") if is_seen else None
    try:
        wire = server.wires["websocket"]
        few = min(FEW, len(channels) // 2)
        with (
            Crowd(server.port, wire, channels[:few]) as first,
            Crowd(server.port, wire, channels[few:], first=few) as rest,
        ):
            first.open()
            if other is not None:
                _count(other, channels[0])  # it watches from now on
            server.process.settle()
            before, began = server.process.resident_kb(), server.process.cpu_seconds()
            rest.open()
            found: dict[str, float] = {}
            if other is not None:
                found["seen"] = _until(other, channels[-1], len(channels))
            server.process.settle()
            # Of its own core's time: how fast they are accepted depends on the load generator as well.
            found["rate"] = len(rest.channels) / (server.process.cpu_seconds() - began)
            return found | {"kb": (server.process.resident_kb() - before) / len(rest.channels)}
    finally:
        server.stop()
        if other is not None:
            other.stop()


def _joined(context: Context, rooms: int) -> dict[str, float]:
    server, other = MessageBus(context.redis, app="rooms"), MessageBus(context.redis, app="rooms")
    try:
        base = f"/rooms{context.channel()}"
        _count(other, f"{base}/{rooms - 1}")
        _count(server, f"{base}/{rooms - 1}")
        server.process.settle()
        before, began = server.process.resident_kb(), server.process.cpu_seconds()
        place = f"http://127.0.0.1:{server.port}/join?count={rooms}&channel={quote(base)}"
        urlopen(Request(place, method="POST"), timeout=TIMEOUT).close()
        seen = _until(other, f"{base}/{rooms - 1}", 1)
        server.process.settle()
        return {
            "rate": rooms / (server.process.cpu_seconds() - began),
            "kb": (server.process.resident_kb() - before) / rooms,
            "seen": seen,
        }
    finally:
        server.stop()
        other.stop()


def _count(server: MessageBus, channel: str) -> int:
    place = f"http://127.0.0.1:{server.port}/count?channel={quote(channel)}"
    with urlopen(place, timeout=TIMEOUT) as answer:
        return int(answer.read())


def _until(server: MessageBus, channel: str, count: int) -> float:
    """Milliseconds until a server counts so many."""
    began = time.perf_counter()
    while (found := _count(server, channel)) != count:
        if time.perf_counter() > began + TIMEOUT:
            raise Failed(f"{found} of {count} members are known after {TIMEOUT:.0f} s")
    return 1000 * (time.perf_counter() - began)
