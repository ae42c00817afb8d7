"""Many to few: 1000 channels with one subscriber each, messages spread over them, from the store to the socket."""

from __future__ import annotations

import time
from contextlib import closing

from ..contenders import Entry, FlaskSocketIO, MessageBus, Nchan, SocketIO
from ..context import Context
from ..crowd import Crowd, Failed
from ..results import Bound, Section, measure
from ..wires import payload
from .delivering import TIMEOUT, delivered_from_store

CHANNELS = 1000
MESSAGES = 20_000
LEAST = 40_000
LEAST_TO_FLASK_SOCKETIO = 5.0


def run(context: Context) -> Section:
    count = context.some(MESSAGES)

    def once(entry: Entry) -> dict[str, float]:
        contender, base = entry.contender, context.channel()
        channels = [f"{base}/{number}" for number in range(CHANNELS)]
        # The n-th on each channel has the number n.
        messages = [(channels[i % CHANNELS], payload(i // CHANNELS + 1)) for i in range(count)]
        with Crowd(contender.port, entry.wire, channels) as crowd, closing(contender.publisher()) as publisher:
            crowd.open()
            contender.process.settle()
            if isinstance(contender, Nchan):  # has no store outside it to put messages into
                began = time.perf_counter()
                for start in range(0, count, 100):
                    publisher.publish(messages[start : start + 100])
                    while start + 100 - crowd.received > 300:
                        if not crowd.read() and time.perf_counter() - began > TIMEOUT:
                            raise Failed("messages are missing")
                seconds = crowd.read_until(count) - began
            else:
                seconds = delivered_from_store(
                    crowd, contender.process, messages, lambda begin, end: publisher.publish(messages[begin:end])
                )
            crowd.check(count // CHANNELS)
        contender.process.settle()
        return {"rate": count / seconds}

    with context.started(
        Nchan(), SocketIO(context.redis), FlaskSocketIO(context.redis), MessageBus(context.redis)
    ) as entries:
        streams = [entry for entry in entries if entry.transport != "long-polling"]
        rows = measure(streams, context.runs, once, context.say)
    section = Section(
        f"Many to few: {CHANNELS:,} channels with one subscriber each, {count:,} messages",
        {"rate": "messages/s"},
        rows,
        reference="nchan, websocket",
        notes=[
            "nchan has no store apart from it: its messages come in by HTTP while they are delivered.",
        ],
    )
    ours = section.median("messagebus, Redis, websocket", "rate")
    theirs = section.median("Flask-SocketIO, websocket", "rate")
    section.bounds.append(Bound("many to few, messages/s", ours, LEAST))
    section.bounds.append(Bound("many to few, to Flask-SocketIO", ours / theirs, LEAST_TO_FLASK_SOCKETIO))
    return section
