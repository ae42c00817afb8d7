"""Reconnect storms: many clients at once, each some messages behind, until all are up to date; what Redis is asked, and
what it takes of the server's memory."""

from __future__ import annotations

import time
from contextlib import closing
from typing import NamedTuple

from ..contenders import Entry, MessageBus, Nchan
from ..context import Context
from ..crowd import Crowd
from ..results import Bound, Row, Section, measure
from ..wires import NCHAN_BEHIND, payload

CLIENTS = 2000
BEHIND = 50
MESSAGES = 200
"""On the channel, so that the clients have not missed all of it."""
MOST = 1.5
MORE_COMMANDS = 10
"""A reading of the backlog is a script, whose seven commands count."""
TRANSPORTS = ("websocket", "eventsource", "streaming")


class Storm(NamedTuple):
    """What happened."""

    seconds: float
    commands: int
    grown: float
    """MB that the server's processes have grown by."""


class Backlog(NamedTuple):
    """What is on the channel, and where the clients stand."""

    messages: int
    size: int
    position: int
    missed: int


def storm(context: Context, entry: Entry, count: int, backlog: Backlog) -> Storm:
    contender, channel = entry.contender, context.channel()
    wire = NCHAN_BEHIND[entry.transport] if isinstance(contender, Nchan) else entry.wire
    # What has come is all there is to wait for: whether a subscriber is ready shows in its messages.
    wire = type(wire)(wire.transport, wire.path, body=wire.body, headers=wire.headers)
    with closing(contender.publisher()) as publisher:
        # nchan goes back 32 messages, or to the oldest, which then has to be the first that is missed.
        kept = backlog.missed if isinstance(contender, Nchan) else backlog.messages
        publisher.publish([(channel, payload(number + 1, backlog.size)) for number in range(kept)])
        time.sleep(0.3)  # until the server has them
        commands, memory = context.redis.commands(), contender.process.resident_kb()
        with Crowd(contender.port, wire, [channel] * count, position=backlog.position) as crowd:
            began = time.perf_counter()
            crowd.open()
            seconds = crowd.read_until(count * backlog.missed, timeout=120.0) - began
            grown = contender.process.resident_kb() - memory
            crowd.check(backlog.missed)
        commands = context.redis.commands() - commands
    contender.process.settle()
    return Storm(seconds, commands, grown / 1000)


def figures(context: Context, entry: Entry, clients: int, backlog: Backlog) -> dict[str, float]:
    few = storm(context, entry, clients // 10, backlog)
    many = storm(context, entry, clients, backlog)
    found = {"seconds": many.seconds, "grown": many.grown}
    if entry.contender.name.endswith("Redis"):
        found |= {"few": few.commands, "many": many.commands}
    return found


def section(title: str, clients: int, rows: list[Row], reference: str = "") -> Section:
    """A storm's table, with the bound that its cost for Redis has."""
    made = Section(
        title,
        {
            "seconds": "s until all are up to date",
            "grown": "MB that the server grows by",
            "few": f"Redis commands, {clients // 10:,} clients",
            "many": f"Redis commands, {clients:,} clients",
        },
        rows,
        reference=reference,
    )
    for transport in TRANSPORTS:
        row = f"messagebus, Redis, {transport}"
        more = made.median(row, "many") - made.median(row, "few")
        what = f"{title.partition(':')[0].lower()}, {transport}, more Redis commands for 10 × the clients"
        made.bounds.append(Bound(what, more, most=MORE_COMMANDS))
    return made


def held(entries: list[Entry]) -> list[Entry]:
    return [entry for entry in entries if entry.transport != "long-polling"]


def run(context: Context) -> Section:
    clients = context.some(CLIENTS)
    backlog = Backlog(MESSAGES, 160, MESSAGES - BEHIND, BEHIND)
    with context.started(Nchan(), MessageBus(), MessageBus(context.redis)) as entries:
        rows = measure(held(entries), context.runs, lambda e: figures(context, e, clients, backlog), context.say)
    made = section(
        f"Reconnect storm: {clients:,} clients, each {BEHIND} messages behind", clients, rows, "nchan, websocket"
    )
    for transport in TRANSPORTS:
        peer = "websocket" if transport == "websocket" else "eventsource"
        reached = made.median(f"messagebus, Redis, {transport}", "seconds") / made.median(f"nchan, {peer}", "seconds")
        made.bounds.append(Bound(f"storm, {transport}, to nchan's {peer}", reached, most=MOST))
    return made
