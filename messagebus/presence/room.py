"""One room as a worker sees it: its members over all workers, and what its watchers were not told yet. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from ..message import Message
from .member import Key, Member
from .telling import Entry


class Held(NamedTuple):
    """A member as one or more workers hold it."""

    member: Member
    holders: dict[str, int] | tuple[str, int]
    """Worker -> since which stamp. Nearly always there is one, and a pair takes a third of a dict's memory."""
    at: int
    """Since when with this info."""

    def stamps(self) -> dict[str, int]:
        return self.holders if isinstance(self.holders, dict) else {self.holders[0]: self.holders[1]}


class Change(NamedTuple):
    """Somebody has come, or gone, over all workers."""

    key: Key
    member: Member
    joined: bool


class News(NamedTuple):
    """What watchers have not been told yet."""

    joined: list[Member]
    """New ones, and those whose info is another."""
    left: list[Any]
    """Their ids."""


class Room:
    """See the module. In the loop only."""

    __slots__ = (
        "_has_changed",
        "_held",
        "_untold",
        "complete",
        "has_switched",
        "is_large",
        "told_at",
        "told_version",
        "touched",
        "version",
        "whole",
    )

    def __init__(self) -> None:
        self._held: dict[Key, Held] = {}
        self._untold: dict[Key, Member | None] = {}
        """Key -> what watchers believe; ``None``: that there is nobody of that id."""
        self._has_changed = False
        self.version = 0
        """Grows with each change."""
        self.complete = False
        """Whether all workers have said whom they hold."""
        self.is_large = False
        """Whether watchers are told the count alone."""
        self.has_switched = False
        """Whether that has changed since they were told something."""
        self.told_version = 0
        self.told_at = float("-inf")
        self.touched = 0.0
        """When somebody last wanted to know."""
        self.whole: Message | None = None
        """What a new watcher is told, as it was made last."""

    def __len__(self) -> int:
        return len(self._held)

    def members(self) -> list[Member]:
        return [held.member for held in self._held.values()]

    def by_key(self) -> dict[Key, Member]:
        return {key: held.member for key, held in self._held.items()}

    def of_worker(self, worker: str) -> list[Key]:
        """The keys of those whom a worker holds."""
        return [key for key, held in self._held.items() if _holds(held, worker)]

    def entries_of(self, worker: str) -> list[Entry]:
        """Those whom a worker holds, as it would tell of them."""
        return [
            Entry(held.member.id, held.member.info, held.stamps()[worker], held.at)
            for held in self._held.values()
            if _holds(held, worker)
        ]

    # --- what workers tell ---

    def join(self, worker: str, entry: Entry) -> Change | None:
        """A worker holds a member; what that changes over all of them."""
        key, member, stamp, at = entry.key, entry.member, entry.stamp, entry.at
        known = self._held.get(key)
        if known is None:
            self._note(key, None)
            self._held[key] = Held(member, (worker, stamp), at)
            return Change(key, member, True)
        if at < known.at:  # told again, with what another worker has replaced since
            member, at = known.member, known.at
        elif known.member != member:
            self._note(key, known.member)
        holders = known.holders
        if isinstance(holders, tuple) and holders[0] != worker:
            holders = {holders[0]: holders[1], worker: stamp}
        elif isinstance(holders, dict) and worker not in holders:
            holders = {**holders, worker: stamp}
        self._held[key] = Held(member, holders, at)
        return None

    def leave(self, worker: str, key: Key) -> Change | None:
        """A worker no longer holds a member."""
        known = self._held.get(key)
        if known is None or not _holds(known, worker):
            return None
        if isinstance(known.holders, dict) and len(known.holders) > 1:
            left = {other: stamp for other, stamp in known.holders.items() if other != worker}
            self._held[key] = known._replace(holders=next(iter(left.items())) if len(left) == 1 else left)
            return None
        self._note(key, known.member)
        del self._held[key]
        return Change(key, known.member, False)

    def replace(self, worker: str, entries: Iterable[Entry]) -> list[Change]:
        """A worker holds exactly these."""
        now = {entry.key: entry for entry in entries}
        changes = [self.leave(worker, key) for key in self.of_worker(worker) if key not in now]
        changes += [self.join(worker, entry) for entry in now.values()]
        return [change for change in changes if change is not None]

    def moved(self, stamp: int) -> bool:
        """Whether something has changed since this was last asked. Then the version has grown, whatever the clocks
        say."""
        if self._has_changed:
            self._has_changed = False
            self.version = max(self.version + 1, stamp)
            return True
        return False

    def _note(self, key: Key, believed: Member | None) -> None:
        self._has_changed = True
        if not self.is_large:
            self._untold.setdefault(key, believed)

    # --- what watchers are told ---

    @property
    def has_news(self) -> bool:
        return self.version > self.told_version

    def take_news(self) -> News:
        """What has changed since the last time."""
        joined, left = [], []
        for key, believed in self._untold.items():
            held = self._held.get(key)
            if held is None:
                if believed is not None:
                    left.append(believed.id)
            elif held.member != believed:
                joined.append(held.member)
        self.is_told()
        return News(joined, left)

    def is_told(self) -> None:
        """Watchers know everything, or the count alone."""
        self._untold = {}
        self.has_switched = False
        self.told_version = self.version

    def measure(self, most: int) -> None:
        """Note whether there are too many to tell of each. After each change, so that all that is told of a version is
        of one kind."""
        # Back only well below, so that a room at the bound does not change all the time.
        is_large = len(self._held) > (most * 4 // 5 if self.is_large else most)
        if is_large != self.is_large:
            self.is_large, self.has_switched, self.whole = is_large, True, None


def _holds(held: Held, worker: str) -> bool:
    holders = held.holders
    return holders[0] == worker if isinstance(holders, tuple) else worker in holders
