"""Delivers missed messages to subscribers in pieces: each when the one before has left the socket, and all of them
within the memory for it. No HTTP.

In the reactor's loop; what is missing is read from the store outside of it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence

from ..errors import RESYNC, BackendUnavailable, BusClosed
from ..loop.outboxes import Outboxes
from ..loop.reactor import Reactor
from ..message import LARGE, Message, before_status
from ..options import Options
from ..transports import batch_parts
from ..transports.event_ids import EventId
from .counters import Counters
from .ending import Ending
from .history import Cursor
from .membership import Membership
from .permissions import Access, ReportError
from .subscriber import Identity, Phase, Subscriber
from .windows import Windows

logger = logging.getLogger("messagebus.hub")

READINGS = 3
"""How many times a subscriber's missing messages are read without yielding a piece, before it is told to reconnect."""
AWAY_MS = 2000
"""When a subscriber that is sent back may come again."""
CROWDED_SECONDS = 5.0
"""Seconds that a reader may take nothing while others wait for memory."""

ReadMissing = Callable[[Sequence[Cursor]], object]
"""Reads the next messages of channels. May block; raises ``BackendUnavailable``, or ``BusClosed``."""
BeginWatching = Callable[[Subscriber, Mapping[str, int]], list[Message]]
"""See ``Attendance.begin``."""


class Pacer:
    """See the module."""

    def __init__(
        self,
        options: Options,
        reactor: Reactor,
        windows: Windows,
        membership: Membership,
        outboxes: Outboxes,
        ending: Ending,
        access: Access,
        report: ReportError,
    ) -> None:
        self._size = options.max_catch_up_batch
        self._reactor = reactor
        self._windows = windows
        self._membership = membership
        self._outboxes = outboxes
        self._ending = ending
        self._access = access
        self._report = report
        self._under_way: dict[Subscriber, int] = {}
        """Subscribers whose piece has not left yet, and how many bytes of it are not shared."""
        self._own = 0
        self._waiting: dict[Subscriber, None] = {}
        """Subscribers that wait for memory, in order of arrival."""
        self.counters = Counters()
        self.read_missing: ReadMissing = lambda missing: None
        self.begin_watching: BeginWatching = lambda subscriber, watches: []

    def may_see(self, identity: Identity) -> Callable[[Message], bool]:
        """Whether a subscriber gets a message: it is for them, and no filter withholds it."""
        if not self._access.filters:
            return lambda message: not message.targeted or identity.may_see(message)
        return lambda message: (
            (not message.targeted or identity.may_see(message)) and self._access.lets_through(message, self._report)
        )

    def proceed(self, subscriber: Subscriber) -> None:
        """Give a subscriber its first or next piece. After the last one it is live on its channels."""
        catch_up = subscriber.catch_up
        if catch_up is None or subscriber in self._under_way or subscriber not in self._membership:
            return
        begins = subscriber.state is Phase.OPENING
        if not self._has_room():
            if begins and subscriber.transport.begins:
                self._put(subscriber, [], None)
            else:
                self._waiting[subscriber] = None
            return
        self._waiting.pop(subscriber, None)
        may_see = self.may_see(subscriber.identity)
        windows = self._windows
        epoch = windows.epoch_for((*subscriber.channels, *catch_up.names))
        piece = catch_up.take(windows.holding, may_see, self._size, epoch, windows.reached)
        if piece.done:
            subscriber.catch_up = None
            # By the windows' own strings: thousands follow the same channel.
            self._membership.join(subscriber, [windows.enter(name).name for name in catch_up.names])
        batch = piece.batch
        if piece.done and catch_up.watches:
            batch = before_status(batch, self.begin_watching(subscriber, catch_up.watches))
        if batch or (begins and subscriber.transport.begins):
            self._put(subscriber, batch, piece.event_id)
        elif not piece.done:
            self._read(subscriber, piece.missing)

    def on_drained(self, subscriber: Subscriber) -> None:
        """The last byte of a piece has left."""
        self._own -= self._under_way.pop(subscriber, 0)
        self.proceed(subscriber)
        self.serve_waiting()

    def forget(self, subscriber: Subscriber) -> None:
        """Forget a disconnected subscriber. May be repeated."""
        subscriber.catch_up = None
        self._waiting.pop(subscriber, None)
        self._own -= self._under_way.pop(subscriber, 0)

    def serve_waiting(self) -> None:
        """Serve waiting subscribers as far as there is memory."""
        while self._waiting and self._has_room():
            subscriber = next(iter(self._waiting))
            del self._waiting[subscriber]
            self.proceed(subscriber)

    def sweep(self) -> None:
        """Disconnect readers that take nothing while others wait for memory."""
        if self._waiting:
            self._outboxes.end_stalled(CROWDED_SECONDS)
            self.serve_waiting()

    def _has_room(self) -> bool:
        return not self._under_way or self._outboxes.has_room(self._own + self._size)

    def _put(self, subscriber: Subscriber, batch: list[Message], event_id: EventId) -> None:
        parts = subscriber.transport.encode_parts(batch_parts(batch), event_id)
        if batch:
            size = sum(map(len, parts))
            self.counters.caught_up(batch, size)
            messages = sum([message.message_id > 0 for message in batch])
            subscriber.messages += messages
            subscriber.bytes += size if messages else 0
        if subscriber.catch_up is not None:
            own = sum(map(len, parts)) - sum([len(message.raw) for message in batch if len(message.raw) > LARGE])
            self._under_way[subscriber] = own
            self._own += own
        subscriber.put_piece(parts)

    def _read(self, subscriber: Subscriber, missing: list[Cursor]) -> None:
        catch_up = subscriber.catch_up
        assert catch_up is not None
        catch_up.readings += 1
        if catch_up.readings > READINGS:
            self._ending.end(subscriber, RESYNC, AWAY_MS)
            return

        def read() -> None:
            try:
                self.read_missing(missing)
            except BaseException as error:  # gevent's timeouts are no Exception
                if not isinstance(error, (BackendUnavailable, BusClosed)):
                    logger.exception("cannot read what a subscriber has missed")
                self._reactor.call_soon(self._ending.end, subscriber, RESYNC, AWAY_MS)
            else:
                self._reactor.call_soon(self.proceed, subscriber)

        self._reactor.spawn(read)
