"""Reconnect storm: 2000 clients at once, each 50 messages behind, until all are up to date; and what Redis is asked."""

from __future__ import annotations

import time
from contextlib import closing

from ..contenders import Entry, MessageBus, Nchan
from ..context import Context
from ..crowd import Crowd
from ..results import Bound, Section, measure
from ..wires import NCHAN_BEHIND, payload

CLIENTS = 2000
BEHIND = 50
MESSAGES = 200
"""On the channel, so that the clients have not missed all of it."""
MOST = 1.5


def run(context: Context) -> Section:
    clients = context.some(CLIENTS)

    def storm(entry: Entry, count: int) -> tuple[float, int]:
        contender, channel = entry.contender, context.channel()
        wire = NCHAN_BEHIND[entry.transport] if isinstance(contender, Nchan) else entry.wire
        # What has come is all there is to wait for: whether a subscriber is ready shows in its messages.
        wire = type(wire)(wire.transport, wire.path, body=wire.body, headers=wire.headers)
        with closing(contender.publisher()) as publisher:
            # nchan goes back 32 messages, or to the oldest, which then has to be the first that is missed.
            kept = BEHIND if isinstance(contender, Nchan) else MESSAGES
            publisher.publish([(channel, payload(number + 1)) for number in range(kept)])
            time.sleep(0.3)  # until the server has them
            commands = context.redis.commands()
            with Crowd(contender.port, wire, [channel] * count, position=MESSAGES - BEHIND) as crowd:
                began = time.perf_counter()
                crowd.open()
                seconds = crowd.read_until(count * BEHIND) - began
                crowd.check(BEHIND)
            commands = context.redis.commands() - commands
        contender.process.settle()
        return seconds, commands

    def once(entry: Entry) -> dict[str, float]:
        _, few = storm(entry, clients // 10)
        seconds, many = storm(entry, clients)
        if entry.contender.name.endswith("Redis"):
            return {"seconds": seconds, "few": few, "many": many}
        return {"seconds": seconds}

    with context.started(Nchan(), MessageBus(), MessageBus(context.redis)) as entries:
        rows = measure([e for e in entries if e.transport != "long-polling"], context.runs, once, context.say)
    section = Section(
        f"Reconnect storm: {clients:,} clients, each {BEHIND} messages behind",
        {
            "seconds": "s until all are up to date",
            "few": f"Redis commands, {clients // 10:,} clients",
            "many": f"Redis commands, {clients:,} clients",
        },
        rows,
        reference="nchan, websocket",
    )
    for transport in ("websocket", "eventsource", "streaming"):
        row = f"messagebus, Redis, {transport}"
        peer = "websocket" if transport == "websocket" else "eventsource"
        reached = section.median(row, "seconds") / section.median(f"nchan, {peer}", "seconds")
        section.bounds.append(Bound(f"storm, {transport}, to nchan's {peer}", reached, most=MOST))
        more = section.median(row, "many") - section.median(row, "few")
        section.bounds.append(Bound(f"storm, {transport}, more Redis commands for 10 × the clients", more, most=5))
    return section
