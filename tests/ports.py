"""Free TCP ports that stay free while a server is down."""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Iterator

# Below the range that Linux takes the ports of outgoing connections from (32768 on): a port out of that range, freed
# while a server restarts, may be gone to any client on the machine when it comes back.
FIRST, LAST = 20_000, 32_000


def _candidates() -> Iterator[int]:
    """Those of this process in a random order, each once before any comes again: one whose server is down is still
    its server's. Processes of one test run have none in common; other runs on the machine hardly ever meet."""
    number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    own = range(FIRST + number, LAST, int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))
    while True:
        yield from random.SystemRandom().sample(own, len(own))


_ports = _candidates()


def free_port(host: str = "127.0.0.1") -> int:
    """A port that nothing listens on."""
    for _ in range(100):
        port = next(_ports)
        with socket.socket() as probe:
            # As servers do, so that connections of an earlier test in TIME_WAIT do not count.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError:
                continue
            return port
    raise OSError(f"no free port between {FIRST} and {LAST}")
