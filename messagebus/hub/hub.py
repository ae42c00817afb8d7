"""Who listens in this process: channels, their subscribers and windows of newest messages, and dispatch. No HTTP.

The path of a message: ``dispatch`` finds its channel, appends it to the window, encodes it once for each transport in
use there, and puts the bytes out to each subscriber; the reactor writes them when its turn is over.

Catching up without a gap or a duplicate rests on one rule: a channel is entered here *before* its backlog is read
from the store. From then on the window has what is dispatched, the store had what came before, and ``Hub.global_id``,
the last global id that was dispatched, says where the two meet: what was read beyond it is left to the live feed.
"""

from __future__ import annotations

import logging
import random
import threading
from _thread import allocate_lock
from collections.abc import Callable, Iterable, Iterator, Sequence

from ..errors import FEED_LOST, REPLACED, SHUTDOWN, BackendUnavailable, Close
from ..loop.reactor import Reactor
from ..message import Message
from ..options import Options
from ..stores import Backlog, StoreState
from ..transports import Transport, join_batch
from .permissions import Access, ReportError
from .recovery import CatchUp, Cursor, HistoryView, add_due, covers, read_after
from .subscriber import Identity, Phase, Subscriber
from .targets import TargetIndex
from .window import BacklogSnapshot, ChannelWindow

logger = logging.getLogger("messagebus.hub")

LINGER_SECONDS = 60.0
"""How long a channel without subscribers keeps its window, for those who come back."""
SWEEP_SECONDS = 5.0
MAX_IDLE_CHANNELS = 10_000
WAIT_SECONDS = 2.0
"""How long a subscriber that has seen more than this process is kept waiting for the feed."""

ReadBacklog = Callable[[str, int], Backlog]
ReadLastId = Callable[[str], int]


class Hub:
    """See the module. In the reactor's loop only, unless a method says otherwise."""

    def __init__(self, options: Options, reactor: Reactor, capacity: int, access: Access, report: ReportError) -> None:
        """``capacity``: how many subscribers this process may hold. ``report``: told of filters that fail."""
        self.options = options
        self._access = access
        self._report = report
        self.reactor = reactor
        self.capacity = capacity
        self.global_id = 0
        self.epoch: str | None = None
        self.ready = threading.Event()
        self.ending = False
        self.subscribers: set[Subscriber] = set()
        self.draining: set[Subscriber] = set()
        """Those that are over, but for bytes that are still being sent."""
        self._when_empty: Callable[[], object] | None = None
        self._channels: dict[str, ChannelWindow] = {}
        self._waiting: dict[Subscriber, list[tuple[int, Callable[[Subscriber], None]]]] = {}
        self._audience = TargetIndex()
        self._lock = allocate_lock()  # native: never held across anything that could switch greenlets
        self._window_share = options.window_bytes
        self.tick = 0

    # --- from any thread ---

    def is_full(self) -> bool:
        return len(self.subscribers) >= self.capacity

    def read(self, want: Cursor, read_last_id: ReadLastId, read_backlog: ReadBacklog) -> BacklogSnapshot | None:
        """Whatever of a channel's backlog has to be read for ``want``; ``None`` where this process knows enough.

        May block, so never in the loop. However many ask at once, one of them reads; the others wait for it up to
        ``store_timeout``.

        Raises:
            BackendUnavailable: The store gave no answer.
        """
        channel = self.enter(want.name)
        if self.knows(want):
            return None
        with self._lock:
            if channel.reading_lock is None:
                channel.reading_lock = threading.Lock()
        # Where the store does not answer, each of them would wait for its own time after all before it.
        if not channel.reading_lock.acquire(timeout=self.options.store_timeout):
            raise BackendUnavailable(f"the store gave no answer within {self.options.store_timeout:g} s")
        try:
            if self.knows(want):
                return None  # another has read it while this one waited, and the loop has taken it in
            reading = channel.reading
            if reading is None or not covers(reading.view(), want):
                last_id = read_last_id(want.name) if want.position < 0 else want.position
                after = read_after(want, last_id)
                reading = channel.reading = BacklogSnapshot(channel, after, read_backlog(want.name, after))
                if want.position > reading.backlog.last_id:
                    reading = channel.reading = BacklogSnapshot(channel, 0, read_backlog(want.name, 0))
                self.reactor.call_soon(self._absorb, channel, reading)
            return reading
        finally:
            channel.reading_lock.release()

    def knows(self, want: Cursor) -> bool:
        """Whether what is due to ``want`` can be told without the store."""
        channel = self._channels.get(want.name)
        view = channel.view() if channel is not None else None
        return view is not None and covers(view, want)

    def enter(self, name: str) -> ChannelWindow:
        """The channel of that name, which from now on remembers what is dispatched on it."""
        with self._lock:
            channel = self._channels.get(name)
            if channel is None:
                channel = self._channels[name] = ChannelWindow(name, self.global_id)
            channel.touched = self.reactor.clock()
            return channel

    def due_now(
        self, wants: Iterable[Cursor], readings: dict[str, BacklogSnapshot], identity: Identity
    ) -> CatchUp | None:
        """What a poll that is answered at once is due; ``None`` where that was forgotten since ``read``: read again."""
        due = CatchUp()
        for want in wants:
            reading = readings.get(want.name)
            view = reading.view() if reading else self.enter(want.name).view()
            if view is None or (reading is None and not covers(view, want)):
                return None
            self._add(due, view, want, identity)
        return due

    # --- subscribers ---

    def join(
        self, subscriber: Subscriber, wants: Sequence[Cursor], readings: dict[str, BacklogSnapshot]
    ) -> CatchUp | None:
        """Make a subscriber live on channels, and say what it is due before that; ``None`` where the readings have
        grown too old to tell, so that it has to be read again."""
        due = CatchUp()
        channels = []
        for want in wants:
            channel = self.enter(want.name)
            reading = readings.get(want.name)
            if reading is not None:
                if reading.channel is not channel:
                    return None  # forgotten since: what was dispatched after the reading is not in this one's window
                channel.merge(reading, self.global_id)
            view = channel.view()
            if view is None:
                return None
            read = reading.view() if reading is not None else None
            if view.floor > read.floor if read is not None else not covers(view, want):
                return None
            self._add(due, view, want, subscriber.identity)
            self._trim(channel)
            channels.append(channel)
        for channel in channels:
            channel.subscribers.setdefault(subscriber.transport, {})[subscriber] = None
        alone = len(channels) == 1 and not subscriber.channels
        # A tuple takes less memory than a set, and most have one channel.
        subscriber.channels = (channels[0],) if alone else {*subscriber.channels, *channels}
        return due

    def add(self, subscriber: Subscriber) -> bool:
        """Count a subscriber in before it joins anything. ``False`` where it was ended instead: the hub is shutting
        down, or a newer request of the same client is held."""
        if self.ending:
            subscriber.end(SHUTDOWN)
            return False
        if subscriber.sequence is not None:
            held = self._audience.of_client(subscriber.identity.client_id)
            if any(other.sequence is not None and other.sequence > subscriber.sequence for other in held):
                subscriber.end(REPLACED)
                return False
            self.replace(subscriber.identity.client_id, subscriber.sequence + 1)
        self.subscribers.add(subscriber)
        self._audience.add(subscriber)
        return True

    def when_reached(self, global_id: int, subscriber: Subscriber, call: Callable[[Subscriber], None]) -> None:
        """Call when everything up to ``global_id`` has been dispatched, or the wait for it is over."""
        if global_id <= self.global_id:
            call(subscriber)
        else:
            self._waiting.setdefault(subscriber, []).append((global_id, call))
            self.reactor.set_deadline(subscriber.outlet, WAIT_SECONDS)

    def stop_waiting(self, subscriber: Subscriber) -> None:
        for _, call in self._waiting.pop(subscriber, ()):
            if subscriber in self.subscribers:  # the call before may have ended it
                call(subscriber)

    def set_live(self, subscriber: Subscriber) -> None:
        """It has joined its channels: hold its connection, for the interval or with heartbeats."""
        subscriber.state = Phase.LIVE
        options = self.options
        if subscriber.transport.bounded:
            self.reactor.set_deadline(subscriber.outlet, options.long_polling_interval)
        else:
            # The first heartbeat at any moment of the interval: those who came together are not served together for
            # ever.
            self.reactor.set_deadline(subscriber.outlet, options.heartbeat_interval * random.uniform(0.5, 1.0))

    def keep_alive(self, subscriber: Subscriber) -> None:
        """Its deadline has come."""
        if subscriber.transport.bounded:
            subscriber.end(Close(1000, "interval over"))
        else:
            subscriber.put(subscriber.transport.heartbeat)
            self.reactor.set_deadline(subscriber.outlet, self.options.heartbeat_interval)

    def replace(self, client_id: str, sequence: int) -> None:
        """End the held polls of a client that are older than the one that has just been answered."""
        for other in self._audience.of_client(client_id):
            if other.sequence is not None and other.sequence < sequence:
                other.end(REPLACED)

    def drop(self, subscriber: Subscriber, channel: ChannelWindow) -> None:
        """End one of a subscriber's subscriptions."""
        if channel in subscriber.channels:
            subscriber.channels = {other for other in subscriber.channels if other is not channel}
            self._remove(subscriber, channel)

    def leave(self, subscriber: Subscriber) -> None:
        """Deliver nothing more to a subscriber. May be repeated."""
        self._waiting.pop(subscriber, None)
        if subscriber not in self.subscribers:
            return
        self.subscribers.discard(subscriber)
        for channel in subscriber.channels:
            self._remove(subscriber, channel)
        subscriber.channels = ()
        self._audience.remove(subscriber)

    def closed(self, subscriber: Subscriber) -> None:
        """Its connection has ended."""
        self.leave(subscriber)
        self.draining.discard(subscriber)
        if self.ending and not self.draining and self._when_empty is not None:
            self._when_empty()

    def _remove(self, subscriber: Subscriber, channel: ChannelWindow) -> None:
        members = channel.subscribers.get(subscriber.transport)
        if members is not None:
            members.pop(subscriber, None)
            if not members:
                del channel.subscribers[subscriber.transport]
                channel.touched = self.reactor.clock()

    # --- messages ---

    def start(self, state: StoreState) -> None:
        """The store's feed stands. From the feed's thread, before any message."""
        self.global_id, self.epoch = state
        self.reactor.call_soon(self.on_deadline)
        self.ready.set()

    def dispatch(self, messages: Sequence[Message]) -> None:
        """Deliver the feed's next messages. What comes in a row on one channel is one batch to its subscribers."""
        for batch in _runs(messages):
            self.global_id = batch[-1].global_id
            channel = self._channels.get(batch[0].name)
            if channel is None:
                continue
            channel.append(batch, self.options.window_size, self._window_share)
            if not channel.subscribers:
                continue
            if self._access.filters:
                batch = [message for message in batch if self._access.lets_through(message, self._report)]
                if not batch:
                    continue
            if batch[0].targeted:
                self._deliver_targeted(channel, batch)
            else:
                self._deliver(channel, batch)
        if self._waiting:
            for subscriber, waiting in list(self._waiting.items()):
                if all(global_id <= self.global_id for global_id, _ in waiting):
                    self.stop_waiting(subscriber)

    def _deliver(self, channel: ChannelWindow, messages: Sequence[Message]) -> None:
        batch = join_batch(messages)
        global_id = messages[-1].global_id
        # Copies: who came for one batch leaves, and so does who is too slow. Tuples are made faster than lists.
        for transport, members in (*channel.subscribers.items(),):
            data = transport.encode(batch, global_id)
            for subscriber in (*members,):
                if subscriber.head or transport.one_batch:
                    subscriber.put(data)
                else:
                    subscriber.outlet.put(data)  # as ``put`` does, without a call more for each

    def _deliver_targeted(self, channel: ChannelWindow, messages: Sequence[Message]) -> None:
        for message in messages:
            encoded: dict[Transport, bytes] = {}
            for subscriber in self._audience.find(message):
                if channel in subscriber.channels:
                    transport = subscriber.transport
                    data = encoded.get(transport)
                    if data is None:
                        data = encoded[transport] = transport.encode(join_batch([message]), message.global_id)
                    if subscriber.head or transport.one_batch:
                        subscriber.put(data)
                    else:
                        subscriber.outlet.put(data)

    def lost(self, state: StoreState) -> None:
        """What is remembered no longer fits the store: forget it, and have everybody come back with their positions."""
        logger.warning("the store was reset, or messages are lost: %d subscribers are sent back", len(self.subscribers))
        self.global_id, self.epoch = state
        with self._lock:
            self._channels = {}
        self.end_all(FEED_LOST)

    def end_all(self, close: Close) -> None:
        """End every subscriber's connection in order."""
        for subscriber in list(self.subscribers):
            subscriber.end(close)

    def shut_down(self, close: Close, done: Callable[[], object]) -> None:
        """End every subscriber, take no new ones, and call ``done`` when the last byte is sent."""
        self.ending = True
        self._when_empty = done
        self.end_all(close)
        if not self.draining:
            done()

    # --- windows ---

    def _absorb(self, channel: ChannelWindow, reading: BacklogSnapshot) -> None:
        """What one request has read, the next ones need not read."""
        if self._channels.get(channel.name) is channel:
            channel.merge(reading, self.global_id)
            self._trim(channel)
        channel.reading = None

    def _add(self, due: CatchUp, view: HistoryView, want: Cursor, identity: Identity) -> None:
        messages = add_due(due, view, want)
        allowed = [message for message in messages if not message.targeted or identity.may_see(message)]
        if self._access.filters:
            allowed = [message for message in allowed if self._access.lets_through(message, self._report)]
        due.messages += allowed
        if messages and (not allowed or allowed[-1] is not messages[-1]):
            due.positions[want.channel] = messages[-1].message_id

    def _trim(self, channel: ChannelWindow) -> None:
        channel.trim(self.options.window_size, self._window_share)

    def on_deadline(self) -> None:
        """Sweep: drop the channels that nobody has asked for in a while."""
        if self.ending:
            return
        now = self.reactor.clock()
        with self._lock:
            idle = sorted(
                (channel for channel in self._channels.values() if not channel.subscribers),
                key=lambda channel: channel.touched,
            )
            for number, channel in enumerate(idle):
                if channel.touched < now - LINGER_SECONDS or number < len(idle) - MAX_IDLE_CHANNELS:
                    del self._channels[channel.name]
        # Not of all channels: whoever asks for many that are empty must not make the others forget.
        windows = [channel for channel in list(self._channels.values()) if channel.window]
        self._window_share = self.options.window_bytes // max(1, len(windows))
        for channel in windows:
            self._trim(channel)
        self.reactor.set_deadline(self, SWEEP_SECONDS)


def _runs(messages: Sequence[Message]) -> Iterator[list[Message]]:
    """What comes in a row on one channel, and is targeted or is not."""
    channel = site_id = targeted = None
    run: list[Message] = []
    for message in messages:
        is_targeted = message.targeted
        if message.channel != channel or is_targeted is not targeted or message.site_id != site_id:
            if run:
                yield run
            run = []
            channel, site_id, targeted = message.channel, message.site_id, is_targeted
        run.append(message)
    if run:
        yield run
