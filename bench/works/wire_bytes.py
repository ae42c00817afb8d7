"""Bytes on the wire for each message of 160 bytes, one at a time, without TCP's and what begins the connection."""

from __future__ import annotations

from contextlib import closing

from ..contenders import Entry
from ..context import Context
from ..crowd import Crowd
from ..results import Section, measure
from .delivering import flood

MESSAGES = 200


def run(context: Context) -> Section:
    def once(entry: Entry) -> dict[str, float]:
        channel = context.channel()
        with (
            Crowd(entry.contender.port, entry.wire, [channel]) as crowd,
            closing(entry.contender.publisher()) as publisher,
        ):
            crowd.open()
            entry.contender.process.settle()  # its feed may have begun with the first subscriber
            flood(crowd, publisher, channel, 1, MESSAGES, 1, 0)
            crowd.check(MESSAGES)
            return {"bytes": crowd.bytes / MESSAGES}

    with context.all_entries() as entries:
        rows = measure([e for e in entries if not e.name.startswith("messagebus, memory")], 1, once, context.say)
    return Section(
        "Bytes on the wire for a message of 160 bytes", {"bytes": "bytes"}, rows, reference="nchan, websocket"
    )
