"""What a worker counts of its deliveries, since it began.

In the reactor's loop, except :meth:`Counters.caught_up`, which any thread may call. Whoever reads the numbers elsewhere
may be one turn behind."""

from __future__ import annotations

from _thread import allocate_lock
from collections.abc import Sequence

from ..message import GAP_CHANNEL, Message


class Counters:
    """Counted by runs of messages and not by deliveries: a run to a thousand subscribers is one addition."""

    __slots__ = ("_lock", "bytes", "catch_ups", "delivered", "dispatched", "gaps", "slow")

    def __init__(self) -> None:
        self._lock = allocate_lock()  # native: held for a moment
        self.dispatched = 0
        """Messages that the store's feed brought."""
        self.delivered = 0
        """Messages that were put out to subscribers: each counts once for each subscriber."""
        self.bytes = 0
        """Bytes of them, as the transports send them."""
        self.catch_ups = 0
        """Times that a subscriber was given messages that it had missed."""
        self.gaps = 0
        """Times that a subscriber was told of messages that no longer exist."""
        self.slow = 0
        """Subscribers that were cut off because they read too slowly."""

    def caught_up(self, batch: Sequence[Message], size: int) -> None:
        """A subscriber is given what it has missed: ``batch``, of so many bytes."""
        gaps = sum([message.channel == GAP_CHANNEL for message in batch])
        with self._lock:
            self.gaps += gaps
            self.catch_ups += 1
            self.delivered += sum([message.message_id >= 0 for message in batch])
            self.bytes += size

    def as_dict(self) -> dict[str, int]:
        return {name: getattr(self, name) for name in self.__slots__ if name != "_lock"}
