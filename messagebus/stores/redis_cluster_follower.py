"""What a feed follows of one partition of a Redis Cluster, on whichever line leads to its node now.

By channel: each channel that is wanted has a shard channel of its own, and a snapshot of the last ids tells whether
anything is missing (``channel_sequencer``). Everything: the partition's common shard channel, and its global backlog
(``sequencer``). Either way the follower keeps its place when the line breaks, and goes on from there on the next one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum, auto
from itertools import islice
from typing import Any, NamedTuple, Protocol

from ..backoff import Backoff
from ..errors import BackendUnavailable
from ..message import Message
from .channel_sequencer import ChannelSequencer, Item
from .feed_thread import FIRST_PAUSE
from .interest import Interest
from .partition_gate import PartitionGate
from .redis_channel_feed import LOOKED_AT, message_id_of
from .redis_cluster_partition import Partition
from .sequencer import Entry, Sequencer, Unreadable, decode_entry

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
    channels: Sequence[bytes] = ()
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
        self._stream: Stream | None = None
        self._by_channel = ChannelSequencer(source, gate)
        self._ordered: Sequencer | None = None
        self._prefix_size = len(source.own_prefix)
        self._followed: dict[bytes, None] = {}
        self._knows_names = False
        self._items: list[Item] = []
        self._entries: list[Entry] = []
        self._looked_at = 0
        self._looks = 0
        self._left_out = False
        self._is_live = False
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
        interest = self._interest
        if interest is not None and interest.everything and self._ordered is None:
            self._hear_all(again=self._by_channel.give_up())
        if self._ordered is not None or interest is None:
            assert self._ordered
            self._ordered.prepare()
            stream.unsubscribe([self._shard_channel(channel) for channel in self._followed])
            self._followed.clear()
            stream.subscribe([self.source.common_channel])
            stream.ask(self, Question(Kind.BEGIN_ALL), ())
            return
        names, calls = interest.take()
        for name in names if self._knows_names else interest.names():
            self._follow(name)
        self._knows_names = True
        wanted = []
        for channel in list(self._followed):
            name = channel.decode()
            why = interest.find(name)
            if why is None:
                del self._followed[channel]
            else:
                wanted.append((name, why))
        channels = list(self._followed)
        stream.subscribe([self.source.epoch_channel, *map(self._shard_channel, channels)])
        self._ask(Question(Kind.BEGIN, channels, wanted, calls))

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
        interest, stream = self._interest, self._stream
        if interest is None or stream is None or not self.has_begun:
            return  # at the beginning all of it is looked at
        names, calls = interest.take()
        if self._ordered is not None:
            for call in calls:
                call()
            return
        if interest.everything:
            self.begin(stream)
            return
        wanted, more, less = [], [], []
        for name in names:
            channel, why = name.encode(), interest.find(name)
            if why is not None:
                wanted.append((name, why))
                if channel not in self._followed:
                    self._followed[channel] = None
                    more.append(channel)
            elif channel in self._followed:
                del self._followed[channel]
                less.append(channel)
        self._by_channel.unfollow(less)
        stream.unsubscribe([self._shard_channel(channel) for channel in less])
        stream.subscribe([self._shard_channel(channel) for channel in more])
        if wanted or calls:
            self._ask(Question(Kind.CHANGE, [name.encode() for name, _ in wanted], wanted, calls))

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
        self._looks += 1
        if not self._followed and self._looks % IDLE_LOOKS:
            return
        begin = self._looked_at if self._looked_at < len(self._followed) else 0
        self._looked_at = begin + LOOKED_AT
        self._ask(Question(Kind.LOOK, list(islice(self._followed, begin, self._looked_at))))

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
        kind, channels, wanted, calls = question
        if kind is Kind.BEGIN_ALL:
            assert self._ordered
            self._ordered.resume()
        else:
            # Those that were unsubscribed meanwhile are followed no more.
            snapshot, _ = self.source.snapshot(channels, values)
            last_ids = {channel: snapshot.last_ids[channel] for channel in channels if channel in self._followed}
            snapshot = snapshot._replace(last_ids=last_ids)
            if kind is Kind.BEGIN:
                self._by_channel.resume(snapshot)
            else:
                left_out = self._by_channel.checked(snapshot)
                if kind is Kind.LOOK:
                    if left_out and self._left_out:
                        raise BackendUnavailable(f"Redis at {self.source.where} does not deliver what is published")
                    self._left_out = left_out
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
        self._stream.ask(self, question, self.source.snapshot_keys(question.channels))

    def _follow(self, name: str) -> None:
        self._followed[name.encode()] = None

    def _shard_channel(self, channel: bytes) -> bytes:
        return self.source.own_prefix + channel
