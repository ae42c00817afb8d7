"""Which of this worker's subscribers are members of rooms, and which of them watch rooms. No store.

``presence`` tells the other workers, and hears from them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ..message import Message, encode_json
from ..names import split_name, store_name
from ..presence.member import Key, Member, room_name
from ..presence.own import OwnMembers
from ..presence.room import News, Room
from ..presence.rules import PresenceRules, channel_of
from ..presence.view import View
from .membership import Membership
from .subscriber import Subscriber

MAX_MEMBERS = 500_000
"""That one worker holds; more connections of members do not count."""


class Attendance:
    """See the module. In the reactor's loop only."""

    def __init__(
        self, clock: Callable[[], float], grace: float, most_told: int, membership: Membership, rules: PresenceRules
    ) -> None:
        """``grace``: seconds that one who goes stays a member. ``most_told``: members of a room of whom watchers are
        told one by one."""
        self._membership = membership
        self.most_told = most_told
        self.own = OwnMembers(clock, grace, MAX_MEMBERS)
        self.view = View(clock, rules.is_hooked)
        self._entered: dict[Subscriber, tuple[tuple[str, Key], ...]] = {}
        """Subscriber -> room and key of each of its memberships."""
        self.wake: Callable[[], object] = lambda: None
        """Called when one's own members may have changed."""
        self.watch: Callable[[str], Room] = self._watch
        """Called for a room that somebody begins to watch."""

    # --- members ---

    def enter(self, subscriber: Subscriber, members: Mapping[str, Member]) -> None:
        """A subscriber is a member of the rooms of these channels. May be repeated."""
        known = dict(self._entered.get(subscriber, ()))
        for channel, member in members.items():
            room = room_name(channel, subscriber.site_id)
            before = known.pop(room, None)
            place = self.own.enter(room, member, subscriber.identity.client_id)
            if place is not None:
                known[place[0]] = place[1]
            if before is not None:
                self.own.leave(room, before)
        if known:
            self._entered[subscriber] = tuple(known.items())
        self.wake()

    def leave(self, subscriber: Subscriber, name: str) -> None:
        """A subscriber no longer follows a channel, by its stored name."""
        entered = self._entered.get(subscriber, ())
        kept = []
        for room, key in entered:
            if store_name(channel_of(room), split_name(room)[1]) == name:
                self.own.leave(room, key)
                self.wake()
            else:
                kept.append((room, key))
        if len(kept) < len(entered):
            if kept:
                self._entered[subscriber] = tuple(kept)
            else:
                del self._entered[subscriber]

    def withdraw(self, subscriber: Subscriber, channel: str) -> Member | None:
        """A subscriber goes on to follow a channel, and is no member any more. Returns who it was, if it was one."""
        room = room_name(channel, subscriber.site_id)
        key = dict(self._entered.get(subscriber, ())).get(room)
        member = None if key is None else self.own.find(room, key)
        if member is not None:
            self.leave(subscriber, store_name(channel, subscriber.site_id))
        return member

    def end(self, subscriber: Subscriber) -> None:
        """A subscriber's connection ends. May be repeated."""
        entered = self._entered.pop(subscriber, None)
        if entered is not None:
            for room, key in entered:
                self.own.leave(room, key)
            self.wake()

    # --- watchers ---

    def begin(self, subscriber: Subscriber, watches: Mapping[str, int]) -> list[Message]:
        """Let a subscriber watch rooms from now on. Returns what it has to be told, as it knows the versions
        ``watches`` of them."""
        self._membership.join(subscriber, list(watches))
        found = [self.due(name, version) for name, version in watches.items()]
        return [message for message in found if message is not None]

    def due(self, name: str, version: int) -> Message | None:
        """What somebody has to be told of a room that knows a version of it; ``None``: nothing, or it is not known here
        yet, and watchers are told as soon as it is."""
        room = self.view.rooms.get(name) or self.watch(name)
        return whole(name, room) if room.complete and version < room.version else None

    def _watch(self, name: str) -> Room:
        return self.view.rooms.setdefault(name, Room())


def whole(name: str, room: Room) -> Message:
    """All that watchers are told of a room. Made once for each version."""
    if room.whole is None or room.whole.message_id != room.version:
        room.whole = _message(name, room, {} if room.is_large else {"members": _told(room.members())})
    return room.whole


def changes(name: str, room: Room, news: News) -> Message:
    """What has changed of it."""
    return _message(name, room, {"joined": _told(news.joined), "left": news.left})


def _told(members: list[Member]) -> list[dict[str, object]]:
    return [{"id": member.id, "info": member.info} for member in members]


def _message(name: str, room: Room, data: dict[str, object]) -> Message:
    channel, site_id = split_name(name)
    return Message(-1, room.version, channel, encode_json({**data, "count": len(room)}), site_id)
