"""Publishing as fast as the messages are taken."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from ..crowd import Crowd, Failed
from ..processes import Process
from ..publishers import Publisher
from ..wires import payload

TIMEOUT = 60.0
AHEAD = 1
"""Messages on their way beyond those that everybody has, where they shall be delivered one by one."""


def flood(crowd: Crowd, publisher: Publisher, channel: str, first: int, count: int, burst: int, ahead: int) -> float:
    """Publish ``count`` messages to a channel that the whole crowd follows, ``burst`` at a time, and wait until all
    have come. Returns the seconds.

    ``ahead``: how many messages may be on their way beyond those that everybody has when the next burst is published.
    """
    each, begun, published = crowd.count, crowd.received, 0
    began = time.perf_counter()
    while published < count:
        if crowd.received - begun >= (published - ahead) * each:
            publisher.publish([(channel, payload(first + published + i)) for i in range(burst)])
            published += burst
        elif not crowd.read() and time.perf_counter() - began > TIMEOUT:
            raise Failed(f"messages are missing after {TIMEOUT:.0f} s")
    return crowd.read_until(begun + count * each, TIMEOUT) - began


def delivered_from_store(
    crowd: Crowd, server: Process, messages: Sequence[tuple[str, str]], publish: Callable[[int, int], object]
) -> float:
    """Stop the server, put all messages into the store, let it go on, and wait until all have come. Returns the
    seconds from then on.

    So the server's core does nothing but take messages from the store and write them to sockets, and the load's core
    nothing but read; publishing has had its time before."""
    begun = crowd.received
    with server.paused():
        for start in range(0, len(messages), 100):
            publish(start, min(start + 100, len(messages)))
    began = time.perf_counter()
    return crowd.read_until(begun + len(messages), TIMEOUT) - began
