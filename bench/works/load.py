"""What the load generator takes: from a loop of ``send`` with no bus around it."""

from __future__ import annotations

import socket
import sys
import time

from ..context import Context
from ..crowd import Crowd
from ..machine import SERVER_CORE
from ..processes import Process, free_port
from ..results import Row, Section
from ..wires import Wire

SUBSCRIBERS = 1000
MESSAGES = 400
BURST = 10
WIRE = Wire("raw", "/", ready=b"ready")


def run(context: Context) -> Section:
    count, row = context.some(MESSAGES), Row("a loop of send")
    for _ in range(context.runs):
        port = free_port()
        command = [sys.executable, "-m", "bench.servers.sender", str(port), str(SUBSCRIBERS)]
        sender = Process(command, SERVER_CORE)
        try:
            sender.wait_for(port)
            with (
                socket.create_connection(("127.0.0.1", port)) as orders,
                Crowd(port, WIRE, ["/"] * SUBSCRIBERS) as crowd,
            ):
                crowd.open()
                one = _take(crowd, orders, count, 1)
                ten = _take(crowd, orders, count, BURST)
                crowd.check(2 * count)
            row.add(one=count * SUBSCRIBERS / one, ten=count * SUBSCRIBERS / ten)
        finally:
            sender.stop()
        context.say(f"{row.runs}")
    return Section(
        f"The load generator: {SUBSCRIBERS:,} connections, no bus",
        {"one": "messages/s, one a write", "ten": "messages/s, ten a write"},
        [row],
    )


def _take(crowd: Crowd, orders: socket.socket, count: int, burst: int) -> float:
    begun, began = crowd.received, time.perf_counter()
    orders.sendall(b"%d %d\n" % (count // burst, burst))
    return crowd.read_until(begun + count * crowd.count) - began
