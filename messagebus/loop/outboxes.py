"""Counts the bytes in the outboxes of all writers of a process; bounds the sum, and closes connections that take
nothing. No sockets.

Bytes that wait for many readers are one object, and count once: the sum is what is really in memory. In the reactor's
loop only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from ..limit_counts import LimitCounts

OBJECT_SIZE = 33
"""Overhead of a Python ``bytes`` object, in bytes."""


class Holder(Protocol):
    """A writer in whose outbox bytes wait."""

    def abort(self) -> None:
        """Close now, and drop everything that waits."""


class Outboxes:
    """See the module."""

    def __init__(self, limit: int, clock: Callable[[], float], refused: LimitCounts | None = None) -> None:
        """``limit``: bytes that may wait over all connections; past it those that have taken nothing for the longest
        are closed until the rest is within it. ``refused``: counts those."""
        self._refused = LimitCounts() if refused is None else refused
        self.size = 0
        """Bytes that wait."""
        self._limit = limit
        self._clock = clock
        self._holders: dict[int, int] = {}  # id of a bytes object -> how many writers hold it
        self._waiting: dict[Holder, float] = {}  # who took something last is last

    def __len__(self) -> int:
        """The number of writers in whose outboxes bytes wait."""
        return len(self._waiting)

    def has_room(self, size: int) -> bool:
        """Whether so many more bytes leave half of what may wait to live messages."""
        return self.size + size <= self._limit // 2

    def hold(self, writer: Holder, pieces: Iterable[bytes | memoryview]) -> None:
        """More waits in a writer's outbox. May abort writers, also this one."""
        self._waiting.setdefault(writer, self._clock())
        for piece in pieces:
            whole = _whole(piece)
            holders = self._holders.get(id(whole), 0)
            self._holders[id(whole)] = holders + 1
            if not holders:
                self.size += len(whole) + OBJECT_SIZE
        while self.size > self._limit and self._waiting:
            self._refused.count("max_outbox_total")
            next(iter(self._waiting)).abort()

    def release(self, pieces: Iterable[bytes | memoryview]) -> None:
        """A writer no longer holds these."""
        for piece in pieces:
            whole = _whole(piece)
            holders = self._holders[id(whole)] - 1
            if holders:
                self._holders[id(whole)] = holders
            else:
                del self._holders[id(whole)]
                self.size -= len(whole) + OBJECT_SIZE

    def progressed(self, writer: Holder) -> None:
        """A client has taken something, and more waits."""
        if self._waiting.pop(writer, None) is not None:
            self._waiting[writer] = self._clock()

    def forget(self, writer: Holder) -> None:
        """Nothing waits in the outbox any more. May be repeated."""
        self._waiting.pop(writer, None)

    def is_moving(self, writer: Holder, seconds: float) -> bool:
        """Whether it has taken something of what waits for it, or something new waits, in the last so many seconds."""
        since = self._waiting.get(writer)
        return since is not None and since > self._clock() - seconds

    def end_stalled(self, seconds: float) -> None:
        """Close the connections that have taken nothing for that long. To be called from time to time."""
        before = self._clock() - seconds
        while self._waiting:
            writer, since = next(iter(self._waiting.items()))
            if since > before:
                return
            self._refused.count("write_timeout")
            writer.abort()
            self._waiting.pop(writer, None)


def _whole(piece: bytes | memoryview) -> bytes:
    if isinstance(piece, bytes):
        return piece
    whole: bytes = piece.obj  # type: ignore[assignment]  # of which a part has been sent
    return whole
