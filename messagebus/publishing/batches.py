"""Batches, which are published in one step, and the ids under which a store remembers them. No store, no queue."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator, Sequence

from ..stores.base import MAX_BYTES, MAX_MESSAGES, Publication, PublicationId


class Lanes:
    """Publication ids of a process, so that a lost answer never makes two messages.

    A lane is a record in the store and a number that grows. It is used by one publish after the other, and the store
    remembers the newest of each lane: as many records as publishes are under way at the same time, however many
    messages there are. Safe from any thread and greenlet: the list's methods are atomic."""

    def __init__(self) -> None:
        self._free: list[PublicationId] = []

    def take(self) -> PublicationId:
        """A new id."""
        try:
            lane = self._free.pop()
        except IndexError:
            return PublicationId(secrets.token_hex(8), 1)
        return PublicationId(lane.record, lane.sequence + 1)

    def give_back(self, used: PublicationId) -> None:
        """Return an id: nothing will be sent under it again."""
        self._free.append(used)


class Batch:
    """Messages that are published as one step: all or none of them."""

    __slots__ = ("key", "messages", "publication_id", "shares_id", "suspect")

    def __init__(
        self, messages: Sequence[Publication], key: PublicationId | None = None, suspect: bool = False
    ) -> None:
        self.messages = messages
        self.suspect = suspect
        """Whether it is a part of what was refused, and perhaps the reason: it is not put together with others."""
        self.key = key
        """The id made of the caller's ``idempotency_key``."""
        self.publication_id: PublicationId | None = key
        """The id of the first attempt, kept until the batch is stored."""
        self.shares_id = False
        """Whether others have the same id: parts of what was sent to several partitions as one."""

    def part(self, places: Sequence[int], publication_id: PublicationId | None = None) -> Batch:
        """Those of the messages that are of one or some partitions. ``publication_id``: under which all have been
        sent."""
        part = Batch([self.messages[place] for place in places], self.key)
        if self.key is None and publication_id is not None:
            part.publication_id, part.shares_id = publication_id, True
        return part

    def split(self) -> list[Batch]:
        """Two halves, of a batch of several."""
        middle = len(self.messages) // 2
        return [Batch(part, suspect=True) for part in (self.messages[:middle], self.messages[middle:])]


def batches_of(messages: Sequence[Publication], idempotency_key: str | None = None) -> list[Batch]:
    """Split messages into as few batches as possible."""
    if idempotency_key is None:
        return [Batch(messages)] if len(messages) == 1 else [Batch(part) for part in _parts(messages)]
    return [Batch(part, _key(idempotency_key, part, number)) for number, part in enumerate(_parts(messages))]


def _key(idempotency_key: str, messages: Sequence[Publication], number: int) -> PublicationId:
    """The id of a batch, from the caller's key. It counts for the channels that it was given with: the same key on
    another channel, or on another site, is another one."""
    words = [str(number), idempotency_key, *[message.name for message in messages]]
    return PublicationId(hashlib.blake2b("\0".join(words).encode(), digest_size=16).hexdigest(), 1)


def _parts(messages: Sequence[Publication]) -> Iterator[Sequence[Publication]]:
    begin = size = 0
    for end, message in enumerate(messages):
        if end - begin >= MAX_MESSAGES or (size > MAX_BYTES):
            yield messages[begin:end]
            begin, size = end, 0
        size += len(message.envelope)
    if begin < len(messages):
        yield messages[begin:]
