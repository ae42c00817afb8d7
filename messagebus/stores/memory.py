"""The store of one process: the reference of the contract, without I/O.

It expires data as the Redis store does: a channel's backlog after ``max_backlog_age`` without a publish, the channel
itself after ``ids_age``. The global backlog holds pointers into the channels' backlogs, so a message that a channel
drops is gone there as well.
"""

from __future__ import annotations

import heapq
import math
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice
from typing import NamedTuple

from ..errors import BusClosed, PublishRefused
from ..message import Ids, Message, decode_message
from ..options import Options
from .base import (
    REMEMBERED,
    REPORT_LEASE,
    BacklogPage,
    BacklogQuery,
    ChannelPage,
    Listener,
    Publication,
    PublicationId,
    Store,
    StoreState,
    ids_age,
)
from .interest import Interest

FORGOTTEN = 1 << 16
"""Number of groups in which forgotten channels are remembered, each with the highest id of its channels. A channel that
comes back continues above that; so does a new channel of the group."""
MAX_REMEMBERED = 100_000
"""Maximum number of remembered publications; with more of them within ``REMEMBERED`` seconds, the oldest are
forgotten."""


class _Log:
    __slots__ = ("backlog_until", "ids_until", "last_id", "messages")

    def __init__(self) -> None:
        self.messages: deque[Message] = deque()  # their ids follow each other; the newest is last_id
        self.last_id = 0
        self.backlog_until = 0.0
        self.ids_until = 0.0

    def find(self, message_id: int) -> Message | None:
        index = message_id - self.last_id + len(self.messages) - 1
        return self.messages[index] if 0 <= index < len(self.messages) else None


class _Known(NamedTuple):
    """A remembered publication."""

    sequence: int
    ids: tuple[Ids, ...]
    until: float


class MemoryFeed:
    def __init__(self, store: MemoryStore, listener: Listener) -> None:
        self._store = store
        self.listener = listener

    def close(self) -> None:
        self._store._remove(self)


class MemoryStore(Store):
    """Keeps messages in this process; a forked child continues with its own copy.

    ``clock`` is monotonic, in seconds. ``publish`` itself calls the listeners, under the lock, so they get the messages
    in the order of their ids."""

    shared = False

    def __init__(self, options: Options, clock: Callable[[], float] = time.monotonic) -> None:
        self._options = options
        self._clock = clock
        # It does not matter whether gevent has patched the process before: nothing waits under the lock, so no greenlet
        # ever finds it taken. Reentrant, so that a signal handler may close the bus at any point.
        self._lock = threading.RLock()
        self._feeds: tuple[MemoryFeed, ...] = ()
        self._publishing = False
        self._closed = False
        self._published, self._was_read = 0, False
        self._forget()

    def _forget(self) -> None:
        self._channels: dict[str, _Log] = {}
        self._expiries: list[tuple[float, str]] = []  # a heap with exactly one entry for each channel
        self._forgotten: dict[int, int] = {}  # group -> highest id
        self._global: deque[tuple[int, str, int]] = deque()  # global_id, name, message_id; global ids without holes
        self._global_until = 0.0
        self._global_id = 0
        self._epoch: str | None = None
        self._publications: dict[str, _Known] = {}  # by record, in the order in which they are forgotten
        self._reports: dict[str, tuple[float, str]] = {}  # worker -> until, report

    def publish_many(self, messages: Sequence[Publication], publication_id: PublicationId | None = None) -> list[Ids]:
        with self._lock:
            self._check_open()
            if self._publishing:
                raise RuntimeError("a listener, or a signal handler that cut into a publish, must not publish")
            known = self._publications.get(publication_id.record) if publication_id else None
            if publication_id and known and known.until > self._clock():
                if known.sequence == publication_id.sequence:
                    return list(known.ids)
                if known.sequence > publication_id.sequence:
                    raise PublishRefused("the same publisher has published something later already")
            # Before anything changes: it raises for what is no envelope.
            codec = self._options.transport_codec
            decoded = [decode_message(0, 0, name, envelope, codec) for name, envelope, _, _ in messages]
            self._publishing = True
            try:
                for message, (name, _, size, age) in zip(decoded, messages, strict=True):
                    self._keep(message, name, size, age)
                ids = [Ids(message.message_id, message.global_id) for message in decoded]
                self._published += len(ids)
                if publication_id is not None:
                    self._remember(publication_id, ids)
                if decoded:
                    for feed in self._feeds:
                        feed.listener.received(decoded)
            finally:
                self._publishing = False
            return ids

    def _remember(self, publication_id: PublicationId, ids: list[Ids]) -> None:
        publications = self._publications
        now = self._clock()
        publications.pop(publication_id.record, None)  # so that the one that is forgotten next stands first
        publications[publication_id.record] = _Known(publication_id.sequence, tuple(ids), now + REMEMBERED)
        oldest = next(iter(publications))
        while len(publications) > MAX_REMEMBERED or publications[oldest].until <= now:
            del publications[oldest]
            oldest = next(iter(publications))

    def _keep(self, message: Message, name: str, size: int, age: int) -> None:
        now = self._clock()
        self._expire(now)
        channel = self._live(name, now)
        if channel is None:
            channel = self._channels[name] = _Log()
            channel.last_id = self._forgotten.get(hash(name) % FORGOTTEN, 0)
            heapq.heappush(self._expiries, (now + age, name))
        self._global_id += 1
        self._named_state()
        channel.last_id += 1
        message.global_id, message.message_id = self._global_id, channel.last_id
        channel.backlog_until = now + age
        channel.ids_until = now + ids_age(age)
        channel.messages.append(message)
        if channel.last_id % self._options.clear_every == 0:
            while len(channel.messages) > size:
                channel.messages.popleft()
        # Longer at most: one channel with a short age must not take the others' pointers with it.
        self._global_until = max(self._global_until, now + age)
        self._global.append((self._global_id, name, channel.last_id))
        if self._global_id % self._options.clear_every == 0:
            while len(self._global) > self._options.max_global_backlog_size:
                self._global.popleft()

    def _live(self, name: str, now: float) -> _Log | None:
        """The channel without its expired messages. (Its ids continue until it is swept.)"""
        channel = self._channels.get(name)
        if channel is not None and channel.backlog_until <= now:
            channel.messages.clear()
        return channel

    def _expire(self, now: float) -> None:
        """Drop what has expired of up to two channels. Each publish adds one channel at most, so expired ones cannot
        pile up."""
        if self._global_until <= now:
            self._global.clear()
        for _ in range(2):
            if not self._expiries or self._expiries[0][0] > now:
                return
            name = self._expiries[0][1]
            channel = self._channels[name]
            if channel.ids_until <= now:
                heapq.heappop(self._expiries)
                del self._channels[name]
                group = hash(name) % FORGOTTEN
                self._forgotten[group] = max(channel.last_id, self._forgotten.get(group, 0))
                continue
            if channel.backlog_until <= now:
                channel.messages.clear()
            due = channel.ids_until if channel.backlog_until <= now else channel.backlog_until
            heapq.heapreplace(self._expiries, (due, name))

    def backlogs(self, queries: Sequence[BacklogQuery], max_bytes: int) -> list[BacklogPage]:
        with self._lock:
            self._was_read = True
            self._check_open()
            now = self._clock()
            return [self._page(self._live(query.name, now), query.after, max_bytes, now) for query in queries]

    def _page(self, channel: _Log | None, after: int, max_bytes: int, now: float) -> BacklogPage:
        if channel is None:
            return BacklogPage([], max(after, 0), 0, 0, 1)
        last_id, first_id = channel.last_id, channel.last_id - len(channel.messages) + 1
        after = max(last_id + after, 0) if after < 0 else after
        messages: list[Message] = []
        size = 0
        for message in islice(channel.messages, max(0, after - first_id + 1), None):
            messages.append(message)
            size += len(message.raw)
            if size >= max_bytes:
                break
        through = messages[-1].message_id if messages else last_id
        expires_in = channel.backlog_until - now if channel.messages else math.inf
        return BacklogPage(messages, after, through, last_id, first_id, expires_in)

    def last_ids(self, names: Sequence[str]) -> list[int]:
        with self._lock:
            self._check_open()
            now = self._clock()
            channels = [self._live(name, now) for name in names]
            return [channel.last_id if channel else 0 for channel in channels]

    def global_backlog(self, after: int = 0) -> list[Message]:
        with self._lock:
            self._was_read = True
            self._check_open()
            now = self._clock()
            if self._global_until <= now:
                return []
            # Global ids follow each other here, too.
            skipped = max(0, after - (self._global_id - len(self._global)))
            found = []
            for global_id, name, message_id in islice(self._global, skipped, None):
                channel = self._live(name, now)
                message = channel.find(message_id) if channel else None
                # The id is another message's where the channel's ids have begun again.
                if message is not None and message.global_id == global_id:
                    found.append(message)
            return found

    def state(self, partition: int = 0) -> StoreState:
        with self._lock:
            self._check_open()
            return StoreState(self._global_id, self._epoch)

    def _named_state(self) -> StoreState:
        if self._epoch is None:
            self._epoch = secrets.token_hex(8)
        return StoreState(self._global_id, self._epoch)

    def renew_epoch(self, epoch: str | None, partition: int = 0) -> StoreState:
        with self._lock:
            self._check_open()
            if epoch == self._epoch:
                self._epoch = None
                state = self._named_state()
                for feed in self._feeds:
                    feed.listener.resync(state)
            return self._named_state()

    def listen(self, listener: Listener, interest: Interest | None = None) -> MemoryFeed:
        with self._lock:
            self._was_read = True
            feed = MemoryFeed(self, listener)
            self._check_open()
            self._feeds = (*self._feeds, feed)
            listener.started(self._named_state())
            return feed

    def _remove(self, feed: MemoryFeed) -> None:
        with self._lock:
            self._feeds = tuple(other for other in self._feeds if other is not feed)

    def announce(self, text: str) -> None:
        with self._lock:
            self._check_open()
            for feed in self._feeds:
                feed.listener.announced([text])

    def report(self, worker: str, report: str) -> None:
        with self._lock:
            self._check_open()
            now = self._clock()
            self._reports = {name: (until, text) for name, (until, text) in self._reports.items() if until > now}
            self._reports[worker] = now + REPORT_LEASE, report

    def withdraw(self, worker: str) -> None:
        with self._lock:
            self._reports.pop(worker, None)

    def reports(self) -> dict[str, str]:
        with self._lock:
            self._check_open()
            return {name: text for name, (until, text) in self._reports.items() if until > self._clock()}

    def channels(self, cursor: str = "", limit: int = 1000) -> ChannelPage:
        with self._lock:
            self._check_open()
            now = self._clock()
            kept = (name for name, log in self._channels.items() if log.messages and log.backlog_until > now)
            names = heapq.nsmallest(limit, (name for name in kept if name > cursor))
            return ChannelPage(names, names[-1] if len(names) == limit else "")

    def forget(self, name: str) -> None:
        with self._lock:
            self._check_open()
            if name in self._channels:
                self._channels[name].messages.clear()

    def expire_all_backlogs(self) -> None:
        with self._lock:
            self._check_open()
            for channel in self._channels.values():
                channel.messages.clear()
            self._global.clear()

    def unheard(self) -> int:
        return 0 if self._was_read else self._published

    def reset(self) -> None:
        with self._lock:
            self._check_open()
            self._forget()
            for feed in self._feeds:
                feed.listener.resync(self._named_state())

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._feeds = ()
            self._forget()

    def after_fork(self) -> None:
        # Another thread may have held the lock at the fork, in the middle of a publish; no one will release it here.
        self._lock = threading.RLock()
        self._publishing = False
        self._published = 0  # the parent's
        self._feeds = ()

    def _check_open(self) -> None:
        if self._closed:
            raise BusClosed("the store was closed")
