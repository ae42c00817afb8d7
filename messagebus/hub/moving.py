"""Empties a process that is about to end, so that its clients are never without a connection: they are told to move,
open the next connection elsewhere while this one still serves, and close it themselves. No HTTP.

Who does not understand that is ended towards the end of the time, as if there had been no word; see ``ending``.
"""

from __future__ import annotations

from ..errors import Close
from ..loop.reactor import Reactor
from ..message import status_message
from ..transports import Transport, join_batch
from ..wire import MOVING_KEY
from .ending import Ending
from .membership import Membership
from .subscriber import Phase, Subscriber

MOVE_SHARE = 0.5
"""The part of the time within which clients move, each when it likes."""
END_SHARE = 0.3
"""The part of the time, its last, in which those are ended that are still here. In between, the last ones to move have
time to connect."""


class Moving:
    """See the module. In the reactor's loop only."""

    def __init__(self, reactor: Reactor, membership: Membership, endings: Ending) -> None:
        self._reactor = reactor
        self._membership = membership
        self._endings = endings
        self._close: Close | None = None
        self._seconds = self._until = 0.0
        self.tick = 0

    @property
    def has_begun(self) -> bool:
        return self._close is not None

    def begin(self, close: Close, seconds: float) -> None:
        """Have everybody leave within so many seconds. Until then connections are served as before."""
        self._close, self._seconds = close, seconds
        self._until = self._reactor.clock() + seconds
        told: dict[Transport, bytes] = {}
        polls = []
        for subscriber in self._membership.all():
            if subscriber.transport.one_batch:
                polls.append(subscriber)
            elif subscriber.state is Phase.OPEN and subscriber.reads:
                subscriber.put(told.get(subscriber.transport) or told.setdefault(*self._word_for(subscriber.transport)))
        # A poll is answered, and its client asks again elsewhere: there is nothing to open beforehand.
        self._endings.end_over(polls, close, seconds * MOVE_SHARE)
        self._reactor.set_deadline(self, seconds * (1 - END_SHARE))

    def tell(self, subscriber: Subscriber) -> None:
        """Tell one that has come since: its request was on its way when the listening sockets were closed."""
        if self._close is None or not subscriber.reads:
            return
        if subscriber.transport.one_batch:
            self._endings.end(subscriber, self._close)
        else:
            subscriber.put(self._word_for(subscriber.transport)[1])

    def _word_for(self, transport: Transport) -> tuple[Transport, bytes]:
        left = self._until - self._seconds * (1 - MOVE_SHARE) - self._reactor.clock()
        batch = join_batch([status_message({MOVING_KEY: max(0, round(left * 1000))}, None)])
        return transport, transport.encode(batch, None)

    def on_deadline(self) -> None:
        """End those that are still here."""
        if self._close is not None:
            left = max(0.0, self._until - self._reactor.clock())
            self._endings.end_over(self._membership.all(), self._close, left)
