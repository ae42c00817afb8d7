"""Publishing: ``Bus.publish`` one by one and ``publish_many`` in hundreds, against the bare script through redis-py."""

from __future__ import annotations

import json
import sys

from ..context import Context
from ..machine import SERVER_CORE
from ..processes import Process
from ..results import Bound, Row, Section

WAYS = {
    "script": "the script alone, through redis-py",
    "bus": "messagebus",
    "listening": "messagebus, with a subscriber in the process",
}
LEAST = 0.9
LEAST_MANY = 50_000


def run(context: Context) -> Section:
    rows = {way: Row(name) for way, name in WAYS.items()}
    # Many short turns rather than few long ones: what disturbs the machine for a second disturbs them all alike.
    seconds = "0.3" if context.quick else "0.5"
    for _ in range(2 * context.runs):
        for way, row in rows.items():
            command = [sys.executable, "-m", "bench.servers.publishing", way, context.redis.url(5), seconds]
            row.add(**json.loads(Process(command, SERVER_CORE).run()))
            context.say(f"{row.name}: {row.runs}")
    section = Section(
        "Publishing to Redis: messages of 160 bytes, over 10 channels",
        {"one": "messages/s, one by one", "many": "100 a call"},
        list(rows.values()),
        reference=WAYS["script"],
        notes=["The publisher is on the server's core, Redis on the other."],
    )
    to_script = rows["bus"].median("one") / rows["script"].median("one")
    section.bounds.append(Bound("publish, to the script alone", to_script, LEAST))
    section.bounds.append(Bound("publish_many, messages/s", rows["bus"].median("many"), LEAST_MANY))
    return section
