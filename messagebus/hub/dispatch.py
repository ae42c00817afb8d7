"""The way of a message through the process.

``dispatch`` finds its channel, appends it to the window, encodes it once for each transport in use there, and puts the
bytes out to each follower; the reactor writes them when its turn is over.

Messages that some followers do not get, because they are for others or filtered out, move their positions all the same:
from time to time a status tells them, which is encoded once as well. Otherwise a client that comes back after a
thousand messages for others would get a gap of a thousand.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from .. import tracing
from ..loop.reactor import Reactor
from ..message import Message, status_message
from ..names import split_name
from ..options import Options
from ..transports import Transport, join_batch
from .counters import Counters
from .membership import Followers, Membership, count
from .patterns import PatternMessage
from .permissions import Access, ReportError
from .subscriber import Phase, Subscriber
from .window import ChannelWindow
from .windows import Windows

if TYPE_CHECKING:
    from opentelemetry.trace import Span

STATUS_SECONDS = 1.0
"""Seconds that followers' positions may lag behind messages for others."""
STATUSES_PER_SECOND = 1000
"""Maximum rate of these statuses for a process; channels with more followers get them less often."""


class _Withheld:
    """Messages of a channel that some of its followers did not get."""

    __slots__ = ("count", "since", "told")

    def __init__(self, told: int) -> None:
        self.told = told
        """Every follower knows its position up to this message."""
        self.count = 0
        self.since = 0.0
        """When the first unreported one came; 0: there is none."""


class Dispatcher:
    """See the module. In the reactor's loop only."""

    def __init__(
        self,
        options: Options,
        reactor: Reactor,
        windows: Windows,
        membership: Membership,
        access: Access,
        report: ReportError,
    ) -> None:
        """``report``: called when a filter fails."""
        self._reactor = reactor
        self._clock = reactor.clock
        self._windows = windows
        self._followers = membership.followers
        self._find = membership.find
        self._of_client = membership.of_client
        self._given = membership.given
        self._access = access
        self._report = report
        self.counters = Counters()
        self.sent: Callable[[tuple[float, str, int, int]], object] | None = None
        """See ``Trail.sent``."""
        self._window_size = options.window_size
        self.went_back: Callable[[str, int | None], object] = lambda name, last_id: None
        """Called where a message came with an id that its channel had passed. With the last id where that may only be
        known from a reading, and the message be late; with ``None`` where it was dispatched."""
        self._withheld: dict[str, _Withheld] = {}
        # Often enough that what the store keeps cannot pass the followers by.
        self._most_withheld = max(1, min(options.max_backlog_size, options.window_size) // 4)
        self._most_passed = max(1, options.max_global_backlog_size // 4)
        self._statuses = float(STATUSES_PER_SECOND)  # that may be sent now
        self._counted_at = reactor.clock()
        self._tracing = options.tracing
        self._traces = False
        self._spans: list[Span] = []
        self.tick = 0

    def dispatch(self, messages: Sequence[Message]) -> None:
        """Deliver the feed's next messages. Consecutive messages of a channel are one batch to its followers."""
        self.counters.dispatched += len(messages)
        self._traces = self._tracing and tracing.is_on()
        sent = self.sent
        now, windows = self._clock(), self._windows
        reached = windows.reached
        partition = messages[-1].global_id % len(reached) if messages else 0
        find, followers_of, filters, share = windows.find, self._followers, self._access.filters, windows.share
        patterns = windows.patterns
        for batch, targeted in _runs(messages):
            first, last = batch[0], batch[-1]
            reached[partition] = last.global_id
            name = first.channel if first.site_id is None else first.name
            if patterns:
                self._dispatch_to_patterns(batch, targeted, now)
            window = find(name)
            if window is None:
                continue
            first_id, state = first.message_id, window.state
            begins_again = window.is_over or last.message_id - first_id < len(batch) - 1
            if begins_again or (state is not None and first_id <= state.last_id):
                # Nobody is told before the store has another epoch; nor of what comes with ids above the former ones.
                if begins_again or (
                    state is not None and state.end and first_id <= state.log[state.end - 1].message_id
                ):
                    window.is_over = True
                    self.went_back(name, None)
                    continue
                assert state is not None
                self.went_back(name, state.last_id)
            windows.size += window.append(batch, now, self._window_size, share)
            followers = followers_of(name)
            if followers is None:
                continue
            if sent is not None:
                sent((now, name, first_id, last.message_id))
            delivered = batch
            if filters:
                delivered = [message for message in batch if self._access.lets_through(message, self._report)]
            if self._traces:
                self._deliver_traced(name, followers, delivered, targeted)
            elif targeted:
                self._deliver_targeted(name, followers, delivered)
            elif delivered:
                self._deliver(name, followers, delivered)
            if targeted or len(delivered) < len(batch):
                self._withhold(name, window, batch, now)

    def _dispatch_to_patterns(self, batch: Sequence[Message], targeted: bool, now: float) -> None:
        """Deliver a run of one channel to those who follow it by a pattern; the others stand after it all the same."""
        windows, filters = self._windows, self._access.filters
        for name, pattern in (*windows.patterns.items(),):
            window = windows.find(name)
            if window is None:
                continue
            followers = self._followers(name)
            if not pattern.matches(batch[0]):
                window.pass_by(batch[-1].global_id)
                if followers is not None:
                    self._pass_by(name, batch, now)
                continue
            if filters and followers is not None:
                for message in batch:  # once, whoever follows it
                    self._access.lets_through(message, self._report)
            whole: list[Message] = [PatternMessage.of(message) for message in batch]
            windows.size += window.append(whole, now, self._window_size, windows.share)
            if followers is None:
                continue
            delivered = [message for message in whole if message.kept] if filters else whole
            if self._traces:
                self._deliver_traced(name, followers, delivered, targeted)
            elif targeted:
                self._deliver_targeted(name, followers, delivered)
            elif delivered:
                self._deliver(name, followers, delivered)
            if targeted or len(delivered) < len(whole):
                self._withhold(name, window, whole, now)

    def _pass_by(self, name: str, batch: Sequence[Message], now: float) -> None:
        """Messages that are none of a pattern's: its followers are told of them before the store's global backlog, from
        which they come back, has passed them by."""
        held = self._withheld.get(name)
        if held is None:
            held = self._withheld[name] = _Withheld(batch[0].global_id - 1)
        held.count += len(batch)
        if held.count >= self._most_passed:
            self._tell(name, held, now)

    def _deliver(self, name: str, followers: Followers, messages: Sequence[Message]) -> None:
        counters, count, given = self.counters, len(messages), self._given[name]
        batch, global_id = join_batch(messages), messages[-1].global_id
        given.messages += count
        sizes = given.bytes
        # Copies: a subscriber leaves after its one batch, or when it is too slow. Tuples are made faster than lists.
        for transport, members in (*followers.items(),):
            data = transport.encode(batch, global_id)
            size = len(data)
            sizes[transport] = sizes.get(transport, 0) + size
            counters.delivered += len(members) * count
            counters.bytes += len(members) * size
            if transport.one_batch:
                for subscriber in (*members,):
                    self.answer(subscriber, name, messages, data)
                continue
            for subscriber in (*members,):
                if subscriber.head:
                    subscriber.put(data)
                else:
                    subscriber.writer.put(data)  # as ``put`` does, without a call more for each

    def _deliver_but(self, name: str, followers: Followers, message: Message) -> None:
        """Deliver a message to everybody but the clients that it excludes."""
        counters, given = self.counters, self._given[name]
        clients = message.exclude_client_ids or ()
        excluded = {subscriber for client_id in clients for subscriber in self._of_client(client_id)}
        batch = join_batch([message])
        given.messages += 1
        for transport, members in (*followers.items(),):
            data = transport.encode(batch, message.global_id)
            given.bytes[transport] = given.bytes.get(transport, 0) + len(data)
            to = [member for member in members if member not in excluded]
            counters.delivered += len(to)
            counters.bytes += len(to) * len(data)
            for subscriber in excluded:
                if subscriber in members:
                    subscriber.messages -= 1
                    subscriber.bytes -= len(data)
            for subscriber in to:
                if transport.one_batch:
                    self.answer(subscriber, name, (message,), data)
                else:
                    subscriber.put(data)

    def _deliver_targeted(self, name: str, followers: Followers, messages: Iterable[Message]) -> None:
        counters = self.counters
        for message in messages:
            encoded: dict[Transport, bytes] = {}
            if message.user_ids is message.group_ids is message.client_ids is None:
                self._deliver_but(name, followers, message)
                continue
            for subscriber in self._find(message):
                if name in subscriber.channels:
                    transport = subscriber.transport
                    data = encoded.get(transport)
                    if data is None:
                        data = encoded[transport] = transport.encode(join_batch([message]), message.global_id)
                    counters.delivered += 1
                    counters.bytes += len(data)
                    subscriber.messages += 1
                    subscriber.bytes += len(data)
                    if transport.one_batch:
                        self.answer(subscriber, name, (message,), data)
                    elif subscriber.head:
                        subscriber.put(data)
                    else:
                        subscriber.writer.put(data)

    def _deliver_traced(self, name: str, followers: Followers, messages: Sequence[Message], targeted: bool) -> None:
        """The same with spans. Here and not in the two above, which are as fast as if there were none."""
        deliver = self._deliver_targeted if targeted else self._deliver
        runs = [[message] for message in messages] if targeted else [messages] if messages else []
        for run in runs:
            before, began = self.counters.delivered, time.time_ns()
            deliver(name, followers, run)
            if (delivered := self.counters.delivered - before) > 0:
                if not self._spans:
                    self._reactor.call_soon(self._end_spans)  # in the next turn: this one ends with the writing
                self._spans += tracing.begin_deliveries(run, delivered // len(run), began)

    def _end_spans(self) -> None:
        spans, self._spans = self._spans, []
        tracing.end(spans)

    def answer(self, subscriber: Subscriber, name: str, messages: Sequence[Message], data: bytes) -> None:
        """End a poll with its batch, and with the positions of its other channels."""
        if self._withheld and len(subscriber.channels) > 1:
            positions = self.positions(other for other in subscriber.channels if other != name)
            if positions:
                epoch = self._windows.epoch_for(subscriber.channels)
                batch = join_batch([*messages, status_message(positions, epoch)])
                data = subscriber.transport.encode(batch, messages[-1].global_id)
        subscriber.put(data)

    def tell(self, name: str, message: Message) -> None:
        """Deliver what did not come with the feed, and has no place among its messages."""
        batch = join_batch([message])
        for transport, members in (*(self._followers(name) or {}).items(),):
            data = transport.encode(batch, None)
            self.counters.delivered += len(members)
            self.counters.bytes += len(members) * len(data)
            for subscriber in (*members,):
                if transport.one_batch:
                    self.answer(subscriber, name, (message,), data)
                else:
                    subscriber.put(data)

    # --- positions of those who did not get a message ---

    def positions(self, names: Iterable[str]) -> dict[str, int]:
        """The positions of a follower on those channels where messages may have been withheld from it."""
        found = {}
        for name in names:
            if name in self._withheld:
                window = self._windows.find(name)
                if window is not None and window.state is not None:
                    found[split_name(name)[0]] = window.state.last_id
        return found

    def positions_of(self, subscriber: Subscriber) -> dict[str, int]:
        """As ``positions``, on the channels that a subscriber is live on."""
        return self.positions(subscriber.channels) if self._withheld else {}

    def tell_epoch(self, subscribers: Iterable[Subscriber]) -> None:
        """Tell those of the subscribers that know epochs, and have begun, the store's. It ends polls."""
        encoded: dict[tuple[Transport, str | None], bytes] = {}
        for subscriber in list(subscribers):
            if subscriber.knows_epoch and subscriber.state is Phase.OPEN:
                key = subscriber.transport, self._windows.epoch_for(subscriber.followed)
                data = encoded.get(key)
                if data is None:
                    batch = join_batch([status_message({}, key[1])])
                    data = encoded[key] = subscriber.transport.encode(batch, None)
                subscriber.put(data)

    def last_status(self, subscriber: Subscriber) -> bytes:
        """What a poll or stream has to be told when its time is over, as its transport sends it; empty: nothing."""
        positions = self.positions_of(subscriber)
        if not positions:
            return b""
        windows, channels = self._windows, subscriber.channels
        batch = join_batch([status_message(positions, windows.epoch_for(channels))])
        return subscriber.transport.encode(batch, windows.reached_for(channels))

    def forget(self, is_over: Callable[[str], bool]) -> None:
        """Forget what was withheld on channels of which that is said."""
        for name in list(filter(is_over, self._withheld)):
            del self._withheld[name]

    def _withhold(self, name: str, window: ChannelWindow, batch: Sequence[Message], now: float) -> None:
        held = self._withheld.get(name)
        if held is None:
            held = self._withheld[name] = _Withheld(batch[0].message_id - 1)
        held.count += len(batch)
        if not held.since:
            held.since = now
            if not self.tick:
                self._reactor.set_deadline(self, STATUS_SECONDS)
        state = window.state
        # Before this process forgets what was withheld, or the store does.
        is_forgotten = state is not None and state.floor > held.told
        if held.count >= self._most_withheld or is_forgotten:
            self._tell(name, held, now, polls=is_forgotten)

    def on_deadline(self) -> None:
        """Tell the followers of those channels where something was withheld a while ago."""
        now = self._clock()
        for name, held in list(self._withheld.items()):
            if held.since and held.since <= now - STATUS_SECONDS * 0.9:
                self._tell(name, held, now)
        if any(held.since for held in self._withheld.values()):
            self._reactor.set_deadline(self, STATUS_SECONDS)

    def _tell(self, name: str, held: _Withheld, now: float, polls: bool = False) -> None:
        """Tell a channel's followers that they are up to date. ``polls``: also held polls, which the status would
        answer; otherwise their answer tells them."""
        followers = self._followers(name) or {}
        number = count(followers)
        most = float(max(STATUSES_PER_SECOND, number))
        self._statuses = min(most, self._statuses + (now - self._counted_at) * STATUSES_PER_SECOND)
        self._counted_at = now
        if number > self._statuses:
            return
        self._statuses -= number
        positions = self.positions((name,))
        if not positions:
            return
        [held.told] = positions.values()
        held.count, held.since = 0, 0.0
        # Of several partitions each follower would have to be told those of its own channels.
        epoch = self._windows.epochs[0] if self._windows.partitions == 1 else None
        batch = join_batch([status_message(positions, epoch)])
        for transport, members in (*followers.items(),):
            if polls or not transport.one_batch:
                data = transport.encode(batch, self._windows.reached_for((name,)))
                for subscriber in (*members,):
                    subscriber.put(data)


def _runs(messages: Sequence[Message]) -> Iterator[tuple[list[Message], bool]]:
    """Runs of consecutive messages on one channel, and whether they are targeted."""
    channel = site_id = None
    targeted = False
    run: list[Message] = []
    for message in messages:
        # What ``message.targeted`` says, without a call for each.
        is_targeted = not (
            message.user_ids is message.group_ids is message.client_ids is message.exclude_client_ids is None
        )
        if message.channel != channel or is_targeted is not targeted or message.site_id != site_id:
            if run:
                yield run, targeted
            run = []
            channel, site_id, targeted = message.channel, message.site_id, is_targeted
        run.append(message)
    if run:
        yield run, targeted
