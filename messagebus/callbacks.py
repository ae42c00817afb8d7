"""Python functions subscribed to channels: called one at a time, in order, in a thread (or greenlet) of their own."""

from __future__ import annotations

import logging
import threading
from _thread import allocate_lock
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from .backends import Backlog
from .errors import BackendUnavailable
from .message import Message

logger = logging.getLogger("messagebus.callbacks")

RETRY_SECONDS = 1.0

Callback = Callable[[Message], object]
ReadBacklog = Callable[[str, int], Backlog]


class Subscription:
    """One function on one channel."""

    __slots__ = ("behind", "callback", "channel", "name", "pending", "position")

    def __init__(self, channel: str, name: str, callback: Callback, position: int) -> None:
        """``position``: the id of the last message that it shall not see."""
        self.channel = channel
        self.name = name
        self.callback = callback
        self.position = position
        self.pending: deque[Message] = deque()
        self.behind = True
        """Whether there may be messages after ``position``, and after those that are pending, that only the store
        has."""


class Callbacks:
    """All subscriptions of a process, and the thread that serves them. Safe from any thread or greenlet.

    A message that arrives is queued; where ``limit`` of them already wait for a slow function, it is left to the
    backlog, and read from there when the function has caught up. So nothing is lost that the backlog still has, and
    nothing grows."""

    def __init__(self) -> None:
        self._by_name: dict[str, list[Subscription]] = {}
        self._lock = allocate_lock()  # native: held for a moment, across nothing that switches greenlets
        self._wake: threading.Event | None = None
        self._thread: threading.Thread | None = None
        self._stopped = False

    def __bool__(self) -> bool:
        return bool(self._by_name)

    def add(self, subscription: Subscription) -> None:
        with self._lock:
            # A new list each time: the feed walks the old one without a lock.
            self._by_name[subscription.name] = [*self._by_name.get(subscription.name, ()), subscription]
        self.wake()

    def remove(self, name: str, callback: Callback | None) -> bool:
        """Remove a function's subscriptions to a name, or all of them. Returns whether there were any."""
        with self._lock:
            found = self._by_name.get(name, [])
            kept = [s for s in found if callback is not None and s.callback != callback]
            if kept:
                self._by_name[name] = kept
            else:
                self._by_name.pop(name, None)
            return len(kept) < len(found)

    def start(self, read_backlog: ReadBacklog, limit: int) -> None:
        """Begin to call, in a thread that ends with :meth:`stop`. The functions' positions are where they were."""
        self._limit = limit
        self._stopped = False
        self._wake = threading.Event()
        self._thread = threading.Thread(
            target=self._run, args=(read_backlog, self._wake), name="messagebus-callbacks", daemon=True
        )
        self._thread.start()
        self.wake()

    @property
    def running(self) -> bool:
        return self._thread is not None

    def stop(self, timeout: float) -> None:
        """End the thread after the call that it is in; wait for it up to ``timeout`` seconds."""
        thread, self._thread = self._thread, None
        self._stopped = True
        self.wake()
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)

    def after_fork(self) -> None:
        """In a child: the thread stayed with the parent; the subscriptions are this process's as well."""
        self._lock = allocate_lock()
        self._thread = None
        self._wake = None
        for subscription in self._all():
            subscription.pending.clear()
            subscription.behind = True

    def wake(self) -> None:
        if self._wake is not None:
            self._wake.set()

    # --- from the feed ---

    def received(self, messages: Iterable[Message]) -> None:
        """Queue the feed's next messages for whoever subscribed to them. Never blocks."""
        if not self._by_name:
            return
        for message in messages:
            for subscription in self._by_name.get(message.name, ()):
                if subscription.behind:
                    continue
                if len(subscription.pending) >= self._limit:
                    subscription.behind = True
                else:
                    subscription.pending.append(message)
        self.wake()

    def lost(self, reset: bool) -> None:
        """The feed has missed messages; after a reset, ids begin anew."""
        for subscription in self._all():
            if reset:
                subscription.pending.clear()
                subscription.position = 0
            subscription.behind = True
        self.wake()

    # --- in the thread ---

    def _run(self, read_backlog: ReadBacklog, wake: threading.Event) -> None:
        retry: float | None = None
        while True:
            wake.wait(retry)
            wake.clear()
            if self._wake is not wake or self._stopped:
                return
            retry = None
            for subscription in self._all():
                try:
                    self._serve(subscription, read_backlog)
                except BackendUnavailable:
                    retry = RETRY_SECONDS  # the feed says so in the log
                if self._stopped:
                    return

    def _serve(self, subscription: Subscription, read_backlog: ReadBacklog) -> None:
        while subscription.pending and not self._stopped:
            self._call(subscription, (subscription.pending.popleft(),))
        if subscription.behind and not self._stopped:
            # From here on arriving messages are queued; whatever came before is in what is read now.
            subscription.behind = False
            try:
                backlog = read_backlog(subscription.name, subscription.position)
            except BackendUnavailable:
                subscription.behind = True
                raise
            if backlog.first_id > subscription.position + 1:
                logger.warning(
                    "a callback on %s has missed messages %d to %d: the backlog no longer has them",
                    subscription.channel,
                    subscription.position + 1,
                    backlog.first_id - 1,
                )
            self._call(subscription, backlog.messages)
            self.wake()

    def _call(self, subscription: Subscription, messages: Sequence[Message]) -> None:
        for message in messages:
            if message.message_id <= subscription.position:
                continue
            if subscription not in self._by_name.get(subscription.name, ()) or self._stopped:
                return
            subscription.position = message.message_id
            try:
                subscription.callback(message)
            except Exception:
                logger.exception("a callback on %s failed on message %d", subscription.channel, message.message_id)

    def _all(self) -> list[Subscription]:
        return [subscription for subscriptions in list(self._by_name.values()) for subscription in subscriptions]
