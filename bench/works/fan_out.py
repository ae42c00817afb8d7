"""Fan-out: 1000 subscribers of one channel, 400 messages of 160 bytes: as fast as the server takes them, in bursts of
ten, and each only when the last but one has been delivered."""

from __future__ import annotations

from contextlib import closing

from ..contenders import Entry
from ..context import Context
from ..crowd import Crowd
from ..results import Bound, Section, measure
from .delivering import AHEAD, flood

SUBSCRIBERS = 1000
MESSAGES = 400
BURST = 10
FAR_AHEAD = 50
"""Messages on their way where the publisher does not wait for subscribers; bounded, since buffers are."""
NCHAN = "nchan, websocket"
LEAST = {"websocket": 1.3, "eventsource": 1.2, "streaming": 1.2}
LEAST_IN_BURSTS = 2.0


def run(context: Context) -> Section:
    count = context.some(MESSAGES)
    each = count * SUBSCRIBERS

    def once(entry: Entry) -> dict[str, float]:
        channel, server = context.channel(), entry.contender.process
        with (
            Crowd(entry.contender.port, entry.wire, [channel] * SUBSCRIBERS) as crowd,
            closing(entry.contender.publisher()) as publisher,
        ):
            crowd.open()
            server.settle()
            cpu = server.cpu_seconds()
            one = flood(crowd, publisher, channel, 1, count, 1, AHEAD)
            cpu = server.cpu_seconds() - cpu
            taken = flood(crowd, publisher, channel, 1 + count, count, 1, FAR_AHEAD)
            ten = flood(crowd, publisher, channel, 1 + 2 * count, count, BURST, BURST)
            crowd.check(3 * count)
        server.settle()
        return {
            "taken": each / taken,
            "ten": each / ten,
            "one": each / one,
            "core": each / max(cpu, 0.01),
            "busy": 100 * cpu / one,
        }

    with context.all_entries() as entries:
        rows = measure(entries, context.runs, once, context.say)
    section = Section(
        f"Fan-out: {SUBSCRIBERS:,} subscribers of one channel, {count} messages of 160 bytes",
        {
            "taken": "deliveries/s, as fast as taken",
            "ten": f"in bursts of {BURST}",
            "one": "one by one",
            "core": "one by one, for each second of processor time",
            "busy": "its core, %",
        },
        rows,
        reference=NCHAN,
        notes=[
            "One by one, a core that was not busy waited for the load generator or for another program on the machine; "
            "the deliveries for each second of processor time do not depend on either.",
        ],
    )
    for transport, least in LEAST.items():
        row = f"messagebus, Redis, {transport}"
        # nchan has no streamed long-poll: its EventSource is the nearest.
        peer = "websocket" if transport == "websocket" else "eventsource"
        for figure, how, bound in (
            ("taken", "as fast as taken", least),
            ("ten", f"in bursts of {BURST}", LEAST_IN_BURSTS),
            ("one", "one by one", least),
        ):
            reached = section.median(row, figure) / section.median(f"nchan, {peer}", figure)
            section.bounds.append(Bound(f"fan-out {how}, {transport}, to nchan's {peer}", reached, bound))
    return section
