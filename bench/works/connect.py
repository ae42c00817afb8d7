"""Connecting: 5000 subscribers as fast as they are accepted."""

from __future__ import annotations

from ..contenders import Entry, FlaskSocketIO, MessageBus, Nchan, SocketIO
from ..context import Context
from ..crowd import Crowd
from ..results import Bound, Section, measure

SUBSCRIBERS = 5000
LEAST = 3.0


def run(context: Context) -> Section:
    count = context.some(SUBSCRIBERS)

    def once(entry: Entry) -> dict[str, float]:
        with Crowd(entry.contender.port, entry.wire, [context.channel()] * count) as crowd:
            seconds = crowd.open()
        entry.contender.process.settle()
        return {"rate": count / seconds}

    with context.started(
        Nchan(),
        SocketIO(context.redis),
        FlaskSocketIO(context.redis),
        MessageBus(context.redis),
        MessageBus(context.redis, through_flask=True),
    ) as entries:
        # A long poll says nothing while it is held.
        rows = measure([e for e in entries if e.transport != "long-polling"], context.runs, once, context.say)
    section = Section(
        f"Connecting: {count:,} subscribers",
        {"rate": "connections/s"},
        rows,
        reference="Flask-SocketIO, websocket",
        notes=["Through Flask: with an app that has a `before_request` function, which does nothing."],
    )
    for transport in ("websocket", "eventsource", "streaming"):
        reached = section.median(f"messagebus, Redis, {transport}", "rate")
        section.bounds.append(
            Bound(
                f"connect, {transport}, to Flask-SocketIO", reached / section.median(section.reference, "rate"), LEAST
            )
        )
    return section
