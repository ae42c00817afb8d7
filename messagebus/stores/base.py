"""The contract of a store. Every backend passes ``tests/contract/test_store.py``; nothing else is asked of it.

A *name* is a channel as the store keeps it (``message.store_name``). A backend makes its connections, threads and locks
when it is first used, never when it is made: it may be made before ``gevent.monkey.patch_all()`` or before a fork.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from ..message import Ids, Message

IDS_AGE_FACTOR = 4
LEAST_IDS_AGE = 24 * 3600
"""Seconds."""
MAX_MESSAGES, MAX_BYTES = 1000, 4 * 1024 * 1024
"""Messages, and about how many bytes of them, that are published as one step: some milliseconds of the store's time, in
which it answers nobody else."""
REMEMBERED = 600
"""Seconds for which a store remembers a publication."""


def ids_age(max_backlog_age: int) -> int:
    """Seconds after the last publish for which the last id of a channel is remembered: longer than its backlog, while
    clients still hold old ids. (Later the ids go on higher: they never begin again in one life of the store.)"""
    return max(max_backlog_age * IDS_AGE_FACTOR, LEAST_IDS_AGE)


KEEPALIVE_IDLE, KEEPALIVE_INTERVAL, KEEPALIVE_COUNT = 15, 5, 3
"""Of TCP, for connections to a store: seconds of quiet before the kernel asks, seconds between its questions, and how
many stay without an answer before the connection is over."""


class StoreState(NamedTuple):
    """Where a store stands."""

    global_id: int
    """The last global id; 0 in an empty store."""
    epoch: str | None
    """Random name of this life of the store; ``None`` before this package published a message or began a feed. In one
    life no id is given twice."""


class Backlog(NamedTuple):
    """What a store keeps of one channel, read at one moment."""

    messages: list[Message]
    """In the order of their ids."""
    last_id: int
    """The channel's last message id, kept or not; 0 where there was never one."""
    first_id: int
    """The oldest message id that is still kept, whether it was asked for or not; ``last_id + 1`` where none is."""


class BacklogQuery(NamedTuple):
    """Which part of a channel's backlog is asked for."""

    name: str
    after: int
    """``n >= 0``: the messages after message n. ``-k``: the newest k of them."""


class BacklogPage(NamedTuple):
    """A part of a channel's backlog without a hole, and where the channel stands, read at one moment."""

    messages: list[Message]
    """In the order of their ids."""
    after: int
    through: int
    """Every kept message with ``after < message_id <= through`` is in ``messages``. Less than ``last_id`` where the
    page was cut at its size."""
    last_id: int
    """The channel's last message id, kept or not; 0 where there was never one."""
    first_id: int
    """The oldest message id that is still kept, whether it was asked for or not; ``last_id + 1`` where none is."""
    expires_in: float = math.inf
    """Seconds, from the reading, for which everything that is kept stays so unless newer messages push it out."""


class Trace(NamedTuple):
    """What is remembered of a message that was delivered."""

    global_id: int
    name: str
    message_id: int
    content: int
    """Hash of its data."""

    @classmethod
    def of(cls, message: Message) -> Trace:
        return cls(message.global_id, message.name, message.message_id, hash(message.raw))


class Publication(NamedTuple):
    """A message on its way into a store; ``Store.publish`` says what its fields mean."""

    name: str
    envelope: bytes
    max_backlog_size: int
    max_backlog_age: int


class PublicationId(NamedTuple):
    """What a store knows a publication by, so that one which is sent again is not stored again."""

    record: str
    """Under what the store remembers it: a short name of ASCII letters and digits."""
    sequence: int
    """Its number there. A publisher's numbers grow, and only the newest is remembered."""


class Listener(ABC):
    """Who hears a feed. Calls come one at a time, in order, from the feed's thread or (memory) from the publisher.

    None may block, or publish."""

    @abstractmethod
    def started(self, state: StoreState) -> None:
        """The feed stands: every message after ``state.global_id`` will come.

        The state has an epoch even if the store is empty, unless the store cannot be written to."""

    @abstractmethod
    def received(self, messages: Sequence[Message]) -> None:
        """The next messages in the order of their global ids, with no hole before or between them.

        (But for messages of other programs that cannot be decoded: those are logged and left out.)"""

    @abstractmethod
    def lost(self, state: StoreState) -> None:
        """Messages were lost for good, or the store has begun another life: nothing that is known of it counts any
        more.

        The feed goes on after ``state.global_id``. In another life ``state.epoch`` is another one."""

    @abstractmethod
    def healthy(self, healthy: bool) -> None:
        """The feed's connection went down or cannot be made (``False``), or is up again and has caught up (``True``).

        Not called where all is well from the beginning. ``True`` comes after the ``started``, ``received`` or
        ``lost`` of the catching up."""

    def newest(self) -> Sequence[Trace]:
        """The newest message that it knows of each channel it follows; the feed compares them with the store before it
        says that messages were lost, to tell whether a channel's ids have begun again. From the feed's thread."""
        return ()


class Feed(Protocol):
    """A running feed."""

    def close(self) -> None:
        """Ends the feed, and its thread, within a second. No call to the listener begins after it. May be repeated."""


class Store(ABC):
    """A store. All methods are safe from any thread and any greenlet.

    Every method may raise ``BackendUnavailable`` where the store is on the network."""

    shared: bool
    """Whether several processes can use the same store."""

    @abstractmethod
    def publish_many(self, messages: Sequence[Publication], publication_id: PublicationId | None = None) -> list[Ids]:
        """Number up to ``MAX_MESSAGES`` messages in their order, keep and announce them, as one atomic step: all or
        none. Returns their ids.

        Message ids are without holes per name, global ids over all names. Every ``clear_every``-th message trims the
        name's backlog to the newest ``max_backlog_size``, and the global one to ``max_global_backlog_size``; after
        ``max_backlog_age`` seconds without a publish the backlog is gone; its ids go on, one by one for
        :func:`ids_age`, at a higher one later. A short age of one name never shortens the global backlog's. Where
        several messages are for one name, the size and the age of the last hold.

        ``publication_id``: what makes it safe to call again when no answer came. The store remembers it for
        ``REMEMBERED`` seconds; called again with the same one and the same messages, it returns the same ids, and
        stores nothing. ``None``: it is not remembered.

        Raises:
            BackendUnavailable: No answer came; the messages may or may not have been stored.
            PublishRefused, InvalidData: The store does not take them; none was stored, no id was used up.
        """

    def publish(self, name: str, envelope: bytes, *, max_backlog_size: int, max_backlog_age: int) -> Ids:
        """As :meth:`publish_many`, one message that is not remembered."""
        return self.publish_many((Publication(name, envelope, max_backlog_size, max_backlog_age),))[0]

    def backlog(self, name: str, after: int = 0) -> Backlog:
        """The kept messages with ``message_id > after``, and where the channel stands, read as one: a page of any
        size."""
        (page,) = self.backlogs([BacklogQuery(name, max(after, 0))], 1 << 53)
        return Backlog(page.messages, page.last_id, page.first_id)

    @abstractmethod
    def backlogs(self, queries: Sequence[BacklogQuery], max_bytes: int) -> list[BacklogPage]:
        """Parts of several backlogs in one round trip, in the order of the queries; each is read as one.

        A page ends with the message whose envelope takes it to ``max_bytes`` or beyond, so that it is never empty while
        there is something to read. Nothing is written: it also works where the store is full or read-only."""

    @abstractmethod
    def last_ids(self, names: Sequence[str]) -> list[int]:
        """The last message id of each name, 0 where there was none, read as one."""

    @abstractmethod
    def global_backlog(self, after: int = 0) -> list[Message]:
        """The kept messages with ``global_id > after`` over all names, by global id, without those already trimmed."""

    @abstractmethod
    def state(self) -> StoreState:
        """The last global id and the epoch, read as one."""

    @abstractmethod
    def renew_epoch(self, epoch: str | None) -> StoreState:
        """Begin another life, unless the epoch is no longer this one; all feeds say ``lost``. Returns the state, with
        the epoch that holds now.

        For whoever notices that the store has gone back: an older copy of its data, or ids that were given twice. Their
        positions would look right to those who come back, were it not another epoch."""

    @abstractmethod
    def listen(self, listener: Listener) -> Feed:
        """Begin to feed a listener, and return without waiting for the store; ``started`` says that the feed stands.

        Feeds reconnect by themselves, forever, with a pause that grows up to some seconds. What a feed missed
        meanwhile it reads from the global backlog; where that no longer holds all of it, or the store was reset or has
        gone back, ``lost`` is called. A store that has gone back has been given another epoch before.
        """

    @abstractmethod
    def expire_all_backlogs(self) -> None:
        """Delete all messages that are kept; ids and epoch go on, and feeds hear nothing of it.

        Messages that are published while it runs may be deleted as well."""

    @abstractmethod
    def reset(self) -> None:
        """Delete all messages and numbers of the bus. For tests, and for those who mean it."""

    @abstractmethod
    def close(self) -> None:
        """End the feeds and the connections. The backend cannot be used after it. May be repeated."""

    @abstractmethod
    def after_fork(self) -> None:
        """In a child process: drop what was inherited, and say nothing to the store on the parent's connections."""
