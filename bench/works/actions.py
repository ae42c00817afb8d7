"""Actions: what a page calls on the server. One after the other by one page, by a hundred pages at once, and with a
broadcast to 1,000. Flask-SocketIO's is an event with an acknowledgement."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

from ..contenders import FlaskSocketIO, MessageBus
from ..contenders.base import Contender
from ..context import Context
from ..crowd import Crowd
from ..results import Bound, Row, Section
from ..wires import SOCKET_IO, Wire, masked, payload

CALLS = 2000
PAGES = 100
ROUNDS = 50
LISTENERS = 1000
BROADCASTS = 100
SIZE = 40
"""Bytes of what is said."""
LEAST = 1.0
OURS, THEIRS = "messagebus, Redis, ActionCable's wire", "Flask-SocketIO"

Frame = Callable[[str, int], bytes]
"""An action and a number -> a frame that calls it."""


def _ours(channel: str) -> tuple[Wire, Frame]:
    identifier = json.dumps({"channel": "Bench", "to": channel})
    subscribe = masked(json.dumps({"command": "subscribe", "identifier": identifier}).encode())
    protocol = "Sec-WebSocket-Protocol: actioncable-v1-json\r\n"
    wire = Wire("websocket", "/cable", b"confirm_subscription", (b'"welcome"', subscribe), headers=protocol)

    def frame(action: str, number: int) -> bytes:
        data = json.dumps({"action": action, "t": payload(number, SIZE)})
        return masked(json.dumps({"command": "message", "identifier": identifier, "data": data}).encode())

    return wire, frame


def _theirs(channel: str) -> tuple[Wire, Frame]:
    def frame(action: str, number: int) -> bytes:
        return masked(f"42{number}{json.dumps([action, payload(number, SIZE)])}".encode())

    return SOCKET_IO, frame


def run(context: Context) -> Section:
    calls, rounds, broadcasts = context.some(CALLS), context.some(ROUNDS), context.some(BROADCASTS)
    rows = {name: Row(name) for name in (THEIRS, OURS)}

    def once(contender: Contender, wire: Wire, channel: str, frame: Frame) -> dict[str, float]:
        with Crowd(contender.port, wire, [channel]) as page:
            page.open()
            began = time.perf_counter()
            for number in range(1, calls + 1):
                page.send(0, frame("echo", number))
                page.read_until(number)
            trip = (time.perf_counter() - began) / calls
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
        return {"trip": 1e6 * trip, "rate": rate, "broadcast": 1e3 * broadcast}

    servers: list[tuple[str, Contender, Callable[[str], tuple[Wire, Frame]]]] = [
        (THEIRS, FlaskSocketIO(context.redis), _theirs),
        (OURS, MessageBus(context.redis, app="channels"), _ours),
    ]
    try:
        for _ in range(context.runs):
            for name, contender, say in servers:
                channel = context.channel()
                rows[name].add(**once(contender, *_with(channel, say)))
                context.say(f"{name}: {rows[name].runs}")
    finally:
        for _, contender, _ in servers:
            contender.stop()
    section = Section(
        f"Actions: what a page calls, and a broadcast to {LISTENERS:,}",
        {
            "trip": "µs to the answer, one page",
            "rate": f"actions/s, {PAGES} pages",
            "broadcast": f"ms until {LISTENERS:,} have what one says",
        },
        list(rows.values()),
        notes=[
            "An action of a channel class that transmits what it was given, and an event with an acknowledgement. The "
            "broadcast is published through Redis, where the bus also stores it."
        ],
    )
    for figure, what in (("trip", "µs to an answer"), ("broadcast", "ms of a broadcast")):
        reached = section.median(THEIRS, figure) / section.median(OURS, figure)
        section.bounds.append(Bound(f"actions, {what}, Flask-SocketIO's to ours", reached, LEAST))
    reached = section.median(OURS, "rate") / section.median(THEIRS, "rate")
    section.bounds.append(Bound("actions/s, to Flask-SocketIO", reached, LEAST))
    return section


def _with(channel: str, say: Callable[[str], tuple[Wire, Frame]]) -> tuple[Wire, str, Frame]:
    wire, frame = say(channel)
    return wire, channel, frame
