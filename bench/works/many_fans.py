"""Fan-out to 10,000 subscribers, against our own figures with 1000."""

from __future__ import annotations

from contextlib import closing

from ..contenders import Entry, MessageBus
from ..context import Context
from ..crowd import Crowd
from ..results import Bound, Section, measure
from .delivering import AHEAD, flood
from .fan_out import FAR_AHEAD, MESSAGES

FEW, MANY = 1000, 10_000
DELIVERIES = 400_000
"""One by one; as fast as taken it is every message to everybody."""
LEAST = 0.8


def run(context: Context) -> Section:
    many = context.some(MANY)

    def rates(entry: Entry, subscribers: int) -> tuple[float, float]:
        channel, contender = context.channel(), entry.contender
        far, near = context.some(MESSAGES), max(10, context.some(DELIVERIES) // subscribers)
        with (
            Crowd(contender.port, entry.wire, [channel] * subscribers) as crowd,
            closing(contender.publisher()) as publisher,
        ):
            crowd.open()
            contender.process.settle()
            taken = flood(crowd, publisher, channel, 1, far, 1, FAR_AHEAD)
            one = flood(crowd, publisher, channel, 1 + far, near, 1, AHEAD)
            crowd.check(far + near)
        contender.process.settle()
        return subscribers * far / taken, subscribers * near / one

    def once(entry: Entry) -> dict[str, float]:
        taken, one = rates(entry, FEW)
        many_taken, many_one = rates(entry, many)
        return {"taken": taken, "many_taken": many_taken, "one": one, "many_one": many_one}

    with context.started(MessageBus(context.redis)) as entries:
        streams = [entry for entry in entries if entry.transport != "long-polling"]
        rows = measure(streams, context.runs, once, context.say)
    section = Section(
        f"Fan-out to {many:,} subscribers",
        {
            "taken": f"deliveries/s to {FEW:,}, as fast as taken",
            "many_taken": f"to {many:,}",
            "one": f"to {FEW:,}, one by one",
            "many_one": f"to {many:,}",
        },
        rows,
    )
    for row in rows:
        for figure, how in (("taken", "as fast as taken"), ("one", "one by one")):
            reached = row.median(f"many_{figure}") / row.median(figure)
            what = f"{many:,} subscribers to {FEW:,}, {how}, {row.name.rpartition(' ')[2]}"
            section.bounds.append(Bound(what, reached, LEAST))
    return section
