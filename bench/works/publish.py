"""Publishing: ``Bus.publish`` one by one and ``publish_many`` in hundreds, against the bare script through redis-py."""

from __future__ import annotations

import json
import sys

from ..context import Context
from ..machine import SERVER_CORE
from ..processes import Process
from ..results import Bound, Row, Section

LEAST = 0.9
LEAST_MANY = 50_000


def run(context: Context) -> Section:
    row = Row("messagebus, Redis")
    seconds = "0.3" if context.quick else "1.0"
    for _ in range(context.runs):
        command = [sys.executable, "-m", "bench.servers.publishing", context.redis.url(5), seconds]
        figures = json.loads(Process(command, SERVER_CORE).run())
        row.add(**figures)
        context.say(str(figures))
    section = Section(
        "Publishing to Redis: messages of 160 bytes, over 10 channels",
        {
            "script": "the script alone, messages/s",
            "one": "publish",
            "one_listening": "publish, with a subscriber in the process",
            "many_script": "the script alone, 100 a call",
            "many": "publish_many, 100 a call",
        },
        [row],
        notes=["The publisher is on the server's core, Redis on the other."],
    )
    section.bounds.append(Bound("publish, to the script alone", row.median("one") / row.median("script"), LEAST))
    section.bounds.append(Bound("publish_many, messages/s", row.median("many"), LEAST_MANY))
    return section
