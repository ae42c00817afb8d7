"""What ``import messagebus`` adds to the time that ``import flask`` takes."""

from __future__ import annotations

import json
import sys

from ..context import Context
from ..machine import SERVER_CORE
from ..processes import Process
from ..results import Bound, Row, Section

TIMES = 9
MOST = 60.0
SCRIPT = """
import json, sys, time
began = time.perf_counter()
import flask
between = time.perf_counter()
import messagebus
print(json.dumps({"flask": 1000 * (between - began), "ours": 1000 * (time.perf_counter() - between)}))
"""


def run(context: Context) -> Section:
    row = Row("import messagebus")
    for _ in range(3 if context.quick else TIMES):
        row.add(**json.loads(Process([sys.executable, "-c", SCRIPT], SERVER_CORE).run()))
    return Section(
        "Import",
        {"flask": "Flask, ms", "ours": "messagebus on top, ms"},
        [row],
        [Bound("import, ms over Flask's", row.median("ours"), most=MOST)],
    )
