"""Who comes into rooms and goes, as it is heard before it is known who was there. Pure.

Hooks are called by the worker whose telling has made somebody come or go over all workers. All hear the same order, so
they agree on that, but who has only begun to listen has not heard who was there before. It keeps what it hears until
all others have told whom they hold, and goes through it then.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from typing import NamedTuple

from .member import Key, Member
from .room import Change
from .telling import Entry

Place = tuple[str, Key]
"""A room and a member of it."""


class _Step(NamedTuple):
    """A worker begins to hold a member, or ends to."""

    author: str
    """The worker that has told of it."""
    worker: str
    place: Place
    member: Member | None
    """``None``: of one who has gone, it was not heard who that was."""
    joined: bool
    was_there: bool
    """Whether the worker has held it since before this one began to listen."""


class Arrivals:
    """See the module. In the loop only."""

    def __init__(self) -> None:
        self._steps: list[_Step] = []
        self._held: dict[str, dict[str, dict[Key, Member]]] = {}
        """Worker -> room -> whom it holds there."""

    def joined(self, worker: str, name: str, entry: Entry) -> None:
        """A worker has told of somebody who has come, or whose info is another."""
        self._begins(worker, name, entry, was_there=entry.stamp < entry.at)

    def held(self, worker: str, name: str, entries: Collection[Entry]) -> None:
        """A worker has told of all whom it holds in a room. Who was not heard to come was there, and who is not among
        them was not heard to go."""
        now = {entry.key for entry in entries}
        for key in self._in(worker, name).keys() - now:
            self.left(worker, worker, name, key)
        for entry in entries:
            self._begins(worker, name, entry, was_there=True)

    def left(self, author: str, worker: str, name: str, key: Key) -> None:
        """A worker no longer holds somebody, as ``author`` tells."""
        place = name, key
        member = self._in(worker, name).pop(key, None)
        if member is None:
            self._steps.append(_Step(worker, worker, place, None, joined=True, was_there=True))
        self._steps.append(_Step(author, worker, place, member, joined=False, was_there=False))

    def gone(self, author: str, worker: str) -> None:
        """A worker holds nobody any more, as ``author`` tells."""
        for name, held in self._held.get(worker, {}).items():
            for key in list(held):
                self.left(author, worker, name, key)

    def _begins(self, worker: str, name: str, entry: Entry, was_there: bool) -> None:
        held = self._in(worker, name)
        if entry.key not in held:
            self._steps.append(_Step(worker, worker, (name, entry.key), entry.member, joined=True, was_there=was_there))
        held[entry.key] = entry.member

    def _in(self, worker: str, name: str) -> dict[Key, Member]:
        return self._held.setdefault(worker, {}).setdefault(name, {})

    def changes_by(self, author: str) -> list[tuple[str, Change]]:
        """Who has come and gone over all workers by what ``author`` told, in order: with the names of their rooms."""
        holders: defaultdict[Place, set[str]] = defaultdict(set)
        for step in self._steps:
            # The author itself has heard all that it told; whom it held when it was first asked has just come.
            if step.was_there and step.worker != author:
                holders[step.place].add(step.worker)
        found = []
        for step in self._steps:
            there = holders[step.place]
            was_empty = not there
            (there.add if step.joined else there.discard)(step.worker)
            if was_empty != (not there) and step.author == author and step.member is not None:
                name, key = step.place
                found.append((name, Change(key, step.member, step.joined)))
        return found
