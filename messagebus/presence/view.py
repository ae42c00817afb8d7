"""The rooms that somebody in this worker asks for, as all workers tell of them. Pure.

Everything is heard in the order of the store's feed, a worker's own tellings too. So all workers see the same order and
agree who was the first of a member's holders to come and the last to go: hooks are called there, and nowhere else. What
was not heard shows by its number, and is asked for again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from ..message import id_key
from .arrivals import Arrivals
from .room import Change, Room
from .telling import Entry, Group, Told, pieces


class Heard(NamedTuple):
    """What a telling has changed over all workers."""

    author: str
    """The worker that has told it."""
    changes: list[tuple[str, Change]]
    """With the names of their rooms."""
    changed: list[str]
    """The rooms whose watchers have something to hear."""


class _Peer:
    """A worker that has told something."""

    __slots__ = ("doubtful", "ends_at", "heard_at", "is_hearsay", "number", "pieces")

    def __init__(self, number: int) -> None:
        self.number = number
        self.heard_at = 0.0
        self.ends_at: float | None = None
        """When the grace of its members is over, if it has ended in order."""
        self.doubtful = False
        """Whether it has told something that was not heard."""
        self.is_hearsay = False
        """Whether others have told what is known of it."""
        self.pieces: dict[str, list[Entry]] = {}
        """Of rooms that it has begun to tell whole."""


class View:
    """See the module. In the loop only."""

    def __init__(self, clock: Callable[[], float], is_wanted: Callable[[str], bool]) -> None:
        """``is_wanted``: whether a room is held here though nobody has asked for it."""
        self._clock = clock
        self._is_wanted = is_wanted
        self._peers: dict[str, _Peer] = {}
        self.rooms: dict[str, Room] = {}
        self.has_wanted = False
        """Whether all workers have told of all rooms that are wanted."""
        self._arrivals = Arrivals()
        """Of these rooms, until then."""

    def workers(self) -> list[str]:
        """Those that have told of members, and have not ended."""
        return [worker for worker, peer in self._peers.items() if peer.number and peer.ends_at is None]

    def number_of(self, worker: str) -> int:
        """How far a worker's stream was heard."""
        peer = self._peers.get(worker)
        return -1 if peer is None else peer.number

    def hear(self, told: Told) -> Heard:
        """Take in a telling."""
        if told.gone:
            return self._bury(told)
        if told.bye:
            return Heard(told.worker, [], [])  # see ``ends``
        peer = self._peers.get(told.worker)
        if peer is None:
            peer = self._peers[told.worker] = _Peer(0)
        peer.heard_at = self._clock()
        peer.is_hearsay = False
        if told.number <= peer.number:
            return Heard(told.worker, [], [])  # sent again, because its answer was lost
        expected = peer.number + 1 if told.rooms else peer.number
        if told.number > expected:
            peer.doubtful = True
            peer.pieces.clear()
        peer.number = told.number
        return self._take(told, peer)

    def _take(self, told: Told, peer: _Peer) -> Heard:
        changes: list[tuple[str, Change]] = []
        changed = []
        for group in told.rooms:
            room = self._room(group)
            is_noted = not self.has_wanted and self._is_wanted(group.name)
            if room is None and not is_noted:
                continue
            is_news = group.piece < 0
            entries = group.joined if is_news else _collect(peer, group)
            if entries is None:
                continue
            if is_noted:
                self._note(told.worker, group, entries, is_news)
            if room is None:
                continue
            if is_news:
                found = self._news(room, told.worker, group)
            else:
                found = room.replace(told.worker, entries)
                room.version = max(room.version, 0 if room.complete else told.stamp)
            if room.moved(told.stamp):
                changed.append(group.name)
            changes += [(group.name, change) for change in found]
        return Heard(told.worker, changes, changed)

    def _note(self, worker: str, group: Group, entries: list[Entry], is_news: bool) -> None:
        """Keep what is heard of a room that is wanted, for when it is known who was there."""
        if not is_news:
            self._arrivals.held(worker, group.name, entries)
            return
        for entry in entries:
            self._arrivals.joined(worker, group.name, entry)
        for each in group.left:
            self._arrivals.left(worker, worker, group.name, id_key(each))

    def has_heard_all(self, worker: str) -> list[tuple[str, Change]]:
        """All workers have told of all rooms that are wanted; maybe again, after an outage. Returns what this one,
        ``worker``, has changed over all of them since it began to listen, and could not know then."""
        found = self._arrivals.changes_by(worker)
        self.has_wanted, self._arrivals = True, Arrivals()
        return found

    def _room(self, group: Group) -> Room | None:
        room = self.rooms.get(group.name)
        if room is None and group.joined and self._is_wanted(group.name):
            room = self.rooms[group.name] = Room()
            # Until now nobody was in it, as otherwise it would be here.
            room.complete = self.has_wanted
        return room

    def _news(self, room: Room, worker: str, group: Group) -> list[Change]:
        found = [room.join(worker, entry) for entry in group.joined]
        found += [room.leave(worker, id_key(each)) for each in group.left]
        return [change for change in found if change is not None]

    # --- workers that give no answer ---

    def known_of(self, worker: str, names: Iterable[str], wanted: Callable[[str], bool]) -> Told | None:
        """What is known here of a worker: whom it holds in these rooms, and in those that ``wanted`` names. ``None``:
        nothing.

        One that was killed answers nobody, but its members are there until its silence is over. Who begins to ask in
        the meantime has to hear of them from the others."""
        peer = self._peers.get(worker)
        if peer is None or not peer.number:
            return None
        asked = {*names}
        groups = [
            group
            for name, room in self.rooms.items()
            if room.complete and (name in asked or wanted(name)) and (entries := room.entries_of(worker))
            for group in pieces(name, entries)
        ]
        return Told(worker, peer.number, rooms=groups, seconds=self._clock() - peer.heard_at)

    def hear_of(self, told: Told) -> Heard:
        """Take in what a worker passes on of another one; nothing, where that one was heard here as far."""
        peer = self._peers.get(told.worker)
        if peer is None:
            peer = self._peers[told.worker] = _Peer(0)
        elif not (peer.is_hearsay or peer.doubtful) or told.number < peer.number:
            return Heard(told.worker, [], [])
        if not peer.is_hearsay:
            peer.is_hearsay, peer.heard_at = True, self._clock() - told.seconds
        peer.number = told.number
        return self._take(told, peer)

    # --- workers that end ---

    def ends(self, worker: str, at: float) -> None:
        """A worker ends in order: its members are kept until ``at``, so that they may come back elsewhere."""
        peer = self._peers.get(worker)
        if peer is not None:
            peer.ends_at = at

    def over(self, silent_since: float) -> list[str]:
        """The workers that have nobody any more: those whose grace is over, and those of which nothing was heard
        since."""
        now = self._clock()
        found = []
        for worker, peer in list(self._peers.items()):
            if now >= peer.ends_at if peer.ends_at is not None else peer.heard_at < silent_since:
                if peer.number:
                    found.append(worker)
                else:
                    del self._peers[worker]  # it never had anybody
        return found

    def forgive(self, seconds: float) -> None:
        """Nothing could be heard for so long: that is nobody's silence."""
        now = self._clock()
        for peer in self._peers.values():
            peer.heard_at = min(now, peer.heard_at + seconds)

    def _bury(self, told: Told) -> Heard:
        changes: list[tuple[str, Change]] = []
        changed = []
        if self._peers.pop(told.gone, None) is not None:
            self._arrivals.gone(told.worker, told.gone)
            for name, room in self.rooms.items():
                changes += [(name, change) for change in room.replace(told.gone, ())]
                if room.moved(told.stamp):
                    changed.append(name)
        return Heard(told.worker, changes, changed)

    # --- what was not heard ---

    def doubtful(self) -> list[str]:
        """The workers of which something was not heard."""
        return [worker for worker, peer in self._peers.items() if peer.doubtful]

    def doubt(self, worker: str, doubtful: bool) -> None:
        peer = self._peers.get(worker)
        if peer is not None:
            peer.doubtful = doubtful


def _collect(peer: _Peer, group: Group) -> list[Entry] | None:
    """All whom the worker holds in a room, once the last piece is there."""
    if not group.piece:
        peer.pieces[group.name] = []
    entries = peer.pieces.get(group.name)
    if entries is None:
        return None  # the first was not heard
    entries += group.joined
    if group.piece < group.of - 1:
        return None
    del peer.pieces[group.name]
    return entries
