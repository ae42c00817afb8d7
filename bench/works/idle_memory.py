"""Resident memory of the server for each idle subscriber, from 1000 of them to 15,000."""

from __future__ import annotations

from collections.abc import Callable

from ..contenders import Contender, Entry, FlaskSocketIO, MessageBus, Nchan, SocketIO
from ..context import Context
from ..crowd import Crowd, Failed
from ..results import Bound, Row, Section

FEW, MANY = 1000, 15_000
MANY_OF_OTHERS = 4000
"""Of contenders that would take too long; the figure is the growth for each."""
MOST = 2.0


def run(context: Context) -> Section:
    few, many, others = context.some(FEW), context.some(MANY), context.some(MANY_OF_OTHERS)
    kinds: list[tuple[Callable[[], Contender], str, int]] = [
        (Nchan, "websocket", many),
        (Nchan, "eventsource", many),
        (lambda: SocketIO(context.redis), "websocket", others),
        (lambda: FlaskSocketIO(context.redis), "websocket", others),
    ]
    ours = ("websocket", "eventsource", "streaming", "long-polling")
    kinds += [(lambda: MessageBus(context.redis), transport, many) for transport in ours]
    rows: dict[tuple[int, str], Row] = {}
    for _ in range(context.runs):
        for number, (start, transport, most) in enumerate(kinds):
            # A server of its own: what it has once taken from the system it keeps.
            contender = start()
            entry = Entry(contender, transport)
            row = rows.setdefault((number, transport), Row(entry.name))
            try:
                row.add(kb=_growth(context, entry, few, most))
            except Failed as error:
                row.failed = str(error)
            finally:
                contender.stop()
            context.say(f"{row.name}: {row.failed or row.runs}")
    section = Section(
        f"Idle subscribers: {few:,} to {many:,} ({others:,} of Socket.IO's)",
        {"kb": "resident KB each"},
        list(rows.values()),
        reference="nchan, websocket",
    )
    for transport in ours:
        section.bounds.append(
            Bound(f"idle, KB each, {transport}", section.median(f"messagebus, Redis, {transport}", "kb"), most=MOST)
        )
    return section


def _growth(context: Context, entry: Entry, few: int, many: int) -> float:
    channel = context.channel()
    port, process = entry.contender.port, entry.contender.process
    with Crowd(port, entry.wire, [channel] * few) as first, Crowd(port, entry.wire, [channel] * (many - few)) as rest:
        first.open()
        process.settle()
        before = process.resident_kb()
        rest.open()
        process.settle()
        return (process.resident_kb() - before) / (many - few)
