"""The contract of a store. Every store passes ``tests/contract/test_store.py``; nothing else is required of it.

A *name* is a channel as the store keeps it (``names.store_name``). A store has one partition or several, numbered
from 0. Each name belongs to one, and each global id says in which it is (``global_id % partitions``). Global ids of
different partitions say nothing of each other.

A store makes its connections, threads and locks on first use, never in its constructor: it may be constructed before
``gevent.monkey.patch_all()`` or before a fork.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

from ..errors import InvalidOption
from ..message import Ids, Message
from ..options import NO_REPLICAS
from .interest import Interest
from .partitions import encode_id, partition_of

IDS_AGE_FACTOR = 4
LEAST_IDS_AGE = 24 * 3600
"""Seconds."""
MAX_MESSAGES, MAX_BYTES = 1000, 4 * 1024 * 1024
"""Limits of one atomic publish, in messages and (about) bytes: some milliseconds of the store's time, in which it
answers nobody else."""
REMEMBERED = 600
"""Seconds for which a store remembers a publication."""
REPORT_LEASE = 30
"""Seconds for which the store keeps a worker's report."""
MAX_ANNOUNCEMENT = 5000
"""Characters of an announcement: with its longest form in PostgreSQL, NOTIFY still takes it."""


def ids_age(max_backlog_age: int) -> int:
    """Seconds after the last publish for which the last id of a channel is remembered: longer than its backlog, while
    clients still hold old ids. (Later the ids go on higher: they never begin again in one life of the store.)"""
    return max(max_backlog_age * IDS_AGE_FACTOR, LEAST_IDS_AGE)


KEEPALIVE_IDLE, KEEPALIVE_INTERVAL, KEEPALIVE_COUNT = 15, 5, 3
"""TCP keepalive for connections to a store: idle seconds before the first probe, seconds between probes, and how many
unanswered probes end the connection."""


class StoreState(NamedTuple):
    """The state of a store, or of one of its partitions."""

    global_id: int
    """The last global id; in an empty partition its number, which is 0 where there is only one."""
    epoch: str | None
    """Random name of this life of the partition; ``None`` before this package has published a message there or started
    a feed. Within one life no id is given twice."""
    lineage: Mapping[str, int] = {}
    """The former epochs of which this one has a part, by name: up to which global id they have the same messages. What
    they had above that is gone, or was never there."""

    def encoded(self, partition: int, partitions: int) -> StoreState:
        """That of a partition, with global ids in the place of its own."""
        lineage = {name: encode_id(shared, partition, partitions) for name, shared in self.lineage.items()}
        return StoreState(encode_id(self.global_id, partition, partitions), self.epoch, lineage)


class Backlog(NamedTuple):
    """The messages that a store keeps of one channel, read at one moment."""

    messages: list[Message]
    """In the order of their ids."""
    last_id: int
    """The channel's last message id, kept or not; 0 where there was never one."""
    first_id: int
    """The oldest message id that is still kept, whether it was asked for or not; ``last_id + 1`` where none is."""


class BacklogQuery(NamedTuple):
    """A request for a part of a channel's backlog."""

    name: str
    after: int
    """``n >= 0``: the messages after message n. ``-k``: the newest k of them."""


class BacklogPage(NamedTuple):
    """A part of a channel's backlog without a hole, and the channel's last id, read at one moment."""

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
    """Seconds from the reading until the kept messages expire, unless newer messages push them out before."""
    epoch: str | None = None
    """That of the channel's partition at that moment, where the store may change it by itself and has one."""


class ChannelPage(NamedTuple):
    """Some of the names that have a backlog."""

    names: list[str]
    """In no order. A name that is published to meanwhile may be missing, or come twice."""
    cursor: str
    """What the next page is asked for with; empty: this was the last one."""
    away: Sequence[int] = ()
    """Partitions that gave no answer: their names are not here, or not all of them, nor on a later page."""


class Trace(NamedTuple):
    """A trace of a delivered message, for comparing it with the store later."""

    global_id: int
    name: str
    message_id: int
    content: int
    """Hash of its data."""

    @classmethod
    def of(cls, message: Message) -> Trace:
        return cls(message.global_id, message.name, message.message_id, hash(message.raw))


class Publication(NamedTuple):
    """A message to be stored; ``Store.publish_many`` explains the fields."""

    name: str
    envelope: bytes
    max_backlog_size: int
    max_backlog_age: int


class PublicationId(NamedTuple):
    """Identifies a publish, so that the store does not store it again when it is sent again."""

    record: str
    """The name of the store's record: short, ASCII letters and digits."""
    sequence: int
    """The number within the record. A publisher's numbers grow; the store remembers only the newest."""


class Listener(ABC):
    """Receives a feed. Each call is of one partition, that of its global ids. Those of one partition come one at a
    time, in order, from the feed's thread or (memory) from the publisher; those of different partitions may come from
    different threads at once. They must neither block nor publish."""

    @abstractmethod
    def started(self, state: StoreState) -> None:
        """The feed of a partition is connected, once for each: every message after ``state.global_id`` will come.

        The state has an epoch even if the store is empty, unless the store cannot be written to."""

    @abstractmethod
    def received(self, messages: Sequence[Message]) -> None:
        """The next messages in the order of their global ids, with no hole before or between them.

        (Messages of other programs that cannot be decoded are logged and skipped.)"""

    @abstractmethod
    def resync(self, state: StoreState) -> None:
        """Messages were lost for good, or the partition has another epoch: everything known about it is outdated.

        The feed continues after ``state.global_id``. ``state.epoch`` tells whether the epoch has changed."""

    def renewed(self, state: StoreState) -> None:
        """The store has another epoch, which has all that was delivered: messages were lost at most that never came
        here. ``state.global_id`` says nothing; what follows will come."""
        self.resync(state)

    @abstractmethod
    def healthy(self, healthy: bool, partition: int = 0) -> None:
        """A partition's connection went down or cannot be made (``False``), or is up again and has caught up
        (``True``).

        Not called if all is well from the beginning. ``True`` comes after the ``started``, ``received`` or ``resync``
        of the catching up."""

    def announced(self, texts: Sequence[str]) -> None:  # noqa: B027  (for those who care)
        """Announcements, in the order of each announcer, at no certain time before or after messages. They are of no
        partition, and of one thread at a time."""

    def caught_up(self, global_id: int, wanted: Sequence[tuple[str, object]]) -> None:  # noqa: B027
        """Only of a feed with an ``Interest``: everything up to ``global_id`` has been delivered, of what it brings in
        that partition. ``wanted``: names that it brings from here on, each with what the interest said that it is
        wanted for; it had that before, or has begun."""

    def newest(self) -> Sequence[Trace]:
        """The newest known message of each followed channel. Before the feed calls ``resync`` it compares them with the
        store, to find out whether a channel's ids started again. Called from the feed's thread. Of all partitions: a
        feed takes those that are in its own."""
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
    by_channel = False
    """Whether a feed with an ``Interest`` leaves out what is not wanted."""
    partitions = 1
    """How many there are. It never changes for an instance."""

    def partition_of(self, name: str) -> int:
        """The partition of a name, the same in every process that uses the store."""
        return partition_of(name, self.partitions)

    @abstractmethod
    def publish_many(self, messages: Sequence[Publication], publication_id: PublicationId | None = None) -> list[Ids]:
        """Number, store and announce up to ``MAX_MESSAGES`` messages in their order, as one atomic step: all or none.
        Returns their ids. Messages of several partitions are one step for each of these, at the same time.

        Message ids are without holes per name, local ids over all names of a partition. Every ``clear_every``-th
        message trims the name's backlog to the newest ``max_backlog_size``, and the global one to
        ``max_global_backlog_size``; after ``max_backlog_age`` seconds without a publish the backlog is gone; its ids
        continue, one by one for :func:`ids_age`, and higher later. A short age of one name never shortens the global
        backlog's. If several messages are for one name, the size and the age of the last one apply.

        ``publication_id`` makes it safe to call again when no answer came. The store remembers it for ``REMEMBERED``
        seconds: a second call with the same id and the same messages returns the same ids, and stores nothing.
        ``None``: not remembered. Each partition remembers for itself: the messages of one of them may be sent again
        without the others.

        Raises:
            BackendUnavailable: No answer came, of one partition at least; the messages may or may not have been stored.
            PublishRefused, InvalidData: The store refuses the messages; none was stored, and no id was used. (Of
                several partitions: not in that which refuses.)
        """

    def publish(self, name: str, envelope: bytes, *, max_backlog_size: int, max_backlog_age: int) -> Ids:
        """Like :meth:`publish_many`, for one message that is not remembered."""
        return self.publish_many((Publication(name, envelope, max_backlog_size, max_backlog_age),))[0]

    def publish_durably(
        self, messages: Sequence[Publication], publication_id: PublicationId, replicas: int
    ) -> tuple[list[Ids], int]:
        """Like :meth:`publish_many`, then wait until so many replicas have told that they have the messages, for half a
        ``store_timeout`` at most. Returns the ids and how many replicas have told it.

        Raises:
            InvalidOption: This kind of store cannot wait for replicas; nothing was stored.
        """
        raise InvalidOption("durable", NO_REPLICAS)

    def check(self) -> None:
        """Find out whether the store can be used as it is to be. Writes nothing.

        Raises:
            BackendUnavailable: It gave no answer.
            InvalidOption: What answers is not what the URL says.
            PublishRefused: The store's user may not do all that the bus needs; the text says what, and what mends it.
        """
        self.state()

    def backlog(self, name: str, after: int = 0) -> Backlog:
        """The kept messages with ``message_id > after``, and the channel's last id, read in one step: a page of any
        size."""
        (page,) = self.backlogs([BacklogQuery(name, max(after, 0))], 1 << 53)
        return Backlog(page.messages, page.last_id, page.first_id)

    @abstractmethod
    def backlogs(self, queries: Sequence[BacklogQuery], max_bytes: int) -> list[BacklogPage]:
        """Parts of several backlogs in one round trip, in the order of the queries; each is read in one step. Of
        several partitions: one round trip for each, at the same time.

        A page ends with the message whose envelope takes it to ``max_bytes`` or beyond, so it is never empty while
        there is something to read. Nothing is written: it also works if the store is full or read-only."""

    @abstractmethod
    def last_ids(self, names: Sequence[str]) -> list[int]:
        """The last message id of each name, 0 if there was none, read in one step for each partition."""

    @abstractmethod
    def global_backlog(self, after: int = 0) -> list[Message]:
        """The kept messages with ``global_id > after`` over all names of the partition of ``after``, by global id,
        without those already trimmed."""

    @abstractmethod
    def state(self, partition: int = 0) -> StoreState:
        """The last global id and the epoch of a partition, read in one step."""

    @abstractmethod
    def renew_epoch(self, epoch: str | None, partition: int = 0) -> StoreState:
        """Give a partition another epoch, unless the epoch is no longer this one; all feeds call ``resync``. Returns
        its state, with the epoch in force.

        Called when a process notices that the store has gone back: an older copy of its data, or ids that were given
        twice. In the same epoch, old positions of clients would look valid."""

    @abstractmethod
    def listen(self, listener: Listener, interest: Interest | None = None) -> Feed:
        """Start to feed a listener from all partitions, and return without waiting for the store; ``started`` tells
        that the feed is connected, and ``healthy`` where it cannot be. A partition that is away holds up no other.

        With an ``interest``, and where the store is ``by_channel``, the feed brings only messages of names that are
        wanted, each from the ``caught_up`` on that names it. Between these global ids have holes. They still grow, and
        no message that was to come is left out. The feed may come to bring everything; then it sets ``everything`` and
        calls ``resync``. Each partition has its own of ``interest.parts``, with its names, its questions and its
        ``everything``.

        Feeds reconnect by themselves, forever, with a pause that grows up to some seconds. A feed reads what it missed
        from the global backlog. If that no longer holds all of it, or the store was reset or has gone back, it calls
        ``resync``. A store that has gone back gets another epoch before.
        """

    @abstractmethod
    def announce(self, text: str) -> None:
        """Tell every feed something that is not kept: it has no id and no partition, and a feed that is not connected
        misses it.

        ASCII, up to ``MAX_ANNOUNCEMENT`` characters."""

    @abstractmethod
    def report(self, worker: str, report: str) -> None:
        """Keep a worker's report, in place of its last one, for ``REPORT_LEASE`` seconds of the store's clock.

        ``worker``: short, ASCII letters and digits."""

    @abstractmethod
    def withdraw(self, worker: str) -> None:
        """Delete a worker's report."""

    @abstractmethod
    def reports(self) -> dict[str, str]:
        """The reports that are kept, by worker."""

    @abstractmethod
    def channels(self, cursor: str = "", limit: int = 1000) -> ChannelPage:
        """About ``limit`` of the names that have a backlog, beginning where the page with that ``cursor`` ended.

        Goes on without the partitions that give no answer, and names each of these on one page.

        Raises:
            BackendUnavailable: None of them gives an answer.
            ValueError: No page of such a store has that cursor.
        """

    @abstractmethod
    def forget(self, name: str) -> None:
        """Delete the backlog of a name; its ids continue, and feeds are not notified."""

    def when_back(self, call: Callable[[], None]) -> None:  # noqa: B027  (for those who know)
        """Have ``call`` called, from any thread, when the store learns that it can be reached again: whoever waits
        before the next attempt need not. Most stores never learn it. ``call`` may not block."""

    def unheard(self) -> int:
        """Messages that went nowhere: published for this process alone, in which nobody has listened or read."""
        return 0

    @abstractmethod
    def expire_all_backlogs(self) -> None:
        """Delete all messages; ids and epoch continue, and feeds are not notified.

        Messages that are published while it runs may be deleted as well."""

    @abstractmethod
    def reset(self) -> None:
        """Delete all messages and ids of the bus. Mostly for tests."""

    @abstractmethod
    def close(self) -> None:
        """End the feeds and the connections. The store cannot be used afterwards. May be repeated."""

    @abstractmethod
    def after_fork(self) -> None:
        """In a child process: drop what was inherited, and send nothing on the parent's connections."""
