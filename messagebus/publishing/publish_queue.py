"""Publishing through an outage: messages wait in memory, in order, until the store is back."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Sequence

from .. import forks
from ..backoff import Backoff
from ..errors import BackendUnavailable, BusClosed, NotDurable, PublishQueueFull, PublishRefused
from ..message import Ids
from ..stores.base import MAX_BYTES, Publication, Store
from .batches import Batch, Lanes, batches_of

logger = logging.getLogger("messagebus.publishing")

FIRST_PAUSE, LONGEST_PAUSE = 0.05, 1.0
"""Seconds between two attempts to write: each up to twice as long as the one before, as far as the longest."""
LARGEST_BATCH = 128
"""Maximum number of waiting messages that are written in one step."""


class PublishQueue:
    """Publishes to ``store``; while that is unavailable, keeps up to ``size`` messages (0: none).

    A message whose answer was lost on the way is sent again under the same id, and so is stored once. Safe from any
    thread and greenlet."""

    def __init__(self, store: Store, size: int) -> None:
        self._store = store
        self._size = size
        self._closed = False
        self._begin()
        store.when_back(self._hurry)

    def _begin(self) -> None:
        # Nothing is waited for under the lock, so it may be made before gevent patches the process.
        self._lock = threading.Lock()
        self._lanes = Lanes()
        self._waiting: deque[Batch] = deque()  # a batch leaves it when it is stored, not when it is sent
        self._count = 0  # of its messages
        self._flusher: _Flusher | None = None
        self._trouble = ("gone", "no answer yet")  # the reason and the words of the last failure

    def __len__(self) -> int:
        """Messages that wait now."""
        return self._count

    def publish_many(
        self,
        messages: Sequence[Publication],
        *,
        queue_in_memory: bool = True,
        idempotency_key: str | None = None,
        durable: int = 0,
    ) -> list[Ids | None]:
        """Publish now, and return the ids; or queue behind waiting messages, and return ``None`` for each.

        If the store fails part-way through a large number, the first thousands are stored, and the others wait.

        ``durable``: how many of the store's replicas must have them; then nothing waits here.

        Raises:
            NotDurable: All are stored, but fewer replicas have them.
            BackendUnavailable: The store gave no answer, and ``queue_in_memory`` is false or the queue's size is 0.
            PublishQueueFull: The store gave no answer, and there is no room for all that is left; none of it waits.
            PublishRefused: The store refuses them. Of a large number, the first thousands may be stored.
            BusClosed: The queue was closed.
        """
        if self._closed:
            raise BusClosed("the bus was closed")
        batches = batches_of(messages, idempotency_key)
        if self._waiting:
            if not queue_in_memory:
                # Do not even try: the message would overtake those that wait.
                reason, words = self._trouble
                raise BackendUnavailable(f"{self._count} earlier messages still wait for the store: {words}", reason)
            self._put(batches, None)
            return [None] * len(messages)
        if durable:
            return self._publish_durably(batches, durable)
        given: list[Ids | None] = []
        for number, batch in enumerate(batches):
            try:
                given += self._attempt(batch)
            except PublishRefused:
                self._let_go(batch)
                raise
            except BackendUnavailable as error:
                if not queue_in_memory or not self._size:
                    self._let_go(batch)
                    raise
                self._put(batches[number:], error)
                return given + [None] * (len(messages) - len(given))
        return given

    def _publish_durably(self, batches: Sequence[Batch], replicas: int) -> list[Ids | None]:
        given: list[Ids] = []
        reached = replicas
        for batch in batches:
            publication_id = batch.publication_id = batch.publication_id or self._lanes.take()
            try:
                ids, told = self._store.publish_durably(batch.messages, publication_id, replicas)
            finally:
                self._let_go(batch)
            given += ids
            reached = min(reached, told)
        if reached < replicas:
            raise NotDurable(given, replicas, reached)
        return [*given]

    def _attempt(self, batch: Batch) -> list[Ids]:
        if batch.publication_id is None:
            batch.publication_id = self._lanes.take()
        try:
            ids = self._store.publish_many(batch.messages, batch.publication_id)
        except BackendUnavailable as error:
            # Whether it was stored is not known: it is sent again under this id.
            self._trouble = error.reason, str(error)
            raise
        except PublishRefused as error:
            # Who cannot log in will perhaps be let in, and an attempt before this one may have been stored.
            if error.reason == "unauthenticated":
                self._trouble = error.reason, str(error)
            else:
                self._let_go(batch)
            raise
        except BaseException:
            self._let_go(batch)
            raise
        self._let_go(batch)
        return ids

    def _let_go(self, batch: Batch) -> None:
        """A batch is not sent again, under this id at least."""
        if batch.publication_id is not None and batch.key is None:
            self._lanes.give_back(batch.publication_id)
            batch.publication_id = None

    def _put(self, batches: Sequence[Batch], cause: BackendUnavailable | None) -> None:
        count = sum(len(batch.messages) for batch in batches)
        with self._lock:
            if self._closed:
                raise BusClosed("the bus was closed")
            if self._count + count > self._size:
                for batch in batches:
                    self._let_go(batch)
                reason, words = self._trouble
                raise PublishQueueFull(
                    f"the store is {reason}, {self._count} messages wait for it already, and no more than "
                    f"{self._size} may: {words}",
                    reason,
                ) from cause
            self._waiting.extend(batches)
            self._count += count
            if self._flusher is not None:
                return
            flusher = self._flusher = _Flusher(self)
        # Outside the lock: starting a thread waits for it.
        if cause is not None:
            logger.warning("the store is %s, keeping messages until it takes them: %s", cause.reason, cause)
        flusher.thread.start()

    def _next(self) -> Batch | None:
        """The next batch to write. If there is none, the flusher ends; both happen in one step.

        Several publishers continue meanwhile, and the one flusher has to be faster than they are. So batches that were
        not sent before are merged."""
        with self._lock:
            if not self._waiting:
                self._flusher = None
                return None
            messages: list[Publication] = []
            size = 0
            while self._waiting and self._waiting[0].publication_id is None and not self._waiting[0].suspect:
                head = self._waiting[0].messages
                if messages and (len(messages) + len(head) > LARGEST_BATCH or size > MAX_BYTES):
                    break
                messages += head
                size += sum(len(message.envelope) for message in head)
                self._waiting.popleft()
            if messages:
                self._waiting.appendleft(Batch(messages))
            return self._waiting[0]

    def _done(self, batch: Batch, instead: Sequence[Batch] = ()) -> None:
        """A batch is done; its replacements, if any, come next."""
        with self._lock:
            if self._waiting and self._waiting[0] is batch:  # not where close gave up meanwhile
                self._waiting.popleft()
                self._waiting.extendleft(reversed(instead))
                self._count -= len(batch.messages) - sum(len(part.messages) for part in instead)

    def _hurry(self) -> None:
        """The store is back: do not wait for the next attempt."""
        flusher = self._flusher
        if flusher is not None:
            flusher.hurry()

    def close(self, timeout: float) -> None:
        """Accept no more messages, and write waiting ones for up to ``timeout`` seconds. Lost messages are logged as an
        error. May be repeated."""
        with self._lock:
            self._closed = True
            flusher = self._flusher
        if flusher is None:
            return
        flusher.done.wait(timeout)
        with self._lock:
            lost, self._count = self._count, 0
            self._waiting.clear()
        flusher.wake.set()
        if lost:
            logger.error(
                "%d %s lost: the store did not come back in time", lost, "message was" if lost == 1 else "messages were"
            )

    def after_fork(self) -> None:
        """In a child process: start with an empty queue. The parent writes the waiting messages."""
        flusher = self._flusher
        self._begin()
        if flusher is not None:
            flusher.abandon()


class _Flusher:
    """The thread that writes waiting messages, in order. It lives from the first message that has to wait to the
    last."""

    def __init__(self, queue: PublishQueue) -> None:
        self._queue = queue
        self._abandoned = False
        self.wake = threading.Event()
        self._is_back = False
        self.done = threading.Event()
        self.thread = threading.Thread(target=self._run, name="messagebus-publish-queue", daemon=True)

    def abandon(self) -> None:
        """In a child process the thread does not exist. A gevent greenlet does, and must do nothing more."""
        self._abandoned = True
        forks.leave_behind(self)

    def hurry(self) -> None:
        self._is_back = True
        self.wake.set()

    def _pause(self, backoff: Backoff) -> None:
        self.wake.wait(backoff.next())
        if self._is_back:
            # Only once: ``wake`` stays set where the queue was closed.
            self._is_back = False
            backoff.reset()
            self.wake.clear()

    def _run(self) -> None:
        queue = self._queue
        written = lost = 0
        shut_out = False
        backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE)
        began = time.monotonic()
        while not self._abandoned and (batch := queue._next()):
            instead: Sequence[Batch] = ()
            try:
                queue._attempt(batch)
                written += len(batch.messages)
            except BackendUnavailable:
                self._pause(backoff)
                continue
            except Exception as error:
                if isinstance(error, PublishRefused) and error.reason == "unauthenticated":
                    # Nothing of it is any message's fault, and none could go on without the others.
                    if not shut_out:
                        logger.error("%d messages wait, the store lets nobody in: %s", len(queue), error)
                    shut_out = True
                    self._pause(backoff)
                    continue
                instead = self._without(batch, error)
                lost += len(batch.messages) if not instead else 0
            backoff.reset()
            if not self._abandoned:
                queue._done(batch, instead)
        if self._abandoned:
            forks.rest()
        if written or lost:
            logger.warning(
                "the store is back; wrote %d messages after %.1f s%s",
                written,
                time.monotonic() - began,
                f", {lost} were refused and are lost" if lost else "",
            )
        self.done.set()

    @staticmethod
    def _without(batch: Batch, error: Exception) -> Sequence[Batch]:
        """What is left of a batch that was refused.

        It would fail the next time too, and the ones behind it must not wait forever. Nothing of it was stored, so
        what is right in it can go on alone."""
        if len(batch.messages) > 1 and batch.key is None:
            return batch.split()
        name = batch.messages[0].name
        if isinstance(error, PublishRefused):
            logger.error("a message on %s was lost, the store refused it (%s): %s", name, error.reason, error)
        else:
            logger.error("a message on %s was lost", name, exc_info=error)
        return ()
