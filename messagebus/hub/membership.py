"""The connected subscribers, and which channels they follow: by transport, and by identity. No sockets, no messages.

Nothing else changes it. In the reactor's loop only, except :meth:`Membership.__len__`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from ..transports import Transport
from .addresses import Addresses
from .subscriber import Subscriber
from .targets import TargetIndex

Followers = dict[Transport, dict[Subscriber, None]]
"""By transport. Dicts keep the order of arrival, which sets do not: it is the order in memory, here and in the kernel,
and writing to ten thousand sockets costs about a tenth less."""


class Given:
    """What all followers of a channel were given, since the first of them joined. A subscriber's share is what was
    added while it followed: nothing is counted for each of thousands."""

    __slots__ = ("bytes", "messages")

    def __init__(self) -> None:
        self.messages = 0
        self.bytes: dict[Transport, int] = {}

    def begin(self, subscriber: Subscriber) -> None:
        subscriber.messages -= self.messages
        subscriber.bytes -= self.bytes.get(subscriber.transport, 0)

    def finish(self, subscriber: Subscriber) -> None:
        subscriber.messages += self.messages
        subscriber.bytes += self.bytes.get(subscriber.transport, 0)


class Membership:
    """See the module."""

    def __init__(self) -> None:
        self._subscribers: set[Subscriber] = set()
        self._by_channel: dict[str, Followers] = {}
        self.by_transport: dict[str, int] = {}
        """The number of subscribers of each transport, by its name."""
        self.followers = self._by_channel.get
        """A channel's followers, or ``None``. It is the table's own method, because it is called for every message."""
        self.given: dict[str, Given] = {}
        """Of each channel that is followed."""
        self.addresses = Addresses()
        self._targets = TargetIndex()
        self.of_client = self._targets.of_client
        self.of_user = self._targets.of_user
        self.find = self._targets.find

    def __len__(self) -> int:
        return len(self._subscribers)

    def __contains__(self, subscriber: Subscriber) -> bool:
        return subscriber in self._subscribers

    def all(self) -> list[Subscriber]:
        return list(self._subscribers)

    @property
    def channels(self) -> int:
        """The number of channels that somebody follows. From any thread."""
        return len(self._by_channel)

    def is_followed(self, name: str) -> bool:
        return name in self._by_channel

    # --- connections ---

    def add(self, subscriber: Subscriber) -> None:
        """Add a connected subscriber, which follows nothing yet."""
        self._subscribers.add(subscriber)
        self._count(subscriber, 1)
        self._targets.add(subscriber)
        self.addresses.add(subscriber.address)

    def remove(self, subscriber: Subscriber) -> None:
        """Remove a disconnected subscriber. May be repeated."""
        if subscriber not in self._subscribers:
            return
        self._subscribers.discard(subscriber)
        self._count(subscriber, -1)
        for name in subscriber.channels:
            self._remove(subscriber, name)
        subscriber.channels = ()
        self._targets.remove(subscriber)
        self.addresses.remove(subscriber.address)

    def _count(self, subscriber: Subscriber, by: int) -> None:
        name = subscriber.transport.name
        self.by_transport[name] = self.by_transport.get(name, 0) + by

    # --- channels ---

    def join(self, subscriber: Subscriber, names: Collection[str]) -> None:
        """Let a subscriber follow these channels, too."""
        if not names:
            return
        for name in names:
            if name not in subscriber.channels:
                self._given(name).begin(subscriber)
            self._by_channel.setdefault(name, {}).setdefault(subscriber.transport, {})[subscriber] = None
        alone = len(names) == 1 and not subscriber.channels
        # A tuple takes less memory than a set, and most have one channel.
        subscriber.channels = (*names,) if alone else {*subscriber.channels, *names}

    def leave(self, subscriber: Subscriber, name: str) -> bool:
        """Let a subscriber no longer follow a channel. Returns whether it did."""
        if name not in subscriber.channels:
            return False
        subscriber.channels = {other for other in subscriber.channels if other != name}
        self._remove(subscriber, name)
        return True

    def _given(self, name: str) -> Given:
        given = self.given.get(name)
        if given is None:
            given = self.given[name] = Given()
        return given

    def _remove(self, subscriber: Subscriber, name: str) -> None:
        followers = self._by_channel.get(name)
        members = followers.get(subscriber.transport) if followers is not None else None
        if followers is None or members is None:
            return
        members.pop(subscriber, None)
        self.given[name].finish(subscriber)
        if not members:
            del followers[subscriber.transport]
            if not followers:
                del self._by_channel[name]
                del self.given[name]


def count(followers: Mapping[Transport, Collection[Subscriber]]) -> int:
    """The number of followers over all transports."""
    return sum(map(len, followers.values()))
