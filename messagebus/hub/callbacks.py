"""Calls Python functions that are subscribed to channels: one at a time, in order, never in the thread that publishes
or dispatches."""

from __future__ import annotations

import logging
import threading
from _thread import allocate_lock
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from .. import tracing
from ..app_import import is_watching
from ..backoff import Backoff
from ..errors import BackendUnavailable
from ..message import Message
from ..names import store_name
from ..stores import Store, Trace

logger = logging.getLogger("messagebus.hub")

FIRST_PAUSE, LONGEST_PAUSE = 0.05, 1.0
"""Seconds between two attempts to read what a function is behind with, see ``Backoff``."""
REMEMBERED = 100
"""Number of messages that a subscription remembers, to find its place in a store that was reset."""
EVERY_SITE = "*"
"""In place of a site's id: the messages of every site, and those without one."""

Callback = Callable[[Message], object]
ReportError = Callable[[Exception, str], object]


class Scope(NamedTuple):
    """The channel and site that a function is subscribed to."""

    channel: str | None
    """``None``: every channel."""
    site_id: str | None

    @property
    def name(self) -> str | None:
        """The stored name, if there is only one; ``None`` for several, whose ids only the store can compare."""
        if self.channel is None or (self.site_id == EVERY_SITE and not self.channel.startswith("/global/")):
            return None
        return store_name(self.channel, self.site_id)

    def holds(self, message: Message) -> bool:
        if self.channel is not None and message.channel != self.channel:
            return False
        return self.site_id == EVERY_SITE or message.site_id == self.site_id or message.channel.startswith("/global/")

    def __str__(self) -> str:
        return self.channel or "all channels"


class Subscription:
    """One function on one scope, or on what a partition of the store has of it. Where the scope is one channel its
    position is a message id, otherwise a global id."""

    __slots__ = ("behind", "callback", "life", "name", "partition", "pending", "position", "scope", "seen", "worker")

    def __init__(self, scope: Scope, callback: Callback, position: int, partition: int = 0) -> None:
        """``position``: the id to continue after. ``partition``: that of the one channel, or of what it has of several;
        a scope of several has one subscription for each."""
        self.scope = scope
        self.name = scope.name
        self.partition = partition
        self.callback = callback
        self.position = max(position, self.beginning)
        self.pending: deque[Message] = deque()
        self.behind = True
        """Whether the store may have messages after ``position`` that are not pending here."""
        self.life = 0
        """Counts the store's epochs: messages of an earlier one must not move the position."""
        self.seen: deque[Trace] = deque(maxlen=REMEMBERED)
        """The known messages before the position; of the previous epoch, until the channel was read again."""
        self.worker: Worker | None = None
        """The worker that calls it; ``None``: the shared one."""

    @property
    def key(self) -> str | int:
        """What messages for it have in common: the name, or where that may be one of several their partition."""
        return self.partition if self.name is None else self.name

    @property
    def beginning(self) -> int:
        """The position before the first message."""
        return self.partition if self.name is None else 0

    def id_of(self, message: Message) -> int:
        return message.global_id if self.name is None else message.message_id

    def went_back(self, message: Message) -> bool:
        """Whether a message at or before the position is a new one."""
        return self.name is not None and bool(self.seen) and message.global_id > self.seen[-1].global_id

    def read(self, store: Store, position: int) -> Sequence[Message] | None:
        """The store's messages after a position; ``None`` if the store has gone back."""
        known = self.seen[-1] if self.seen and position > self.beginning else None
        if self.name is None:
            messages: Sequence[Message] = [m for m in store.global_backlog(position) if self.scope.holds(m)]
        else:
            # With the message at the position, to remember or to compare it.
            backlog = store.backlog(self.name, max(position - 1, 0))
            messages = backlog.messages
            if messages and messages[0].message_id == position:
                trace = Trace.of(messages[0])
                messages = messages[1:]
                if known is not None and known != trace:
                    return None
                if known is None:
                    self.seen.append(trace)
            if known is not None and backlog.last_id < position:
                return None
            if backlog.first_id > position + 1 and (position or not self.seen):
                first, last = position + 1, backlog.first_id - 1
                logger.warning("a callback on %s missed messages %d to %d: the backlog lost them", self, first, last)
        if self.seen and position <= self.beginning:
            messages = self._after_seen(messages)
        return messages

    def _after_seen(self, messages: Sequence[Message]) -> Sequence[Message]:
        """The new messages, in a store that was reset."""
        seen, self.seen = set(self.seen), deque(maxlen=REMEMBERED)
        for number in range(len(messages), 0, -1):
            trace = Trace.of(messages[number - 1])
            if trace in seen:
                self.seen.append(trace)
                return messages[number:]
        logger.warning("the store was reset: a callback on %s gets the %d messages it has", self, len(messages))
        return messages

    def __str__(self) -> str:
        return str(self.scope)


class Callbacks:
    """All subscriptions of a process. Safe from any thread or greenlet.

    A message that arrives is queued. When ``limit`` messages already wait for a slow function, further ones are left to
    the backlog, and read from there when the function has caught up. So nothing is lost that the backlog still has, and
    no queue grows without bound."""

    def __init__(self) -> None:
        self._by_key: dict[str | int, list[Subscription]] = {}
        self._lock = allocate_lock()  # native: held for a moment, across nothing that switches greenlets
        self._shared: Worker | None = None
        self.partitions = 1
        """Of the store."""
        self.limit = 1
        """Maximum number of messages that wait for one function."""
        self.tracing = False
        """Whether calls are spans."""
        self.went_back: Callable[[int], object] = lambda partition: None
        """Called where a channel's ids have begun again and its partition has not been given another epoch yet."""
        self.changed: Callable[[str | None], object] = lambda name: None
        """Called when a channel has got a subscription or has lost its last; ``None``: all channels have."""

    def __bool__(self) -> bool:
        return bool(self._by_key)

    def add(self, subscription: Subscription) -> None:
        with self._lock:
            # A new list each time: the feed walks the old one without a lock.
            self._by_key[subscription.key] = [*self._by_key.get(subscription.key, ()), subscription]
        self.changed(subscription.name)
        self._wake(subscription)

    def remove(self, scope: Scope, callback: Callback | None) -> bool:
        """Remove a function's subscriptions to a scope, or all of them. Returns whether there were any."""
        removed = []
        with self._lock:
            for key in [*self._by_key] if scope.name is None else [scope.name]:
                found = self._by_key.get(key, [])
                kept = [s for s in found if s.scope != scope or (callback is not None and s.callback != callback)]
                removed += [subscription for subscription in found if subscription not in kept]
                if kept:
                    self._by_key[key] = kept
                else:
                    self._by_key.pop(key, None)
        self.changed(scope.name)
        for subscription in removed:
            self._wake(subscription)  # it may be what its worker waits for
        return bool(removed)

    def names(self) -> list[str]:
        """The channels with a subscription of their own."""
        with self._lock:
            return [key for key in self._by_key if isinstance(key, str)]

    def has_any(self, name: str | None) -> bool:
        """Whether a channel has a subscription of its own; ``None``: whether one is to several, or to all."""
        return name in self._by_key if name is not None else any(isinstance(key, int) for key in [*self._by_key])

    def has(self, subscription: Subscription) -> bool:
        return subscription in self._by_key.get(subscription.key, ())

    def start(self, store: Store, report: ReportError) -> None:
        """Start to call, in a thread that ends with :meth:`stop`. The functions keep their positions."""
        if self._shared is None:
            self._shared = Worker(self, store, report)
            self._shared.start()

    def stop(self, timeout: float) -> None:
        """End all workers after their current call; wait for the shared one up to ``timeout`` seconds."""
        shared, self._shared = self._shared, None
        for subscription in self.all():
            if subscription.worker is not None:
                subscription.worker.stop(0)
        if shared is not None:
            shared.stop(timeout)

    def after_fork(self) -> None:
        """In a child: the threads stayed with the parent; the subscriptions are this process's as well."""
        self._lock = allocate_lock()
        self._shared = None
        for subscription in self.all():
            subscription.pending.clear()
            subscription.behind = True
            if subscription.worker is not None:
                self.remove(subscription.scope, subscription.callback)  # whoever waits for it waits in the parent

    def leave_to_child(self) -> None:
        """In the parent of a reloader: call nothing any more, and keep nothing."""
        for subscription in self.all():
            subscription.behind = True
            subscription.pending.clear()

    def advance(self, subscription: Subscription, message: Message, life: int) -> bool:
        """Move a subscription's position to a message of an epoch. ``False`` if that epoch is over."""
        with self._lock:
            if subscription.life == life:
                subscription.position = subscription.id_of(message)
                subscription.seen.append(Trace.of(message))
            return subscription.life == life

    def catch_up(self, subscription: Subscription) -> tuple[int, int]:
        """Let a subscription catch up: what arrives from now on is queued. Returns the epoch that it is in and its
        position there, to read after: a reset that comes later makes it read again."""
        with self._lock:
            subscription.behind = False
            return subscription.life, subscription.position

    def all(self) -> list[Subscription]:
        return [subscription for subscriptions in list(self._by_key.values()) for subscription in subscriptions]

    def _wake(self, subscription: Subscription) -> None:
        worker = subscription.worker or self._shared
        if worker is not None:
            worker.wake.set()

    # --- from the feed ---

    def received(self, messages: Iterable[Message]) -> None:
        """Queue the feed's next messages for their subscriptions. Never blocks."""
        by_key, partitions = self._by_key, self.partitions
        if not by_key:
            return
        woken = []
        for message in messages:
            for subscription in (*by_key.get(message.name, ()), *by_key.get(message.global_id % partitions, ())):
                if subscription.behind or not subscription.scope.holds(message):
                    continue
                if len(subscription.pending) >= self.limit:
                    subscription.behind = True
                else:
                    subscription.pending.append(message)
                woken.append(subscription)
        for subscription in woken:
            self._wake(subscription)

    def hear(self, names: Iterable[str]) -> None:
        """From now on the feed brings these channels; what came before has to be read."""
        for name in names:
            for subscription in self._by_key.get(name, ()):
                subscription.behind = True
                self._wake(subscription)

    def newest(self) -> list[Trace]:
        """The last message of each subscription to one channel."""
        return [s.seen[-1] for s in self.all() if s.name is not None and s.seen]

    def resync(self, reset: bool, partition: int = 0) -> None:
        """Let the subscriptions to a partition read again, because the feed has missed messages. After a reset, ids
        start again."""
        for subscription in self.all():
            if subscription.partition != partition:
                continue
            with self._lock:
                if reset:
                    subscription.pending.clear()
                    subscription.position = subscription.beginning
                    subscription.life += 1
                subscription.behind = True
            self._wake(subscription)


class Worker:
    """Calls subscribed functions: the one it was made for, or all that have no other worker."""

    def __init__(
        self, callbacks: Callbacks, store: Store, report: ReportError, only: Sequence[Subscription] = ()
    ) -> None:
        self.wake = threading.Event()
        self._callbacks = callbacks
        self._store = store
        self._report = report
        self._only = only
        self._stopped = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Work in a new thread."""
        self._thread = threading.Thread(target=self.run, name="messagebus-callbacks", daemon=True)
        self._thread.start()
        self.wake.set()

    def stop(self, timeout: float) -> None:
        self._stopped = True
        self.wake.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout)

    def run(self) -> None:
        """Work in this thread until stopped, or until its only subscriptions are removed."""
        backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE)
        retry = False
        while not self._stopped:
            if not retry:
                backoff.reset()
            self.wake.wait(backoff.next() if retry else None)
            self.wake.clear()
            retry = False
            if is_watching():
                self._callbacks.leave_to_child()
                return
            if self._only and not any(map(self._callbacks.has, self._only)):
                return
            for subscription in self._only or self._callbacks.all():
                if subscription.worker not in (None, self):
                    continue
                try:
                    self._serve(subscription)
                except BackendUnavailable:
                    retry = True  # that the store is gone is in the feed's log
                except Exception:
                    # This thread serves all the others as well.
                    if not self._stopped:
                        logger.exception("reading for a callback on %s failed", subscription.scope)
                        retry = True

    def _serve(self, subscription: Subscription) -> None:
        life = subscription.life
        while not self._stopped:
            try:
                message = subscription.pending.popleft()
            except IndexError:  # not asked before: a reset may empty it in between
                break
            self._call(subscription, (message,), life)
        if subscription.behind and not self._stopped:
            life, position = self._callbacks.catch_up(subscription)
            try:
                messages = subscription.read(self._store, position)
            except Exception:
                subscription.behind = True
                raise
            if messages is None:
                self._callbacks.went_back(subscription.partition)
                return  # another epoch is on its way
            self._call(subscription, messages, life)
            self.wake.set()

    def _call(self, subscription: Subscription, messages: Sequence[Message], life: int) -> None:
        for message in messages:
            if subscription.id_of(message) <= subscription.position:
                if subscription.went_back(message) and subscription.life == life:
                    self._callbacks.went_back(subscription.partition)
                continue
            if self._stopped or not self._callbacks.has(subscription):
                return
            if not self._callbacks.advance(subscription, message, life):
                return
            try:
                if self._callbacks.tracing and message.trace is not None:
                    with tracing.processing(message):
                        subscription.callback(message)
                else:
                    subscription.callback(message)
                message.forget_data()  # the windows hold the message on
            except Exception as error:
                self._report(error, f"the callback on {subscription.scope}, message {message.message_id}")
