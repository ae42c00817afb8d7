"""Steady: 50 messages a second to 1000 subscribers; from handing a message over to having read it."""

from __future__ import annotations

import time
from array import array
from contextlib import closing

from ..contenders import Entry
from ..context import Context
from ..crowd import Crowd
from ..results import Bound, Section, measure
from ..wires import payload

SUBSCRIBERS = 1000
PER_SECOND = 50
SECONDS = 3.0
NCHAN = "nchan, websocket"
MOST = 1.2


def run(context: Context) -> Section:
    count = int(PER_SECOND * (1.0 if context.quick else SECONDS))

    def once(entry: Entry) -> dict[str, float]:
        channel = context.channel()
        with (
            Crowd(entry.contender.port, entry.wire, [channel] * SUBSCRIBERS) as crowd,
            closing(entry.contender.publisher()) as publisher,
        ):
            crowd.open()
            entry.contender.process.settle()
            delays = array("d")
            begin = time.perf_counter()
            for number in range(1, count + 1):
                at = begin + number / PER_SECOND
                while time.perf_counter() < at:
                    crowd.read()
                # The one before has long been delivered, so that what comes now is this one; check() would tell.
                sent = time.perf_counter()
                publisher.publish([(channel, payload(number))])
                while crowd.received < number * SUBSCRIBERS and time.perf_counter() < sent + 5:
                    messages = crowd.read(64)
                    if messages:
                        delays.extend([time.perf_counter() - sent] * messages)
            crowd.check(count)
        entry.contender.process.settle()
        ordered = sorted(delays)
        return {"p50": 1000 * ordered[len(ordered) // 2], "p99": 1000 * ordered[int(len(ordered) * 0.99)]}

    with context.all_entries() as entries:
        rows = measure(entries, context.runs, once, context.say)
    section = Section(
        f"Steady: {PER_SECOND} messages/s to {SUBSCRIBERS:,} subscribers",
        {"p50": "delay p50, ms", "p99": "p99, ms"},
        rows,
        reference=NCHAN,
    )
    for transport in ("websocket", "eventsource", "streaming"):
        peer = "websocket" if transport == "websocket" else "eventsource"
        reached = section.median(f"messagebus, Redis, {transport}", "p99") / section.median(f"nchan, {peer}", "p99")
        section.bounds.append(Bound(f"steady, p99, {transport}, to nchan's {peer}", reached, most=MOST))
    return section
