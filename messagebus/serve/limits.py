"""Limits on what clients may take of ``messagebus serve`` before the app or the bus is involved."""

from __future__ import annotations

import contextlib
import logging
import time
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The defaults are safe without a proxy in front. Each is an option of the command. 0 means no limit where stated.

    They concern connections that the server has: a subscriber's socket belongs to the bus, whose own options bound
    it."""

    head_size: int = 64 * 1024
    """Bytes of a request's first line and fields; more are refused with 431 (a first line above 8 KiB with 414)."""
    head_timeout: float = 10.0
    """Seconds that a head may take from its first byte on, and a new connection until it sends one; then 408, or
    without an answer where nothing came."""
    body_size: int = 32 * 1024 * 1024
    """Bytes of a request's body; more are refused with 413. 0: the server has no limit."""
    body_timeout: float = 20.0
    """Seconds without a byte of a body, and for all of it, with one more for each 500 bytes that have come; then
    408."""
    send_timeout: float = 60.0
    """Seconds that a client may leave an answer unread before its connection is closed."""
    keep_alive: float = 65.0
    """Seconds that a connection may stay open between two requests: above the 60 of nginx, so that it is the proxy that
    closes. 0 closes after each answer."""
    connections: int = 2048
    """Connections of one worker. Beyond it the one that has waited longest for a request is closed to make room; where
    none waits, the new one is refused with 503. The process's limit of open files lowers it."""
    connections_per_address: int | None = None
    """Of one worker, from one address; more are refused with 503. ``None``: 256 from a public address, any number from
    a private one and from a Unix socket, where a proxy may be behind it. 0: no limit."""


DEFAULT_PER_ADDRESS = 256
MIN_BODY_RATE = 500
"""Minimum rate in bytes per second."""
DESCRIPTORS_KEPT_FREE = 32
"""Of the process's limit of open files: for the store, the app's files, and whatever else it must be able to open."""


def files_allowed() -> int:
    """The number of files that this process may have open; 2**31 if there is no limit."""
    with contextlib.suppress(ImportError):
        import resource

        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft != resource.RLIM_INFINITY:
            return soft
    return 2**31


def allow_many_files() -> None:
    """Raise this process's limit of open files as far as possible: each client is an open file."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


class RareWarning:
    """A warning that anybody who sends bytes can provoke: logged at most once in so many seconds, with how often it
    was left out. For one event loop."""

    def __init__(self, logger: logging.Logger, interval: float = 10.0) -> None:
        self._logger = logger
        self._interval = interval
        self._next = 0.0
        self._left_out = 0

    def __call__(self, text: str, *args: object) -> None:
        now = time.monotonic()
        if now < self._next:
            self._left_out += 1
            return
        more = f" ({self._left_out} more like it before)" if self._left_out else ""
        self._next, self._left_out = now + self._interval, 0
        self._logger.warning(text + "%s", *args, more)
