"""Actions: what a page calls on the server. One after the other by one page, by a hundred pages at once, and with a
broadcast to 1,000. ActionCable has the same on the same wire, Flask-SocketIO events with an acknowledgement."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator

from ..contenders import ActionCable, FlaskSocketIO, MessageBus
from ..contenders.action_cable import action_cable_versions
from ..contenders.base import Server
from ..context import Context
from ..crowd import Crowd
from ..results import Bound, Row, Section
from ..wires import SOCKET_IO, Wire, masked, payload

CALLS = 2000
PAGES = 100
ROUNDS = 50
LISTENERS = 1000
BROADCASTS = 50
SIZE = 40
"""Bytes of what is said."""
LEAST = 1.0
OURS = "messagebus, Redis, ActionCable's wire"

Frame = Callable[[str, int], bytes]
"""An action and a number -> a frame that calls it."""


Say = Callable[[str], "tuple[Wire, Frame]"]
"""A channel -> how to subscribe, and what to say then."""


def _action(channel: str) -> tuple[Wire, Frame]:
    identifier = json.dumps({"channel": "Bench", "to": channel})
    subscribe = masked(json.dumps({"command": "subscribe", "identifier": identifier}).encode())
    protocol = "Sec-WebSocket-Protocol: actioncable-v1-json\r\n"
    wire = Wire("websocket", "/cable", b"confirm_subscription", (b'"welcome"', subscribe), headers=protocol)

    def frame(action: str, number: int) -> bytes:
        data = json.dumps({"action": action, "t": payload(number, SIZE)})
        return masked(json.dumps({"command": "message", "identifier": identifier, "data": data}).encode())

    return wire, frame


def _event(channel: str) -> tuple[Wire, Frame]:
    def frame(action: str, number: int) -> bytes:
        return masked(f"42{number}{json.dumps([action, payload(number, SIZE)])}".encode())

    return SOCKET_IO, frame


def run(context: Context) -> Section:
    counts = context.some(CALLS), context.some(ROUNDS), context.some(BROADCASTS)
    servers: list[tuple[str, Server, Say]] = []
    notes = [
        "An action of a channel class that transmits what it was given, and an event with an acknowledgement. The "
        "broadcast is published through Redis, where the bus also stores it."
    ]
    try:
        if action_cable_versions() is not None:
            servers.append((ActionCable.name, ActionCable(context.redis), _action))
        else:
            notes.append("ActionCable is not there: Ruby with the gems actioncable, puma and redis was not found.")
            context.say(notes[-1])
        servers.append((FlaskSocketIO.name, FlaskSocketIO(context.redis), _event))
        servers.append((OURS, MessageBus(context.redis, app="channels"), _action))
        rows = {name: Row(name) for name, _, _ in servers}
        for _ in range(context.runs):
            for name, contender, say in servers:
                rows[name].add(**_once(contender, say, context.channel(), *counts))
                context.say(f"{name}: {rows[name].runs}")
    finally:
        for _, contender, _ in servers:
            contender.stop()
    section = Section(
        f"Actions: what a page calls, and a broadcast to {LISTENERS:,}",
        {
            "trip": "µs to the answer, one page, p50",
            "late": "p99",
            "rate": f"actions/s, {PAGES} pages",
            "broadcast": f"ms until {LISTENERS:,} have what one says",
        },
        [*rows.values()],
        reference=OURS,
        notes=notes,
    )
    for theirs in rows:
        if theirs != OURS:
            section.bounds += _bounds(section, theirs)
    return section


def _once(contender: Server, say: Say, channel: str, calls: int, rounds: int, broadcasts: int) -> dict[str, float]:
    wire, frame = say(channel)
    with Crowd(contender.port, wire, [channel]) as page:
        page.open()
        trips = []
        for number in range(1, calls + 1):
            asked = frame("echo", number)
            began = time.perf_counter()
            page.send(0, asked)
            trips.append(page.read_until(number) - began)
        trips.sort()
    contender.process.settle()
    with Crowd(contender.port, wire, [channel] * PAGES) as pages:
        pages.open()
        began = time.perf_counter()
        for number in range(1, rounds + 1):
            for page_number in range(PAGES):
                pages.send(page_number, frame("echo", number))
            pages.read_until(number * PAGES)
        rate = rounds * PAGES / (time.perf_counter() - began)
    contender.process.settle()
    with Crowd(contender.port, wire, [channel] * LISTENERS) as listeners:
        listeners.open()
        began = time.perf_counter()
        for number in range(1, broadcasts + 1):
            listeners.send(0, frame("say", number))
            listeners.read_until(number * LISTENERS)
        broadcast = (time.perf_counter() - began) / broadcasts
    contender.process.settle()
    late = trips[len(trips) * 99 // 100]
    return {"trip": 1e6 * trips[len(trips) // 2], "late": 1e6 * late, "rate": rate, "broadcast": 1e3 * broadcast}


def _bounds(section: Section, theirs: str) -> Iterator[Bound]:
    for figure, what in (("trip", "µs to an answer"), ("broadcast", "ms of a broadcast")):
        reached = section.median(theirs, figure) / section.median(OURS, figure)
        yield Bound(f"actions, {what}, {theirs}'s to ours", reached, LEAST)
    yield Bound(f"actions/s, to {theirs}", section.median(OURS, "rate") / section.median(theirs, "rate"), LEAST)
