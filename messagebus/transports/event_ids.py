"""What the id of an event says: how far its reader has come, so that it can go on there (``Last-Event-ID``). Pure.

Where a reader's channels are all in one partition of the store, that is one global id. Otherwise it is one for each of
these partitions: ``1234.99``. Which id is of which partition they say themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple


class Reached(NamedTuple):
    """How far a reader of several partitions comes with a batch: partition -> global id."""

    before: Mapping[int, int]
    after: Mapping[int, int]


EventId = int | Reached | None
"""Of a batch: its reader has everything up to there. ``None``: that holds for no id."""


class Spread:
    """The partitions of readers that follow channels in several. In the loop only."""

    def __init__(self, partitions: tuple[int, ...], reached: Sequence[int]) -> None:
        """``reached``: how far the process has come in each partition of the store; others change it."""
        self._partitions = partitions
        self._reached = reached

    def last(self, event_id: int | Reached) -> bytes:
        """What a reader is told that it has after a batch. A number: the batch is of that partition, and in the others
        the reader has all that was dispatched."""
        if isinstance(event_id, Reached):
            return self._join({**event_id.before, **event_id.after})
        return self._join({event_id % len(self._reached): event_id})

    def each(self, event_id: EventId) -> Callable[[int], bytes]:
        """The same after each message of the batch, by the message's global id. They are asked for in their order."""
        known = dict(event_id.before) if isinstance(event_id, Reached) else {}

        def after(global_id: int) -> bytes:
            known[global_id % len(self._reached)] = global_id
            return self._join(known)

        return after

    def _join(self, known: Mapping[int, int]) -> bytes:
        reached = self._reached
        return b".".join([b"%d" % known.get(each, reached[each]) for each in self._partitions])
