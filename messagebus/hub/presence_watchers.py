"""Tells those who watch a room what has changed of it, once in a while. See ``presence``."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from ..loop.reactor import Reactor
from ..message import Message
from ..presence.room import Room
from ..presence.view import View
from .attendance import changes, whole
from .presence_stream import Timer

FLUSH_SECONDS = 0.1
"""Between two messages to the watchers of a room."""
FLUSH_LARGE_SECONDS = 1.0
"""The same where they are told the count alone."""


class Deliver(Protocol):
    """Puts a message out to all who follow a name."""

    def __call__(self, name: str, message: Message, /) -> object: ...


class Watchers:
    """See the module. In the reactor's loop only."""

    def __init__(self, view: View, followers: Callable[[str], object], deliver: Deliver, reactor: Reactor) -> None:
        """``followers``: who watches a room; ``None``: nobody."""
        self._view = view
        self._followers = followers
        self._deliver = deliver
        self._reactor = reactor
        self._dirty: dict[str, None] = {}
        self._is_flushing = False
        self._timer = Timer(self._flush)

    def note(self, names: Iterable[str]) -> None:
        """Something has changed in these rooms."""
        self._dirty |= dict.fromkeys(names)
        if self._dirty and not self._is_flushing:
            self._is_flushing = True
            self._reactor.call_soon(self._flush)

    def tell_all(self, name: str, room: Room) -> None:
        """All is known of a room from now on."""
        if self._followers(name) is not None:
            self._deliver(name, whole(name, room))

    def _flush(self) -> None:
        """Tell watchers what has changed, each room's once in a while."""
        self._is_flushing = False
        now = self._reactor.clock()
        later: dict[str, None] = {}
        for name in self._dirty:
            room = self._view.rooms.get(name)
            if room is None or not room.complete or not room.has_news:
                continue
            if now < room.told_at + (FLUSH_LARGE_SECONDS if room.is_large else FLUSH_SECONDS):
                later[name] = None
                continue
            room.told_at = now
            self._tell(name, room)
        self._dirty = later
        if later:
            self._reactor.set_deadline(self._timer, FLUSH_SECONDS)

    def _tell(self, name: str, room: Room) -> None:
        if self._followers(name) is None:
            room.is_told()
        elif room.has_switched or room.is_large:
            room.is_told()
            self._deliver(name, whole(name, room))
        else:
            told = room.take_news()
            if told.joined or told.left:
                self._deliver(name, changes(name, room, told))
