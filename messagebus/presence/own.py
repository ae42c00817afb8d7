"""The members that this worker holds: by their connections, by their polls, or because the program says so. Pure.

One who goes stays a member for the grace, so that a reload or a change of transport is nobody's leaving.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator

from ..message import id_key
from .member import Key, Member
from .telling import Entry

FOREVER = float("inf")


class _Own:
    """A member here."""

    __slots__ = ("connections", "is_queued", "member", "place", "polls", "stamp", "told_at", "until")

    def __init__(self, place: tuple[str, Key], member: Member) -> None:
        self.place = place
        self.member = member
        self.connections = 0
        self.until = 0.0
        """Until when it is a member whatever becomes of its connections; ``FOREVER``: until the program ends that."""
        self.polls: dict[str, float] | None = None
        """Client -> until when its next poll is waited for."""
        self.is_queued = False
        self.stamp = 0
        """Since when; 0: it was not told yet."""
        self.told_at = 0
        """Since when with this info."""

    def entry(self) -> Entry:
        return Entry(self.member.id, self.member.info, self.stamp, self.told_at)

    def ends(self) -> float:
        """When it is over, if nothing happens."""
        if self.connections:
            return FOREVER
        return max(self.until, *self.polls.values()) if self.polls else self.until


class OwnMembers:
    """See the module. In the loop only."""

    def __init__(self, clock: Callable[[], float], grace: float, most: int) -> None:
        """``grace``: seconds. ``most``: members, over all rooms, that are held at most."""
        self._clock = clock
        self.grace = grace
        self._most = most
        self._rooms: dict[str, dict[Key, _Own]] = {}
        self._due: list[tuple[float, str, Key]] = []
        self._count = 0
        self._is_held = False
        self.changed: dict[tuple[str, Key], None] = {}
        """Of whom the others have to be told. Whether they are there is asked when that is done, so that one who comes
        and goes in between is one entry."""

    def __len__(self) -> int:
        return self._count

    @property
    def rooms(self) -> int:
        return len(self._rooms)

    def names(self) -> list[str]:
        return list(self._rooms)

    def of(self, name: str) -> Iterator[Entry]:
        """The members of a room that the others were told of."""
        for own in self._rooms.get(name, {}).values():
            if own.stamp:
                yield own.entry()

    def by_key(self, name: str) -> dict[Key, Member]:
        return {key: own.member for key, own in self._rooms.get(name, {}).items()}

    def find(self, name: str, key: Key) -> Member | None:
        own = self._rooms.get(name, {}).get(key)
        return None if own is None else own.member

    def tell(self, name: str, key: Key, stamp: int) -> Entry | None:
        """Take what has changed of a member as told, and return that; ``None``: it is not here."""
        own = self._rooms.get(name, {}).get(key)
        if own is None:
            return None
        own.stamp = own.stamp or stamp
        own.told_at = stamp
        return own.entry()

    # --- who comes ---

    def enter(self, name: str, member: Member, client_id: str) -> tuple[str, Key] | None:
        """A connection of a member begins. Returns the room's name and the member's key, as they are kept here already,
        to leave by; ``None``: there are too many, and it does not count."""
        own = self._take(name, member)
        if own is None:
            return None
        own.connections += 1
        if own.polls is not None:
            own.polls.pop(client_id, None)  # it has a connection now
        return own.place

    def polled(self, name: str, member: Member, client_id: str, seconds: float) -> bool:
        """A poll of a member was answered; the next one comes within so many seconds, or it has gone."""
        own = self._take(name, member)
        if own is None:
            return False
        own.polls = {**(own.polls or {}), client_id: self._clock() + seconds}
        self._queue(name, id_key(member.id), own)
        return True

    def keep(self, name: str, member: Member, seconds: float | None) -> bool:
        """The program says that somebody is there: for so many seconds, or until it says otherwise."""
        own = self._take(name, member)
        if own is None:
            return False
        own.until = FOREVER if seconds is None else self._clock() + seconds
        self._queue(name, id_key(member.id), own)
        return True

    def awaited(self) -> list[tuple[str, Member, float]]:
        """Those of whom a poll is waited for for longer than the grace: room, member, and for how many seconds."""
        soon, now = self._clock() + self.grace, self._clock()
        return [
            (name, own.member, until - now)
            for name, members in self._rooms.items()
            for own in members.values()
            if own.polls and (until := max(own.polls.values())) > soon
        ]

    def _take(self, name: str, member: Member) -> _Own | None:
        key = id_key(member.id)
        members = self._rooms.get(name)
        own = None if members is None else members.get(key)
        if own is None:
            if self._count >= self._most:
                return None
            if members is None:
                members = self._rooms[name] = {}
            elif members:
                name = next(iter(members.values())).place[0]  # thousands share the room's name
            own = members[key] = _Own((name, key), member)
            self._count += 1
            self.changed[own.place] = None
        elif own.member != member:
            own.member = member
            self.changed[name, key] = None
        return own

    # --- who goes ---

    def leave(self, name: str, key: Key) -> None:
        """A connection of a member has ended."""
        own = self._rooms.get(name, {}).get(key)
        if own is None or not own.connections:
            return
        own.connections -= 1
        if not own.connections:
            own.until = max(own.until, self._clock() + self.grace)
            self._queue(name, key, own)

    def release(self, name: str, key: Key) -> None:
        """The program says that somebody has gone. Connections keep a member all the same, and polls."""
        own = self._rooms.get(name, {}).get(key)
        if own is not None:
            own.until = 0.0
            if own.ends() <= self._clock():
                self._drop(name, key)
            else:
                self._queue(name, key, own)

    def sweep(self) -> float | None:
        """Let those go whose time is over. Returns the seconds until the next one's is; ``None``: nobody's will be,
        as things are."""
        if self._is_held:
            return None
        now = self._clock()
        while self._due and self._due[0][0] <= now:
            _, name, key = heapq.heappop(self._due)
            own = self._rooms.get(name, {}).get(key)
            if own is None:
                continue
            own.is_queued = False
            if own.polls:
                own.polls = {client: until for client, until in own.polls.items() if until > now} or None
            if own.ends() <= now:
                self._drop(name, key)
            else:
                self._queue(name, key, own)
        return self._due[0][0] - now if self._due else None

    def hold(self) -> None:
        """Let nobody go by the clock, until :meth:`release_all`."""
        self._is_held = True

    def release_all(self) -> None:
        """Let them go again. Whose time has come or is near has the grace from now on."""
        self._is_held = False
        least = self._clock() + self.grace
        while self._due and self._due[0][0] < least:
            _, name, key = heapq.heappop(self._due)
            own = self._rooms.get(name, {}).get(key)
            if own is not None:
                own.is_queued = False
                own.until = max(own.until, least)
                self._queue(name, key, own)

    def _queue(self, name: str, key: Key, own: _Own) -> None:
        """Once for each: who stays longer than expected is queued again when that shows."""
        ends = own.ends()
        if not own.is_queued and ends < FOREVER:
            own.is_queued = True
            heapq.heappush(self._due, (ends, name, key))

    def _drop(self, name: str, key: Key) -> None:
        members = self._rooms[name]
        del members[key]
        if not members:
            del self._rooms[name]
        self._count -= 1
        self.changed[name, key] = None
