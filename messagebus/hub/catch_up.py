"""What a subscriber still has to get before it is live, in pieces of bounded size. No sockets, no store.

It keeps a position for each channel, and no messages. Each piece is taken from what the process remembers at that
moment, so a thousand subscribers that catch up share one copy, however slowly they read. A client that has had a piece
can come back with the ids of its last messages at any time.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Iterator, Sequence
from operator import attrgetter, itemgetter
from typing import NamedTuple

from ..message import Message, gap_message, status_message
from ..stores.partitions import partition_of
from ..transports.event_ids import EventId, Reached
from .forgotten import Reader
from .history import NOTHING, Cursor, HistoryView, Start, is_none_of, start

Holding = Callable[[str, int], HistoryView | None]
"""Channel and position -> a view with the messages after it; ``None`` if they have to be read from the store."""
MaySee = Callable[[Message], bool]


class _Place:
    """A subscriber's position on a channel that it is catching up on."""

    __slots__ = ("channel", "name", "position", "tell", "withheld")

    def __init__(self, channel: str, name: str, begin: Start) -> None:
        self.channel = channel
        self.name = name
        self.position = begin.position
        self.tell = begin.tell
        """Whether the subscriber has to be told its position."""
        self.withheld = False
        """Whether the newest message so far is withheld from the subscriber."""


class Piece(NamedTuple):
    """The next messages that a subscriber is due, with the notices that belong to them."""

    batch: list[Message]
    done: bool
    """Whether that was all, for now."""
    missing: list[Cursor]
    """What has to be read before there is more."""
    event_id: EventId
    """The subscriber has everything up to there."""


class CatchUp:
    """See the module. Not safe from several threads."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._places: dict[str, _Place] = {}
        self._gaps: dict[str, tuple[int | None, int]] = {}
        self._begins = True
        self.notices: Sequence[Message] = ()
        """What comes before everything else."""
        self.say_epoch = False
        """Whether to send the store's epoch in any case."""
        self.watches: dict[str, int] = {}
        """Rooms that it watches from when it is live, and the versions of them that it knows."""
        self.readings = 0
        """How many times in a row missing messages were read."""

    def add(self, want: Cursor, view: HistoryView) -> None:
        """Begin on a channel, or begin again on one, where ``view`` says."""
        begin = start(view, want, self._reader)
        self._places[want.name] = _Place(want.channel, want.name, begin)
        self._gaps.pop(want.channel, None)
        if begin.gap is not None:
            self._gaps[want.channel] = begin.gap
        self._begins = True

    def drop(self, name: str) -> None:
        """The subscriber no longer follows a channel."""
        self.watches.pop(name, None)
        place = self._places.pop(name, None)
        if place is not None:
            self._gaps.pop(place.channel, None)

    def __contains__(self, name: str) -> bool:
        return name in self._places

    def __len__(self) -> int:
        return len(self._places)

    @property
    def names(self) -> Collection[str]:
        """The channels, as the store names them."""
        return self._places.keys()

    def take(
        self, holding: Holding, may_see: MaySee, max_bytes: int, epoch: str | None, dispatched: Sequence[int] = (0,)
    ) -> Piece:
        """The next piece: messages by global id, up to the one that takes it to ``max_bytes``; of several partitions
        one after the other. Gaps come first, a status last.

        ``dispatched``: what was, of each partition of the store."""
        missing: list[Cursor] = []
        parts = {0: _Part()} if len(dispatched) == 1 else {}
        ends: list[tuple[_Place, HistoryView]] = []
        for place in self._places.values():
            view, index = self._look(place, holding)
            if view is None:
                missing.append(Cursor(place.channel, place.name, place.position))
                continue
            ends.append((place, view))
            part = parts.setdefault(partition_of(place.name, len(dispatched)), _Part())
            if index < view.end:
                part.add(place, view, index)
        # Missing messages may come before those at hand: they are read first, and if that fails the subscriber has to
        # wait.
        ordered = not missing
        batch: list[Message] = []
        size = 0
        reached: dict[int, int] = {}
        if ordered or self.readings > 1:
            for partition, part in parts.items():
                for global_id, place, message in part.messages():
                    place.position, reached[partition] = message.message_id, global_id
                    place.withheld = not may_see(message)
                    if not place.withheld:
                        batch.append(message)
                        size += len(message.raw)
                        if size >= max_bytes:
                            break
                if size >= max_bytes:
                    break
        if len(parts) > 1:  # as in every batch; within a partition it is so already
            batch.sort(key=attrgetter("global_id"))
        done = ordered and all(_is_at_end(place, view) for place, view in ends)
        if done:
            for place, view in ends:
                place.position = max(place.position, view.last_id)
        if reached or done:
            self.readings = 0
        if done:
            reached = {partition: dispatched[partition] for partition in parts}
        event_id: EventId = None
        if ordered and len(parts) == 1:
            event_id = next(iter(reached.values()), None)
        elif ordered and reached:
            # Where nothing is due, there is nothing that it lacks. Otherwise it has what comes before the first.
            step = len(dispatched)  # between two global ids of a partition
            before = {
                partition: part.first - step if part.first else dispatched[partition]
                for partition, part in parts.items()
            }
            event_id = Reached(before, reached)
        return Piece(self._notices(batch, done, epoch), done, missing, event_id)

    def _look(self, place: _Place, holding: Holding) -> tuple[HistoryView | None, int]:
        """What has the next messages at a place, and where in it they begin."""
        while (view := holding(place.name, place.position)) is not None:
            if view.floor > place.position:  # what is between them is gone
                if is_none_of(view, place.position, self._reader):
                    place.withheld = True
                else:
                    self._gaps[place.channel] = (place.position, view.floor + 1)
                place.position = view.floor
            index = view.index_after(place.position)
            if index < view.end or view.ends:
                return view, index
            place.position = view.through  # nothing that is left of the page could be decoded
        return None, 0

    def _notices(self, messages: list[Message], done: bool, epoch: str | None) -> list[Message]:
        """The messages, after gaps and before a status, if there are any."""
        begins, self._begins = self._begins, False
        batch = messages
        if self._gaps:
            batch = [gap_message(self._gaps), *messages]
            self._gaps = {}
        if self.notices:
            batch = [*self.notices, *batch]
            self.notices = ()
        # At the beginning, too: a client that is disconnected half-way comes back with the positions that it knows.
        told = {
            place.channel: place.position
            for place in self._places.values()
            if place.withheld or (place.tell and (begins or done))
        }
        for place in self._places.values():
            place.withheld = False
        if told or self.say_epoch:
            self.say_epoch = False
            batch = [*batch, status_message(told, epoch)]
        return batch


class _Part:
    """What is at hand of one partition."""

    def __init__(self) -> None:
        self.first = 0
        """The first of its global ids; 0: there is nothing."""
        self._runs: list[Iterator[tuple[int, _Place, Message]]] = []
        self._limit = NOTHING
        """Where the first of the pages ends, for what comes behind it is not known here."""

    def add(self, place: _Place, view: HistoryView, index: int) -> None:
        self._runs.append(_run(place, view, index))
        first = view.log[index].global_id
        self.first = min(self.first or first, first)
        if not view.ends:
            self._limit = min(self._limit, view.log[view.end - 1].global_id)

    def messages(self) -> Iterator[tuple[int, _Place, Message]]:
        """By global id."""
        runs, limit = self._runs, self._limit
        for each in runs[0] if len(runs) == 1 else heapq.merge(*runs, key=itemgetter(0)):
            if each[0] > limit:
                return
            yield each


def _run(place: _Place, view: HistoryView, index: int) -> Iterator[tuple[int, _Place, Message]]:
    for number in range(index, view.end):
        message = view.log[number]
        yield message.global_id, place, message


def _is_at_end(place: _Place, view: HistoryView) -> bool:
    return view.ends and view.index_after(place.position) >= view.end
