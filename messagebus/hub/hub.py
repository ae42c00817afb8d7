"""The subscribers of this process, from their registration until their connection has ended. No HTTP.

``membership`` has the channels that they follow, ``windows`` the messages that the process remembers. ``due`` tells
what a subscriber has missed, ``pacing`` delivers it, and ``dispatch`` delivers what is new.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from weakref import WeakValueDictionary

from ..errors import REPLACED, RESYNC, SHUTDOWN, SLOW, Close
from ..limit_counts import LimitCounts
from ..loop.outboxes import Outboxes
from ..loop.reactor import Reactor
from ..message import Message
from ..names import is_presence
from ..options import Options
from ..presence.member import Member
from ..stores import StoreState
from ..transports import Transport
from ..transports.event_ids import Spread
from .attendance import Attendance
from .dispatch import Dispatcher
from .due import Due
from .ended import Ended
from .ending import Ending
from .epochs import Epochs
from .feed_wait import FeedWait
from .former import Former
from .membership import Membership
from .moving import Moving
from .orders import HeardOrders
from .pacing import Pacer
from .permissions import Access, ReportError
from .subscribe_request import SubscribeRequest
from .subscriber import Phase, Subscriber
from .trail import Trail
from .transients import Transients
from .window import ChannelWindow
from .windows import Windows

logger = logging.getLogger("messagebus.hub")

SWEEP_SECONDS = 5.0
DRAIN_SECONDS = 10.0
"""Seconds that an ending connection may take nothing of its last bytes."""


class Hub:
    """See the module. In the reactor's loop only, unless a method says otherwise."""

    def __init__(
        self,
        options: Options,
        reactor: Reactor,
        capacity: int,
        access: Access,
        report: ReportError,
        partitions: int = 1,
    ) -> None:
        """``capacity``: how many subscribers this process may hold. ``report``: called when a filter fails.
        ``partitions``: of the store."""
        self.options = options
        self.reactor = reactor
        self.capacity = capacity
        self.started = [threading.Event() for _ in range(partitions)]
        """Which partitions' feeds have been connected."""
        self.ready = threading.Event() if partitions > 1 else self.started[0]
        """All of them have."""
        self.is_shutting_down = False
        self.windows = Windows(options, reactor.clock, partitions)
        self.membership = Membership()
        self.refused = LimitCounts()
        """What clients were refused, or cut off for."""
        self.outboxes = Outboxes(options.max_outbox_total, reactor.clock, self.refused)
        self.dispatcher = Dispatcher(options, reactor, self.windows, self.membership, access, report)
        self.counters = self.dispatcher.counters
        self.trail = Trail(options.trail_size, reactor.clock, self.membership)
        self.dispatcher.sent = self.trail.sent
        self.endings = Ending(reactor, self.dispatcher)
        self.added: Callable[[Subscriber], object] | None = None
        """Called with each new subscriber, by who wants to know."""
        self.orders = HeardOrders(reactor.clock)
        self._moving = Moving(reactor, self.membership, self.endings)
        self.pacer = Pacer(options, reactor, self.windows, self.membership, self.outboxes, self.endings, access, report)
        self.pacer.counters = self.counters
        self.due = Due(options, self.windows, self.membership, self.pacer, self.trail, self.counters)
        self.feed_wait = FeedWait(self.windows, self.membership, reactor)
        self.transients = Transients(
            self.windows, self.membership, access, report, self.counters, self.dispatcher.answer
        )
        self.attendance = Attendance(
            reactor.clock, options.presence_grace, options.presence_max_members, self.membership, access.presence
        )
        self.pacer.begin_watching = self.attendance.begin
        self.draining: set[Subscriber] = set()
        """Subscribers that have ended, but whose last bytes are still being sent."""
        self.recheck: Callable[[Subscriber, SubscribeRequest], object] = lambda subscriber, request: None
        """Told of each subscriber that has joined channels which it may not have for ever."""
        self.on_ended: Callable[[Ended], object] | None = None
        """Told of each connection that was to stay open, when it has ended. Must not block for long."""
        self._when_empty: Callable[[], object] | None = None
        self._spread: WeakValueDictionary[tuple[Transport, tuple[int, ...]], Transport] = WeakValueDictionary()
        self.tick = 0

    # --- from any thread ---

    @property
    def epochs(self) -> Epochs:
        """Those of the store's partitions."""
        return self.windows.epochs

    @property
    def is_ending(self) -> bool:
        """Whether its clients are on their way elsewhere. It may still serve who comes."""
        return self.is_shutting_down or self._moving.has_begun

    def is_full(self) -> bool:
        return len(self.membership) >= self.capacity

    # --- subscribers ---

    def spread(self, transport: Transport, names: Sequence[str]) -> Transport:
        """The same transport for a subscriber with these channels: another one where its event ids have to say how far
        it is in several partitions."""
        if self.windows.partitions == 1:
            return transport
        partitions = tuple(sorted(self.windows.partitions_of(names)))
        if len(partitions) < 2:
            return transport
        found = self._spread.get((transport, partitions))
        if found is None:
            found = self._spread[transport, partitions] = transport.spread(Spread(partitions, self.windows.reached))
        return found

    def add(self, subscriber: Subscriber) -> bool:
        """Register a subscriber before it joins any channel. ``False`` if it was ended instead: the hub is shutting
        down, or a newer request of the same client is held."""
        subscriber.since = self.reactor.clock()
        if self.is_shutting_down:
            self.endings.end(subscriber, SHUTDOWN)
            return False
        if subscriber.sequence is not None:
            held = self.membership.of_client(subscriber.identity.client_id)
            if any(other.sequence is not None and other.sequence > subscriber.sequence for other in held):
                subscriber.end(REPLACED)
                return False
            self.replace(subscriber.identity.client_id, subscriber.sequence + 1)
        self.membership.add(subscriber)
        if self.added is not None:
            self.added(subscriber)
        return True

    def attend(self, subscriber: Subscriber, watches: Mapping[str, int], members: Mapping[str, Member]) -> None:
        """A subscriber that catches up is a member of the rooms of these channels, and watches those rooms once it is
        live."""
        if members:
            self.attendance.enter(subscriber, members)
        catch_up = subscriber.catch_up
        if watches and catch_up is not None:
            for name in watches:
                self.membership.leave(subscriber, name)
            catch_up.watches |= watches

    def hold_open(self, subscriber: Subscriber) -> None:
        """The response has begun: hold the connection, for the interval or with heartbeats."""
        subscriber.state = Phase.OPEN
        options = self.options
        if subscriber.transport.bounded:
            self.reactor.set_deadline(subscriber.writer, options.long_polling_interval)
        else:
            # The first heartbeat at any moment of the interval: those who came together are not served together for
            # ever.
            self.reactor.set_deadline(subscriber.writer, options.heartbeat_interval * random.uniform(0.5, 1.0))
        self._moving.tell(subscriber)

    def replace(self, client_id: str, sequence: int) -> None:
        """End the held polls of a client that are older than the one that has just been answered."""
        for other in self.membership.of_client(client_id):
            if other.sequence is not None and other.sequence < sequence:
                other.end(REPLACED)

    def drop(self, subscriber: Subscriber, name: str) -> None:
        """End one of a subscriber's subscriptions."""
        if subscriber.catch_up is not None:
            subscriber.catch_up.drop(name)
        self.attendance.leave(subscriber, name)
        if self.membership.leave(subscriber, name) and not is_presence(name):
            self.windows.enter(name)  # for those who come back

    def end_all(self, close: Close) -> None:
        """Close every subscriber's connection cleanly."""
        self.endings.end_at_once(self.membership.all(), close)

    def shut_down(self, close: Close, done: Callable[[], object], seconds: float = 0) -> None:
        """Close every subscriber's connection, accept no new ones, and call ``done`` when the last byte is sent.
        ``seconds``: within which they are to move elsewhere; until they do they are served, and so is who comes."""
        self._when_empty = done
        if seconds:
            self._moving.begin(close, seconds)
        else:
            self.is_shutting_down = True
            self.end_all(close)
        if self._is_empty():
            done()

    def _is_empty(self) -> bool:
        return not self.draining and not len(self.membership)

    # --- what subscribers tell ---

    def ends(self, subscriber: Subscriber, close: Close) -> None:
        self.trail.ends(subscriber, close.reason)

    def retire(self, subscriber: Subscriber) -> None:
        self._end_delivery(subscriber)
        self.draining.add(subscriber)
        self.reactor.set_deadline(subscriber.writer, DRAIN_SECONDS)

    def on_deadline_of(self, subscriber: Subscriber) -> None:
        was = subscriber.state
        if was is Phase.CLOSING:
            # The last bytes may be many, and the line slow.
            if self.outboxes.is_moving(subscriber.writer, DRAIN_SECONDS):
                self.reactor.set_deadline(subscriber.writer, DRAIN_SECONDS)
            else:
                subscriber.writer.abort()
            return
        self.feed_wait.end(subscriber)
        if was is not Phase.OPEN or subscriber.state is not Phase.OPEN:
            return
        if subscriber.transport.bounded:
            last = self.dispatcher.last_status(subscriber)
            if last:
                subscriber.put(last)
            subscriber.end(Close(1000, "interval over"))
        else:
            subscriber.put(subscriber.transport.heartbeat)
            self.reactor.set_deadline(subscriber.writer, self.options.heartbeat_interval)

    def on_slow(self, subscriber: Subscriber) -> None:
        self.refused.count("max_outbox")
        self.counters.slow += 1
        self.endings.end(subscriber, SLOW)

    def on_drained(self, subscriber: Subscriber) -> None:
        self.pacer.on_drained(subscriber)
        self.transients.on_drained(subscriber)

    def closed(self, subscriber: Subscriber) -> None:
        self._end_delivery(subscriber)
        self.draining.discard(subscriber)
        transport = subscriber.transport
        if self.on_ended is not None and not transport.one_batch and not transport.is_part:
            self.on_ended(Ended.of(subscriber, self.reactor.clock()))
        if self._when_empty is not None and self._is_empty():
            self._when_empty()

    def _end_delivery(self, subscriber: Subscriber) -> None:
        """Deliver nothing more to a subscriber. May be repeated."""
        self.feed_wait.forget(subscriber)
        if subscriber.standing is not None:
            self.reactor.clear_deadline(subscriber.standing)
            subscriber.standing = None
        self.trail.ends(subscriber, "answered" if subscriber.transport.one_batch else "the connection ended")
        self.pacer.forget(subscriber)
        self.transients.forget(subscriber)
        self.attendance.end(subscriber)
        now = self.reactor.clock()
        for name in subscriber.channels:
            window = self.windows.find(name)
            if window is not None:
                window.touched = now  # it stays a while for those who come back
        self.membership.remove(subscriber)

    # --- the feed ---

    def start(self, state: StoreState) -> None:
        """The feed of a partition is connected. Called from the feed's thread, before any message."""
        partition = self._take_state(state)
        self.reactor.call_soon(self.on_deadline)
        self.started[partition].set()
        if all(each.is_set() for each in self.started):
            self.ready.set()

    def _take_state(self, state: StoreState) -> int:
        """Returns the partition of the state."""
        reached = self.windows.reached
        partition = state.global_id % len(reached)
        reached[partition] = state.global_id
        self.epochs.begin_life(partition, state)
        return partition

    def dispatch(self, messages: Sequence[Message]) -> None:
        """Deliver the feed's next messages, and let in the subscribers that waited for them."""
        self.dispatcher.dispatch(messages)
        self.feed_wait.proceed()

    def caught_up(self, global_id: int, windows: Iterable[ChannelWindow], read_from: float) -> None:
        """Everything up to a global id has been dispatched, of the channels that the feed brings of its partition;
        these windows' are among them from now on. See :meth:`Windows.hear`."""
        reached = self.windows.reached
        reached[global_id % len(reached)] = global_id
        self.windows.hear(windows, global_id, read_from)
        self.feed_wait.proceed()

    def renewed(self, state: StoreState) -> None:
        """A partition has another epoch, which has all that this process has delivered. Clients that know epochs go on
        and learn its name, before they are given anything that only this one has."""
        partition = state.global_id % self.windows.partitions
        self.epochs.begin_life(partition, state)
        everybody = self.membership.all()
        if self.windows.partitions > 1:
            everybody = [each for each in everybody if partition in self.windows.partitions_of(each.followed)]
        self.dispatcher.tell_epoch(everybody)

    def resync(self, state: StoreState) -> None:
        """What the process remembers of a partition no longer fits the store: forget it, and let all clients with a
        channel there come back with their positions."""
        windows, alone = self.windows, self.windows.partitions == 1
        former = Former.of(windows, state)
        partition = self._take_state(state)
        readers = [subscriber for subscriber in self.membership.all() if subscriber.reads]
        if not alone:
            theirs = [each for each in readers if partition in windows.partitions_of(each.followed)]
            for subscriber in {*readers} - {*theirs}:
                subscriber.outdated |= {partition}
            readers = theirs
        logger.warning(
            "the store was reset, or messages are lost%s: disconnecting %d subscribers",
            "" if alone else f", in partition {partition}",
            len(readers),
        )
        former.tell_where_to_go_on(readers)
        windows.forget_all(partition)
        self.dispatcher.forget(lambda name: windows.partition_of(name) == partition)
        for subscriber in readers:
            self._end_delivery(subscriber)  # what comes from now on is not what they can go on with
        self.endings.end_by_and_by(readers, RESYNC)

    def on_deadline(self) -> None:
        """Sweep: drop windows that nobody has asked for in a while, and connections that take nothing."""
        if self.is_shutting_down and not self.membership:
            return
        self.outboxes.end_stalled(self.options.write_timeout)
        self.pacer.sweep()
        self.orders.forget()
        self.windows.sweep(self.membership.is_followed)
        self.dispatcher.forget(lambda name: not self.membership.is_followed(name))
        self.reactor.set_deadline(self, min(SWEEP_SECONDS, self.options.write_timeout / 2))
