"""Targeted: 10,000 subscribers of one channel, each message for one of them."""

from __future__ import annotations

from ..contenders import Entry, MessageBus
from ..context import Context
from ..crowd import Crowd
from ..publishers import StorePublisher
from ..results import Bound, Section, measure
from ..wires import payload
from .delivering import delivered_from_store

SUBSCRIBERS = 10_000
FEW = 1000
LEAST = 0.8


def run(context: Context) -> Section:
    subscribers = context.some(SUBSCRIBERS)

    def rate(entry: Entry, channels: list[str], targeted: bool) -> float:
        count = 2 * subscribers
        everybody = len(channels)
        messages = [(channels[i % everybody], payload(i // everybody + 1)) for i in range(count)]
        clients = [f"c{i % everybody}" for i in range(count)]
        publisher = StorePublisher(context.redis.url())
        try:
            with Crowd(entry.contender.port, entry.wire, channels) as crowd:
                crowd.open()
                entry.contender.process.settle()
                seconds = delivered_from_store(
                    crowd,
                    entry.contender.process,
                    messages,
                    lambda begin, end: publisher.publish(messages[begin:end], clients[begin:end] if targeted else None),
                )
                crowd.check(count // everybody)
        finally:
            publisher.close()
        entry.contender.process.settle()
        return count / seconds

    def once(entry: Entry) -> dict[str, float]:
        base = context.channel()
        few = min(FEW, subscribers)
        return {
            "spread": rate(entry, [f"{base}/{number}" for number in range(few)], targeted=False),
            "wide": rate(entry, [f"{base}/{number}" for number in range(subscribers)], targeted=False),
            "targeted": rate(entry, [base] * subscribers, targeted=True),
            "to_few": rate(entry, [f"{base}/few"] * few, targeted=True),
        }

    with context.started(MessageBus(context.redis)) as entries:
        rows = measure([e for e in entries if e.transport == "websocket"], context.runs, once, context.say)
    reached = rows[0].median("targeted") / rows[0].median("spread")
    return Section(
        f"Targeted: {subscribers:,} subscribers of one channel, each message for one of them",
        {
            "spread": f"messages/s, many to few, {min(FEW, subscribers):,} channels",
            "wide": f"{subscribers:,} channels",
            "targeted": f"targeted, {subscribers:,} subscribers",
            "to_few": f"targeted, {min(FEW, subscribers):,} subscribers",
        },
        rows,
        [Bound("targeted, to many to few", reached, LEAST)],
        notes=[
            f"To as many sockets, an untargeted message on a channel of its own is what a targeted one compares with: "
            f"{rows[0].median('targeted') / rows[0].median('wide'):.2f} times as fast with {subscribers:,}, "
            f"{rows[0].median('to_few') / rows[0].median('spread'):.2f} times with {min(FEW, subscribers):,}."
        ],
    )
