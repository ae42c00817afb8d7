"""Connections that nobody uses at the moment: whether they may be used again."""

from __future__ import annotations

import select
import socket

MAX_IDLE = 10.0
"""Seconds after which an idle connection is not used again, but made anew: firewalls and load balancers forget quiet
connections without a word (some after 20 s), and a question on such a one would wait for ``store_timeout`` in vain."""


def is_readable(connection: int | socket.socket) -> bool:
    """Whether the server has something to say on an idle connection: it only ever does to take its leave."""
    poll = select.poll()
    try:
        poll.register(connection, select.POLLIN)
        return bool(poll.poll(0))
    except (OSError, ValueError):  # closed by another thread
        return True
