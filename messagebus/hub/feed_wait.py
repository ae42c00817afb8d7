"""Subscribers that have seen more than this process, and wait until its feed has come so far."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from ..loop.reactor import Reactor
from .membership import Membership
from .subscriber import Subscriber
from .windows import Windows

WAIT_SECONDS = 2.0
"""For which a subscriber waits."""


class FeedWait:
    """See the module. In the reactor's loop only, unless a method says otherwise."""

    def __init__(self, windows: Windows, membership: Membership, reactor: Reactor) -> None:
        self._windows = windows
        self._membership = membership
        self._reactor = reactor
        self._waiting: dict[Subscriber, list[tuple[Sequence[int], Callable[[Subscriber], None]]]] = {}

    def is_over(self, global_ids: Iterable[int]) -> bool:
        """Whether everything up to these was dispatched, each in its partition. From any thread."""
        reached = self._windows.reached
        return all(each <= reached[each % len(reached)] for each in global_ids)

    def when_over(self, global_ids: Sequence[int], subscriber: Subscriber, call: Callable[[Subscriber], None]) -> None:
        """Call ``call`` when everything up to these, each in its partition, has been dispatched, or the wait is
        over."""
        if self.is_over(global_ids):
            call(subscriber)
        else:
            self._waiting.setdefault(subscriber, []).append((global_ids, call))
            self._reactor.set_deadline(subscriber.writer, WAIT_SECONDS)

    def end(self, subscriber: Subscriber) -> None:
        """Let a subscriber go on, however far the feed is."""
        for _, call in self._waiting.pop(subscriber, ()):
            if subscriber in self._membership:  # the call before may have ended it
                call(subscriber)

    def forget(self, subscriber: Subscriber) -> None:
        self._waiting.pop(subscriber, None)

    def proceed(self) -> None:
        """The feed has brought something: let those go on who have waited for it."""
        if self._waiting:
            for subscriber, waiting in list(self._waiting.items()):
                if all(self.is_over(global_ids) for global_ids, _ in waiting):
                    self.end(subscriber)
