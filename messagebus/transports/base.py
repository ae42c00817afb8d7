"""The contract of a transport. Its bytes depend only on the batch, never on the subscriber, so each dispatch makes them
once and writes them to all."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from ..errors import Close
from ..message import Message
from .event_ids import EventId, Spread

EMPTY_BATCH = b"[]"


def join_batch(messages: Sequence[Message]) -> bytes:
    """A batch: the JSON array that every transport delivers."""
    if len(messages) == 1:
        return b"[%b]" % messages[0].json
    return b"[%b]" % b",".join([message.json for message in messages])


def batch_parts(messages: Sequence[Message]) -> list[bytes]:
    """The same array in pieces: the JSON of a large message is shared, not copied."""
    parts: list[bytes] = []
    small = [b"["]
    for number, message in enumerate(messages):
        if number:
            small.append(b",")
        head, *rest = message.parts
        small.append(head)
        if rest:
            raw, tail = rest
            parts += (b"".join(small), raw)
            small = [tail]
    small.append(b"]")
    parts.append(b"".join(small))
    return parts


class Transport(ABC):
    """A kind of connection. Stateless: there is one instance of each, or one for each format of its messages."""

    name: ClassVar[str]
    """Its name, as in the JavaScript client's ``transports``."""
    one_batch: ClassVar[bool] = False
    """Whether the response ends with its first batch."""
    bounded: ClassVar[bool] = False
    """Whether it is held for ``long_polling_interval`` only; the others stay open, with heartbeats."""
    begins: ClassVar[bool] = False
    """Whether a first batch is sent at once, even an empty one: its absence reveals a proxy that buffers."""
    has_event_ids: ClassVar[bool] = False
    """Whether what it sends has ids, one of which the client comes back with."""
    tells_epoch: ClassVar[bool] = False
    """Whether a client gets the store's epoch at the beginning without asking: only our own clients use this
    transport."""
    is_part: ClassVar[bool] = False
    """Whether the connection is that of another subscriber, and serves this one as well."""
    preamble: ClassVar[bytes] = b""
    """What the body begins with, before everything else."""
    heartbeat: ClassVar[bytes] = b""
    """An empty batch, as bytes on the wire."""

    def fields(self, size: int) -> bytes:
        """The lines of a response's head that say where its body ends, on a taken socket. ``size``: bytes of what comes
        first."""
        return b"Connection: close\r\n"

    @abstractmethod
    def encode(self, batch: bytes, event_id: EventId) -> bytes:
        """The batch on the wire. ``event_id``: the subscriber has everything up to it."""

    def encode_parts(self, parts: list[bytes], event_id: EventId) -> list[bytes]:
        """Like ``encode``, for a batch in pieces, which are not copied."""
        return [self.encode(b"".join(parts), event_id)]

    def spread(self, spread: Spread) -> Transport:
        """The same for subscribers whose channels are in these partitions of the store: one for all of them, if its
        bytes depend on that."""
        return self

    def end(self, close: Close, last: bytes = b"") -> bytes:
        """The last bytes when a connection of this kind is closed cleanly. ``last``: the encoded batch that says why,
        if it ends early."""
        return last
