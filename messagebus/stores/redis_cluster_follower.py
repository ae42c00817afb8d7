"""What a feed follows of one partition of a Redis Cluster, on whichever line leads to its node now.

By channel: each channel that is wanted has a shard channel of its own, and a snapshot of the last ids tells whether
anything is missing (``channel_sequencer``). Everything: the partition's common shard channel, and its global backlog
(``sequencer``). Either way the follower keeps its place when the line breaks, and goes on from there on the next one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from enum import Enum, auto
from typing import Any, NamedTuple, Protocol

from ..backoff import Backoff
from ..errors import BackendUnavailable
from ..message import Message
from .channel_sequencer import ChannelSequencer, Item, Snapshot
from .feed_thread import FIRST_PAUSE
from .interest import Followed, HearAll, Interest
from .partition_gate import PartitionGate
from .redis_channel_feed import message_id_of
from .redis_cluster_partition import Partition
from .sequencer import Entry, Sequencer, Unreadable, decode_entry

logger = logging.getLogger("messagebus.stores")

LONGEST_PAUSE = 1.0
"""Seconds, as ``feed_thread`` has it; shorter, as the other nodes know within a moment who was promoted."""
IDLE_LOOKS = 12
"""Of the looks at a partition of which nothing is followed, one in so many is taken: with a thousand partitions they
would take a per cent of a core."""


class Kind(Enum):
    """What a question is for."""

    BEGIN = auto()
    BEGIN_ALL = auto()
    CHANGE = auto()
    LOOK = auto()


class Question(NamedTuple):
    """What was asked on a line."""

    kind: Kind
    names: Sequence[str] = ()
    wanted: Sequence[tuple[str, object]] = ()
    calls: Sequence[Callable[[], object]] = ()


class Stream(Protocol):
    """The line that a follower is on."""

    def subscribe(self, channels: Sequence[bytes]) -> None: ...

    def unsubscribe(self, channels: Sequence[bytes]) -> None: ...

    def ask(self, follower: Follower, question: Question, keys: Sequence[bytes]) -> None:
        """Read keys, behind all that was sent before; then ``Follower.answered``. No keys: only the place counts."""

    def note_change(self, follower: Follower) -> None:
        """From any thread: have ``Follower.send_changes`` called."""


class Follower:
    """See the module. For one thread at a time, that of its line."""

    def __init__(self, source: Partition, gate: PartitionGate, interest: Interest | None) -> None:
        """``interest``: of the partition alone; ``None``: everything is wanted."""
        self.source = source
        self.gate = gate
        self.backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE)
        self.due = 0.0
        """When a line is looked for again; of the monotonic clock."""
        self.has_begun = False
        """Whether it hears, on this line."""
        self.turn = 0
        """How many lines it has been on: answers to what was asked before count no more."""
        self._codec = source.codec
        self._interest = interest
        self._followed = None if interest is None else Followed(interest)
        self._stream: Stream | None = None
        self._by_channel = ChannelSequencer(source, gate)
        self._ordered: Sequencer | None = None
        self._prefix_size = len(source.own_prefix)
        self._items: list[Item] = []
        self._entries: list[Entry] = []
        self._looks = 0
        self._is_live = False
        self._stray: str | None = None
        """An epoch that is not the store's, in which a node still publishes that does not know that it was replaced."""
        if interest is None:
            self._hear_all(again=False)
        else:
            interest.attach(self._wake)

    def _wake(self) -> None:
        stream = self._stream
        if stream is not None:
            stream.note_change(self)

    def _hear_all(self, again: bool) -> None:
        self._ordered = Sequencer(self.source, self.gate, again=again)

    # --- on a line ---

    def begin(self, stream: Stream) -> None:
        """Follow on this line from now on; what it brings before the answer is in what the answer counts."""
        self._stream = stream
        self.has_begun = False
        self.turn += 1
        self._items, self._entries = [], []
        self._stray = None
        followed = self._followed
        if followed is not None and self._ordered is None:
            before = [*followed.names]
            try:
                changes = followed.begin()
            except HearAll:
                self._hear_all(again=self._by_channel.give_up())
                stream.unsubscribe(self._shard_channels(before))
            else:
                stream.subscribe([self.source.epoch_channel, *self._shard_channels(followed.names)])
                self._ask(Question(Kind.BEGIN, [*followed.names], changes.wanted, changes.calls))
                return
        assert self._ordered
        self._ordered.prepare()
        stream.subscribe([self.source.common_channel])
        stream.ask(self, Question(Kind.BEGIN_ALL), ())

    def leave(self) -> None:
        """The line is broken, or no longer the right one."""
        self._stream = None
        self.has_begun = False

    def detach(self) -> None:
        """The feed has ended."""
        if self._interest is not None:
            self._interest.attach(lambda: None)

    def send_changes(self) -> None:
        """Subscribe to what is wanted by now, unsubscribe from what is not."""
        interest, followed, stream = self._interest, self._followed, self._stream
        if interest is None or followed is None or stream is None or not self.has_begun:
            return  # at the beginning all of it is looked at
        if self._ordered is not None:
            _, calls = interest.take()
            for call in calls:
                call()
            return
        try:
            changes = followed.take()
        except HearAll:
            self.begin(stream)
            return
        self._by_channel.unfollow([name.encode() for name in changes.less])
        stream.unsubscribe(self._shard_channels(changes.less))
        stream.subscribe(self._shard_channels(changes.more))
        if changes.wanted or changes.calls:
            names = [name for name, _ in changes.wanted]
            self._ask(Question(Kind.CHANGE, names, changes.wanted, changes.calls))

    def look(self) -> None:
        """Find out how far the partition is, and whether something is missing."""
        if not self.has_begun:
            return
        if self._ordered is not None:
            if self._is_live:
                self._ordered.check_epoch()
            elif not self._ordered.check_alive():
                raise BackendUnavailable(f"Redis at {self.source.where} does not deliver what is published")
            self._is_live = False
            return
        assert self._followed
        self._looks += 1
        if not self._followed.names and self._looks % IDLE_LOOKS:
            return
        self._ask(Question(Kind.LOOK, self._followed.next_to_look_at()))

    def ask_again(self, question: Question) -> None:
        """The node could not answer, for a moment."""
        if question.kind is not Kind.LOOK:
            self._ask(question)

    def heard(self, shard_channel: bytes, stored: bytes) -> None:
        """The line brings a message; it is handed over with ``hand_over``."""
        if not self.has_begun:
            return
        if self._ordered is not None and shard_channel != self.source.common_channel:
            return  # on its way since before all was wanted
        if stored[:1] == b"@":
            epoch, _, stored = stored[1:].partition(b"|")
            if self._is_stray(epoch.decode("ascii", "replace")):
                return
        entry = decode_entry(stored, self._codec)
        if self._ordered is not None:
            self._is_live = True
            if entry is not None:
                self._entries.append(entry)
            return
        channel = shard_channel[self._prefix_size :]
        if type(entry) is Message:
            self._items.append(Item(channel, entry.global_id, entry.message_id, entry))
        elif isinstance(entry, Unreadable):
            self._items.append(Item(channel, entry.global_id, message_id_of(stored), None))

    def _is_stray(self, epoch: str) -> bool:
        """Whether a message was published in another epoch than the store is in."""
        sequencer = self._by_channel if self._ordered is None else self._ordered
        if sequencer.is_in(epoch):
            return False
        if epoch != self._stray:
            self.hand_over()
            sequencer.check_epoch()
            if sequencer.is_in(epoch):
                return False
            self._stray = epoch
            logger.warning("Redis at %s: a node that was replaced still publishes; nobody hears it", self.source.where)
        return True

    def hand_over(self) -> None:
        """Pass on what was heard."""
        if self._items:
            items, self._items = self._items, []
            self._by_channel.received(items)
        if self._entries:
            entries, self._entries = self._entries, []
            assert self._ordered
            self._ordered.received(entries)

    def answered(self, question: Question, values: Any) -> None:
        """The answer to a question, at its place among what the line brings."""
        kind, names, wanted, calls = question
        if kind is Kind.BEGIN_ALL:
            assert self._ordered
            self._ordered.resume()
        else:
            snapshot = self._snapshot(names, values)
            if kind is Kind.BEGIN:
                self._by_channel.resume(snapshot)
                if self.turn > 1:
                    self.source.named_state()  # a node in another history gets another epoch now, which is announced
            elif kind is Kind.CHANGE:
                self._by_channel.checked(snapshot)
            elif self._by_channel.looked(snapshot):
                raise BackendUnavailable(f"Redis at {self.source.where} does not deliver what is published")
            self.gate.caught_up(self._by_channel.reached, wanted)
        if kind in (Kind.BEGIN, Kind.BEGIN_ALL):
            self.has_begun = True
            self.backoff.reset()
        for call in calls:
            call()
        if kind in (Kind.BEGIN, Kind.BEGIN_ALL):
            self.send_changes()  # that came meanwhile

    def _ask(self, question: Question) -> None:
        assert self._stream
        keys = self.source.snapshot_keys([name.encode() for name in question.names])
        self._stream.ask(self, question, keys)

    def _snapshot(self, names: Sequence[str], values: Any) -> Snapshot:
        assert self._followed
        snapshot, _ = self.source.snapshot([name.encode() for name in names], values)
        # Those that were unsubscribed meanwhile are followed no more.
        now = [name.encode() for name in names if name in self._followed.names]
        return snapshot._replace(last_ids={channel: snapshot.last_ids[channel] for channel in now})

    def _shard_channels(self, names: Iterable[str]) -> list[bytes]:
        return [self.source.own_prefix + name.encode() for name in names]
