"""Messages that wait for the store, or for one of its partitions, in order; and the thread that writes them."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Protocol

from .. import forks
from ..backoff import Backoff
from ..errors import BackendUnavailable, InvalidOption, PublishRefused
from ..message import Ids
from ..stores.base import MAX_BYTES, Publication
from .batches import Batch

logger = logging.getLogger("messagebus.publishing")

FIRST_PAUSE, LONGEST_PAUSE = 0.05, 1.0
"""Seconds between two attempts to write: each up to twice as long as the one before, as far as the longest."""
LARGEST_BATCH = 128
"""Maximum number of waiting messages that are written in one step."""


class Owner(Protocol):
    """The queue that a line is of."""

    lock: threading.Lock
    """Held for whatever changes a line, and nothing is waited for under it."""

    count: int
    """The messages that wait in all lines."""

    def attempt(self, batch: Batch, line: PublishLine) -> list[Ids]:
        """Send a batch. Raises as ``Store.publish_many`` does."""


class PublishLine:
    """See the module."""

    def __init__(self, owner: Owner, where: str) -> None:
        """``where``: what it waits for, for logs."""
        self._owner = owner
        self.where = where
        self.waiting: deque[Batch] = deque()  # a batch leaves it when it is stored, not when it is sent
        self.flusher: Flusher | None = None
        self.trouble = ("gone", "no answer yet")
        """The reason and the words of the last failure."""

    def extend(self, batches: Sequence[Batch]) -> Flusher | None:
        """Let batches wait, with the lock held. Returns the thread to be started, if there is none yet; not under the
        lock, for that waits for it."""
        self.waiting.extend(batches)
        if self.flusher is not None:
            return None
        self.flusher = Flusher(self)
        return self.flusher

    def next(self) -> Batch | None:
        """The next batch to write. If there is none, the flusher ends; both happen in one step.

        Several publishers continue meanwhile, and the one flusher has to be faster than they are. So batches that were
        not sent before are merged."""
        with self._owner.lock:
            if not self.waiting:
                self.flusher = None
                return None
            messages: list[Publication] = []
            size = 0
            while self.waiting and self.waiting[0].publication_id is None and not self.waiting[0].suspect:
                head = self.waiting[0].messages
                if messages and (len(messages) + len(head) > LARGEST_BATCH or size > MAX_BYTES):
                    break
                messages += head
                size += sum(len(message.envelope) for message in head)
                self.waiting.popleft()
            if messages:
                self.waiting.appendleft(Batch(messages))
            return self.waiting[0]

    def attempt(self, batch: Batch) -> None:
        self._owner.attempt(batch, self)

    def done(self, batch: Batch, instead: Sequence[Batch] = ()) -> None:
        """A batch is done; its replacements, if any, come next."""
        with self._owner.lock:
            if self.waiting and self.waiting[0] is batch:  # not where close gave up meanwhile
                self.waiting.popleft()
                self.waiting.extendleft(reversed(instead))
                self._owner.count -= len(batch.messages) - sum(len(part.messages) for part in instead)

    def __len__(self) -> int:
        """The messages that wait in it."""
        return sum([len(batch.messages) for batch in [*self.waiting]])


class Flusher:
    """The thread that writes waiting messages, in order. It lives from the first message that has to wait to the
    last."""

    def __init__(self, line: PublishLine) -> None:
        self._line = line
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
        """The store is back: do not wait for the next attempt."""
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
        line = self._line
        written = lost = 0
        shut_out = False
        backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE)
        began = time.monotonic()
        while not self._abandoned and (batch := line.next()):
            instead: Sequence[Batch] = ()
            try:
                line.attempt(batch)
                written += len(batch.messages)
            except BackendUnavailable:
                self._pause(backoff)
                continue
            except Exception as error:
                is_elsewhere = isinstance(error, InvalidOption)  # the URL leads to another kind of server
                if is_elsewhere or (isinstance(error, PublishRefused) and error.reason == "unauthenticated"):
                    # Nothing of it is any message's fault, and none could go on without the others.
                    if not shut_out:
                        why = "is none" if is_elsewhere else "lets nobody in"
                        logger.error("%d messages wait, %s %s: %s", len(line), line.where, why, error)
                    shut_out = True
                    self._pause(backoff)
                    continue
                instead = self._without(batch, error)
                lost += len(batch.messages) if not instead else 0
            backoff.reset()
            if not self._abandoned:
                line.done(batch, instead)
        if self._abandoned:
            forks.rest()
        if written or lost:
            logger.warning(
                "%s is back; wrote %d messages after %.1f s%s",
                line.where,
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
