"""Free TCP ports that stay free while a server is down."""

from __future__ import annotations

import random
import socket

# Below the range that Linux takes the ports of outgoing connections from (32768 on): a port out of that range, freed
# while a server restarts, may be gone to any client on the machine when it comes back.
FIRST, LAST = 20_000, 32_000


def free_port(host: str = "127.0.0.1") -> int:
    """A port that nothing listens on. Chosen at random, so that test runs side by side hardly ever meet."""
    for port in random.sample(range(FIRST, LAST), 100):
        with socket.socket() as probe:
            # As servers do, so that connections of an earlier test in TIME_WAIT do not count.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError:
                continue
            return port
    raise OSError(f"no free port between {FIRST} and {LAST}")
