"""Ends connections before their time: in order, with a word on when to come back, and not more at once than can come
back. No HTTP."""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Collection, Iterable, Sequence

from ..errors import Close
from ..loop.reactor import Reactor
from ..message import Message, status_message
from ..transports import join_batch
from ..wire import RECONNECT_KEY
from .dispatch import Dispatcher
from .subscriber import Phase, Subscriber

ENDS_PER_SECOND = 2000
"""About as many connections a second as a process takes in beside its other work."""
SLICE_SECONDS = 0.1


class Ending:
    """See the module. In the reactor's loop only."""

    def __init__(self, reactor: Reactor, dispatcher: Dispatcher) -> None:
        self._reactor = reactor
        self._dispatcher = dispatcher
        self._waiting: deque[tuple[Subscriber, Close]] = deque()
        self._until = 0.0
        self.tick = 0

    def end(self, subscriber: Subscriber, close: Close, milliseconds: int = 0, notices: Sequence[Message] = ()) -> None:
        """End a connection now. Its client is told where it stands, and to come back after so many milliseconds; it
        might take the end for that of a poll's time otherwise, or for a fault. ``notices``: what it is told before."""
        if subscriber.state not in (Phase.OPENING, Phase.OPEN):
            return
        told: dict[str, int] = self._dispatcher.positions_of(subscriber)
        # Without the epoch: where the store has begun another life, the client's positions are still of the last one.
        batch = join_batch([*notices, status_message({**told, RECONNECT_KEY: milliseconds}, None)])
        subscriber.end(close, subscriber.transport.encode(batch, None))

    def end_at_once(self, subscribers: Iterable[Subscriber], close: Close) -> None:
        """End many connections now, and spread their coming back."""
        everybody = [*subscribers, *(subscriber for subscriber, _ in self._waiting)]
        self._waiting.clear()
        self.end_some(everybody, close)

    def end_some(self, subscribers: Collection[Subscriber], close: Close) -> None:
        """The same for some of them. The others go on."""
        longest = 1000 * len(subscribers) / ENDS_PER_SECOND
        for subscriber in subscribers:
            self.end(subscriber, close, int(random.uniform(0, longest)))

    def end_by_and_by(self, subscribers: Iterable[Subscriber], close: Close) -> None:
        """End many connections as fast as they can come back, for not every client does as it is told."""
        self.end_over(subscribers, close, 0)

    def end_over(self, subscribers: Iterable[Subscriber], close: Close, seconds: float) -> None:
        """End many connections within so many seconds, one after the other, and not faster than they can come back.
        Until its turn a connection is served as before."""
        self._waiting.extend((subscriber, close) for subscriber in subscribers)
        self._until = self._reactor.clock() + seconds
        if not self.tick:
            self.on_deadline()

    def on_deadline(self) -> None:
        # The reactor's deadlines are coarse: what has been late is made up for in the time that is left.
        slices = max(1.0, (self._until - self._reactor.clock()) / (2 * SLICE_SECONDS))
        for _ in range(min(math.ceil(len(self._waiting) / slices), int(ENDS_PER_SECOND * SLICE_SECONDS))):
            self.end(*self._waiting.popleft())
        if self._waiting:
            self._reactor.set_deadline(self, SLICE_SECONDS)
