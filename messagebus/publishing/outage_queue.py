"""Publishing through an outage of the store: messages wait in memory, in order, until it is back."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import deque
from collections.abc import Sequence
from itertools import islice

from ..errors import BackendUnavailable, BusClosed, PublishQueueFull
from ..message import Ids
from ..stores.base import Publication, Store

logger = logging.getLogger("messagebus.publishing")

FIRST_PAUSE, LONGEST_PAUSE = 0.05, 1.0
"""Seconds between two attempts to write: each up to twice as long as the one before, as far as the longest."""
LARGEST_BATCH = 128
"""Waiting messages that are written at once."""


_left_behind: list[_Writer] = []
"""Writers that a fork has copied together with their greenlets, see ``_Writer.abandon``."""


class PublishQueue:
    """Publishes to ``store``; while it is unavailable keeps up to ``size`` messages (0: none).

    A message whose answer was lost on the way may be stored twice: it cannot be known whether the store had taken it
    before the connection broke, and it is written again. Safe from any thread and greenlet."""

    def __init__(self, store: Store, size: int) -> None:
        self._store = store
        self._size = size
        self._closed = False
        self._begin()

    def _begin(self) -> None:
        # Nothing is waited for under the lock, so it may be made before gevent patches the process.
        self._lock = threading.Lock()
        self._waiting: deque[Publication] = deque()  # a message leaves it when it is stored, not when it is sent
        self._writer: _Writer | None = None

    def __len__(self) -> int:
        """Messages that wait now."""
        return len(self._waiting)

    def publish_many(self, messages: Sequence[Publication], *, queue_in_memory: bool = True) -> list[Ids] | list[None]:
        """Publish now, and return the ids; or behind others that wait already, and return a ``None`` for each.

        Where the store goes in the middle of a large number, some may be stored already: those are stored twice.

        Raises:
            BackendUnavailable: The store gave no answer, and ``queue_in_memory`` is false or the queue's size is 0.
            PublishQueueFull: The store gave no answer, and there is no room for all of them; none of them waits.
            BusClosed: The queue was closed.
        """
        if self._closed:
            raise BusClosed("the bus was closed")
        cause: BackendUnavailable | None = None
        if not self._waiting:
            try:
                if len(messages) == 1:
                    ((name, envelope, size, age),) = messages
                    return [self._store.publish(name, envelope, max_backlog_size=size, max_backlog_age=age)]
                return self._store.publish_many(messages)
            except BackendUnavailable as error:
                if not queue_in_memory or not self._size:
                    raise
                cause = error
        elif not queue_in_memory:
            # Not even tried: it would overtake the ones that wait.
            raise BackendUnavailable(f"{len(self._waiting)} earlier messages still wait for the store")
        self._put(messages, cause)
        return [None] * len(messages)

    def _put(self, messages: Sequence[Publication], cause: BackendUnavailable | None) -> None:
        with self._lock:
            if self._closed:
                raise BusClosed("the bus was closed")
            if len(self._waiting) + len(messages) > self._size:
                raise PublishQueueFull(
                    f"the store is gone, {len(self._waiting)} messages wait for it already, and no more than "
                    f"{self._size} may"
                ) from cause
            self._waiting.extend(messages)
            if self._writer is not None:
                return
            writer = self._writer = _Writer(self)
        # Outside the lock: to start a thread is to wait for it.
        if cause is not None:
            logger.warning("the store is gone, keeping messages until it is back: %s", cause)
        writer.thread.start()

    def _next(self, count: int) -> list[Publication]:
        """The next up to ``count`` messages to write; none ends the writer, in one step with forgetting it."""
        with self._lock:
            if not self._waiting:
                self._writer = None
            return list(islice(self._waiting, count))

    def _written(self, count: int) -> None:
        with self._lock:
            for _ in range(min(count, len(self._waiting))):  # fewer where close gave up meanwhile
                self._waiting.popleft()

    def close(self, timeout: float) -> None:
        """Take no more messages, and write those that wait for up to ``timeout`` seconds. Lost ones are logged as an
        error. May be repeated."""
        with self._lock:
            self._closed = True
            writer = self._writer
        if writer is None:
            return
        writer.done.wait(timeout)
        with self._lock:
            lost = len(self._waiting)
            self._waiting.clear()
        writer.stop.set()
        if lost:
            logger.error("%d messages were lost: the store did not come back in time", lost)

    def after_fork(self) -> None:
        """In a child process: begin with an empty queue. The messages that wait are the parent's to write."""
        writer = self._writer
        self._begin()
        if writer is not None:
            writer.abandon()


class _Writer:
    """The thread that writes what waits, in its order, from the first message that has to wait to the last."""

    def __init__(self, queue: PublishQueue) -> None:
        self._queue = queue
        self._abandoned = False
        self.stop = threading.Event()
        self.done = threading.Event()
        self.thread = threading.Thread(target=self._run, name="messagebus-publish-queue", daemon=True)

    def abandon(self) -> None:
        """In a child process, where the thread does not exist; but a gevent greenlet does, and must do no more."""
        self._abandoned = True
        _left_behind.append(self)

    def _run(self) -> None:
        attempts = written = 0
        batch = 1
        began = time.monotonic()
        while not self._abandoned and (messages := self._queue._next(batch)):
            try:
                self._queue._store.publish_many(messages)
            except BackendUnavailable:
                pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(attempts, 10))
                self.stop.wait(pause * random.uniform(0.5, 1.0))
                attempts += 1
                # One message finds out that the store is back: if it takes that without an answer, it is one that is
                # stored twice.
                batch = 1
                continue
            except Exception:
                # Not the outage's doing, and it would fail the next time too: the ones behind it must not wait forever.
                if len(messages) > 1:
                    batch = 1
                    continue
                logger.exception("a message on %s was lost", messages[0].name)
            if not self._abandoned:
                self._queue._written(len(messages))
            attempts = 0
            written += len(messages)
            # Several publishers go on meanwhile, and this one thread has to be faster than they are.
            batch = min(batch * 2, LARGEST_BATCH)
        if self._abandoned:
            # For good: ``threading`` has forgotten this thread at the fork, and would print a traceback if it ended.
            threading.Event().wait()
        if written:
            logger.info("the store is back; wrote %d messages after %.1f s", written, time.monotonic() - began)
        self.done.set()
