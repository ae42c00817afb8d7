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

CONNECTIONS = (1000, 10_000)
DELIVERIES = 400_000
BURST = 10
WIRE = Wire("raw", "/", ready=b"ready")


def run(context: Context) -> Section:
    rows = {count: Row(f"a loop of send, {count:,} connections") for count in CONNECTIONS}
    for _ in range(context.runs):
        for connections, row in rows.items():
            messages = context.some(DELIVERIES) // connections // BURST * BURST or BURST
            port = free_port()
            command = [sys.executable, "-m", "bench.servers.sender", str(port), str(connections)]
            sender = Process(command, SERVER_CORE)
            try:
                sender.wait_for(port)
                with (
                    socket.create_connection(("127.0.0.1", port)) as orders,
                    Crowd(port, WIRE, ["/"] * connections) as crowd,
                ):
                    crowd.open()
                    one = _take(crowd, orders, messages, 1)
                    ten = _take(crowd, orders, messages, BURST)
                    crowd.check(2 * messages)
                row.add(one=messages * connections / one, ten=messages * connections / ten)
            finally:
                sender.stop()
            context.say(f"{row.name}: {row.runs}")
    return Section(
        "The load generator, and what the kernel takes: no bus",
        {"one": "messages/s, one a write", "ten": "messages/s, ten a write"},
        list(rows.values()),
    )


def _take(crowd: Crowd, orders: socket.socket, count: int, burst: int) -> float:
    begun, began = crowd.received, time.perf_counter()
    orders.sendall(b"%d %d\n" % (max(1, count // burst), burst))
    return crowd.read_until(begun + count * crowd.count) - began
