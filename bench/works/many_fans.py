"""Fan-out to 10,000 subscribers, against our own figure with 1000."""

from __future__ import annotations

from contextlib import closing

from ..contenders import Entry, MessageBus
from ..context import Context
from ..crowd import Crowd
from ..results import Bound, Section, measure
from .delivering import AHEAD, flood

FEW, MANY = 1000, 10_000
DELIVERIES = 400_000
LEAST = 0.8


def run(context: Context) -> Section:
    many = context.some(MANY)

    def rate(entry: Entry, subscribers: int) -> float:
        channel, count = context.channel(), max(10, context.some(DELIVERIES) // subscribers)
        with (
            Crowd(entry.contender.port, entry.wire, [channel] * subscribers) as crowd,
            closing(entry.contender.publisher()) as publisher,
        ):
            crowd.open()
            entry.contender.process.settle()
            seconds = flood(crowd, publisher, channel, 1, count, 1, AHEAD)
            crowd.check(count)
        entry.contender.process.settle()
        return subscribers * count / seconds

    with context.started(MessageBus(context.redis)) as entries:
        streams = [entry for entry in entries if entry.transport != "long-polling"]
        rows = measure(
            streams, context.runs, lambda entry: {"few": rate(entry, FEW), "many": rate(entry, many)}, context.say
        )
    section = Section(
        f"Fan-out to {many:,} subscribers",
        {"few": f"deliveries/s to {FEW:,}", "many": f"to {many:,}"},
        rows,
    )
    for row in rows:
        reached = row.median("many") / row.median("few")
        section.bounds.append(Bound(f"{many:,} subscribers to {FEW:,}, {row.name.rpartition(' ')[2]}", reached, LEAST))
    return section
