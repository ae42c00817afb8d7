"""The contract of a transport. Its bytes depend on the batch alone, never on the subscriber, so that each dispatch
makes them once and writes them to all."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from ..errors import Close
from ..message import Message

EMPTY_BATCH = b"[]"


def join_batch(messages: Sequence[Message]) -> bytes:
    """A batch: the JSON array that every transport delivers."""
    if len(messages) == 1:
        return b"[%b]" % messages[0].json
    return b"[%b]" % b",".join([message.json for message in messages])


def batch_parts(messages: Sequence[Message]) -> list[bytes]:
    """The same array in pieces, joined: the JSON of a large message is not copied, but shared with whoever holds it."""
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
    """One kind of connection. Its instances have no state: there is one of each."""

    name: ClassVar[str]
    """The field's name for it, as in the JS client's ``transports``."""
    one_batch: ClassVar[bool] = False
    """Whether the response ends with its first batch."""
    bounded: ClassVar[bool] = False
    """Whether it is held for ``long_polling_interval`` only; the others live on, with heartbeats."""
    begins: ClassVar[bool] = False
    """Whether a first batch is due at once, whatever is in it: a buffering proxy shows by keeping it back."""
    tells_epoch: ClassVar[bool] = False
    """Whether a client is told the store's epoch when it begins, though it has not asked: only clients of ours come by
    this transport."""
    heartbeat: ClassVar[bytes] = b""
    """An empty batch, as bytes on the wire."""

    def fields(self, size: int) -> bytes:
        """The lines of a response's head that say where its body ends, on a taken socket. ``size``: bytes of what comes
        first."""
        return b"Connection: close\r\n"

    @abstractmethod
    def encode(self, batch: bytes, global_id: int | None) -> bytes:
        """The batch on the wire. ``global_id``: everything up to it has been given to this subscriber; ``None``: that
        cannot be said of any."""

    def encode_parts(self, parts: list[bytes], global_id: int | None) -> list[bytes]:
        """As ``encode``, of a batch in pieces, which are not copied."""
        return [self.encode(b"".join(parts), global_id)]

    def end(self, close: Close, last: bytes = b"") -> bytes:
        """What is still to be sent when a connection of this kind ends in order. ``last``: the encoded batch that says
        why, where it ends before its time."""
        return last
