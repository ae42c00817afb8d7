"""Publishing through an outage: messages wait in memory, in order, until the store is back.

Each partition of the store has a line of its own: what is for one that is away waits, and the others go on.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping, Sequence

from ..errors import BackendUnavailable, BusClosed, InvalidOption, NotDurable, PublishQueueFull, PublishRefused
from ..message import Ids
from ..stores.base import Publication, Store
from .batches import Batch, Lanes, batches_of
from .publish_line import Flusher, PublishLine

logger = logging.getLogger("messagebus.publishing")


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
        self.lock = threading.Lock()
        self.count = 0
        self._lanes = Lanes()
        number = self._store.partitions
        names = [f"partition {each} of the store" for each in range(number)] if number > 1 else ["the store"]
        self._lines = [PublishLine(self, name) for name in names]

    def __len__(self) -> int:
        """Messages that wait now."""
        return self.count

    def publish_many(
        self,
        messages: Sequence[Publication],
        *,
        queue_in_memory: bool = True,
        idempotency_key: str | None = None,
        durable: int = 0,
    ) -> list[Ids | None]:
        """Publish now, and return the ids; or queue behind waiting messages, and return ``None`` for each.

        If the store fails part-way through a large number, the first thousands are stored, and the others wait. Of
        several partitions each waits for itself; where one gives no answer, what was sent together with it waits as
        well, until it is known to be stored.

        ``durable``: how many of the store's replicas must have them; then nothing waits here.

        Raises:
            NotDurable: All are stored, but fewer replicas have them.
            BackendUnavailable: The store gave no answer, and ``queue_in_memory`` is false or the queue's size is 0.
            PublishQueueFull: The store gave no answer, and there is no room for all that is left; none of it waits.
            PublishRefused: The store refuses them. Of a large number, the first thousands may be stored.
            InvalidOption: The URL leads to a server of another kind.
            BusClosed: The queue was closed.
        """
        if self._closed:
            raise BusClosed("the bus was closed")
        batches = batches_of(messages, idempotency_key)
        if len(self._lines) > 1 and len(messages) > 1:
            return self._publish_apart(batches, queue_in_memory, durable)
        line = self._lines[0] if len(self._lines) == 1 or not messages else self._line_of(messages[0])
        if line.waiting:
            if not queue_in_memory:
                self._refuse(line)
            self._put({line: batches}, None)
            return [None] * len(messages)
        if durable:
            return self._publish_durably(batches, durable)
        given: list[Ids | None] = []
        for number, batch in enumerate(batches):
            try:
                given += self.attempt(batch, line)
            except (PublishRefused, InvalidOption):
                self._let_go(batch)
                raise
            except BackendUnavailable as error:
                if not queue_in_memory or not self._size:
                    self._let_go(batch)
                    raise
                self._put({line: batches[number:]}, error)
                return given + [None] * (len(messages) - len(given))
        return given

    def _line_of(self, message: Publication) -> PublishLine:
        return self._lines[self._store.partition_of(message.name)]

    def _refuse(self, line: PublishLine) -> None:
        # Do not even try: the message would overtake those that wait.
        reason, words = line.trouble
        raise BackendUnavailable(f"{len(line)} earlier messages still wait for {line.where}: {words}", reason)

    def _publish_apart(self, batches: Sequence[Batch], queue_in_memory: bool, durable: int) -> list[Ids | None]:
        """Messages of several partitions: those of a line that waits go behind it, the others to the store at once."""
        if not queue_in_memory or durable:
            for batch in batches:
                for line in map(self._line_of, batch.messages):
                    if line.waiting:
                        self._refuse(line)
        if durable:
            return self._publish_durably(batches, durable)
        given: list[Ids | None] = []
        for batch in batches:
            found: list[Ids | None] = [None] * len(batch.messages)
            places: dict[PublishLine, list[int]] = {}
            for place, message in enumerate(batch.messages):
                places.setdefault(self._line_of(message), []).append(place)
            late = {line: [batch.part(theirs)] for line, theirs in places.items() if line.waiting}
            if late:
                self._put(late, None)
            now = [place for line, theirs in places.items() if line not in late for place in theirs]
            if now:
                part = batch.part(sorted(now)) if late else batch
                try:
                    for place, ids in zip(sorted(now), self.attempt(part, None), strict=True):
                        found[place] = ids
                except PublishRefused:
                    self._let_go(part)
                    raise
                except BackendUnavailable as error:
                    if not queue_in_memory or not self._size:
                        self._let_go(part)
                        raise
                    # Which of the partitions have stored theirs is not known: all are sent again, under the same id.
                    again = {
                        line: [batch.part(theirs, part.publication_id)]
                        for line, theirs in places.items()
                        if line not in late
                    }
                    self._put(again, error)
            given += found
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

    def attempt(self, batch: Batch, line: PublishLine | None) -> list[Ids]:
        """Send a batch. ``line``: which it is of; ``None``: of several."""
        if batch.publication_id is None:
            batch.publication_id = self._lanes.take()
        try:
            ids = self._store.publish_many(batch.messages, batch.publication_id)
        except BackendUnavailable as error:
            # Whether it was stored is not known: it is sent again under this id.
            if line is not None:
                line.trouble = error.reason, str(error)
            raise
        except InvalidOption as error:
            if line is not None:
                line.trouble = "none", str(error)
            raise
        except PublishRefused as error:
            # Who cannot log in will perhaps be let in, and an attempt before this one may have been stored.
            if error.reason != "unauthenticated":
                self._let_go(batch)
            elif line is not None:
                line.trouble = error.reason, str(error)
            raise
        except BaseException:
            self._let_go(batch)
            raise
        self._let_go(batch)
        return ids

    def _let_go(self, batch: Batch) -> None:
        """A batch is not sent again, under this id at least."""
        if batch.publication_id is not None and batch.key is None:
            if not batch.shares_id:
                self._lanes.give_back(batch.publication_id)
            batch.publication_id = None

    def _put(self, late: Mapping[PublishLine, Sequence[Batch]], cause: BackendUnavailable | None) -> None:
        """Let batches wait in their lines: all of them, or none."""
        batches = [batch for theirs in late.values() for batch in theirs]
        count = sum([len(batch.messages) for batch in batches])
        begun: list[Flusher] = []
        with self.lock:
            if self._closed:
                raise BusClosed("the bus was closed")
            if self.count + count > self._size:
                for batch in batches:
                    self._let_go(batch)
                reason, words = (cause.reason, str(cause)) if cause is not None else next(iter(late)).trouble
                raise PublishQueueFull(
                    f"the store is {reason}, {self.count} messages wait for it already, and no more than "
                    f"{self._size} may: {words}",
                    reason,
                ) from cause
            self.count += count
            for line, theirs in late.items():
                if cause is not None:
                    line.trouble = cause.reason, str(cause)
                flusher = line.extend(theirs)
                if flusher is not None:
                    begun.append(flusher)
        # Outside the lock: starting a thread waits for it.
        if begun and cause is not None:
            logger.warning("the store is %s, keeping messages until it takes them: %s", cause.reason, cause)
        for flusher in begun:
            flusher.thread.start()

    def _hurry(self) -> None:
        """The store is back: do not wait for the next attempt."""
        for line in self._lines:
            if line.flusher is not None:
                line.flusher.hurry()

    def close(self, timeout: float) -> None:
        """Accept no more messages, and write waiting ones for up to ``timeout`` seconds. Lost messages are logged as an
        error. May be repeated."""
        with self.lock:
            self._closed = True
            flushers = [line.flusher for line in self._lines if line.flusher is not None]
        if not flushers:
            return
        until = time.monotonic() + timeout
        for flusher in flushers:
            flusher.done.wait(max(0.0, until - time.monotonic()))
        with self.lock:
            lost, self.count = self.count, 0
            for line in self._lines:
                line.waiting.clear()
        for flusher in flushers:
            flusher.wake.set()
        if lost:
            logger.error(
                "%d %s lost: the store did not come back in time", lost, "message was" if lost == 1 else "messages were"
            )

    def after_fork(self) -> None:
        """In a child process: start with an empty queue. The parent writes the waiting messages."""
        flushers = [line.flusher for line in self._lines if line.flusher is not None]
        self._begin()
        for flusher in flushers:
            flusher.abandon()
