"""Idle connections: whether they may be used again."""

from __future__ import annotations

import select
import socket

MAX_IDLE = 10.0
"""Seconds after which an idle connection is replaced. Firewalls and load balancers silently forget quiet connections
(some after 20 s), and a command on such a connection would wait for ``store_timeout`` in vain."""


def is_readable(connection: int | socket.socket) -> bool:
    """Whether an idle connection has something to read: the server only sends there to close it."""
    poll = select.poll()
    try:
        poll.register(connection, select.POLLIN)
        return bool(poll.poll(0))
    except (OSError, ValueError):  # closed by another thread
        return True
