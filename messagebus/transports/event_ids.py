"""What the id of an event says: how far its reader has come, so that it can go on there (``Last-Event-ID``). Pure.

Where a reader's channels are all in one partition of the store, that is one global id. Otherwise it is one for each of
these partitions: ``1234.99``. Which id is of which partition they say themselves.

A browser returns it in a header, of which proxies and servers take 8 KB. So it has a bound, beyond which the same
numbers are packed; and where they do not even fit then, it says that nothing is known.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

LONGEST = 4096
"""Bytes of an id. As numbers it has room for 215 partitions, packed for 438."""
PACKED = b"~"
"""How a packed id begins. By itself it says that its reader has to begin anew."""
_LARGEST = 7
"""Bytes of a packed number: more than JSON's numbers have."""
_ABOVE_ALL = 10**18 - 1
"""No position has more digits."""


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
        return join_ids([known.get(each, reached[each]) for each in self._partitions])


def id_of_nowhere(partition: int, partitions: int) -> int:
    """A global id of a partition that is above all it will ever give: who comes back with it is taken for one who knows
    another life of the store."""
    return _ABOVE_ALL - (_ABOVE_ALL - partition) % partitions


def join_ids(ids: Sequence[int]) -> bytes:
    """The id of an event after which its reader has everything up to these global ids."""
    text = b".".join([b"%d" % each for each in ids])
    if len(text) <= LONGEST:
        return text
    size = (max(ids).bit_length() + 7) // 8
    if size <= _LARGEST:
        numbers = b"".join([each.to_bytes(size, "big") for each in ids])
        text = PACKED + base64.urlsafe_b64encode(bytes([size]) + numbers).rstrip(b"=")
    return text if len(text) <= LONGEST else PACKED


def split_ids(text: str) -> Sequence[int] | None:
    """The global ids that the id of an event says. ``None``: they did not fit into it.

    Raises:
        ValueError: It is not the id of an event.
    """
    if not text.isascii():
        raise ValueError(text)
    if not text.startswith("~"):
        ids = text.split(".")
        if not all(each.isdigit() and len(each) <= 18 for each in ids):
            raise ValueError(text)
        return [*map(int, ids)]
    if text == "~":
        return None
    try:
        packed = base64.b64decode(text[1:] + "=" * (-len(text[1:]) % 4), altchars=b"-_", validate=True)
    except binascii.Error as error:
        raise ValueError(text) from error
    size = packed[0]
    if not 1 <= size <= _LARGEST or len(packed) <= size or (len(packed) - 1) % size:
        raise ValueError(text)
    return [int.from_bytes(packed[at : at + size], "big") for at in range(1, len(packed), size)]
