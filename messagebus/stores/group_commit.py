"""Group commit: what several threads want to write at the same time is written in one transaction, by one of them."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

Job = TypeVar("Job")

MAX_JOBS = 100
"""Jobs of one transaction."""


class Waiting(Generic[Job]):
    """A job that waits for a leader, or whose thread is to lead."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.result: object = None
        self.error: BaseException | None = None
        self.done = False
        self.leads = False
        self.event: threading.Event | None = None
        """Set when it is done or leads. One that leads at once, as nearly all do, needs none."""

    def wake(self) -> None:
        if self.event is not None:
            self.event.set()


class GroupCommit(Generic[Job]):
    """Safe from any thread and any greenlet. ``write`` is called by one thread at a time with what waits. It sets each
    one's ``result`` or ``error``; what it raises is the error of all that have neither."""

    def __init__(self, write: Callable[[Sequence[Waiting[Job]]], None]) -> None:
        self._write = write
        # Nothing is waited for under it, so it may be made before gevent patches the process.
        # Reentrant, for signal handlers.
        self._lock = threading.RLock()
        self._leader: int | None = None
        self._queue: deque[Waiting[Job]] = deque()
        self._led = False

    def run(self, job: Job) -> object:
        """Wait until the job has been written, and return its result, or raise its error."""
        mine = Waiting(job)
        if self._leader == threading.get_ident():
            # A signal handler that cut into a write of its own thread, which it must not wait for.
            self._write([mine])
            return _outcome(mine)
        with self._lock:
            self._queue.append(mine)
            mine.leads = not self._led
            self._led = True
            if not mine.leads:
                mine.event = threading.Event()
        try:
            if mine.event is not None:
                mine.event.wait()
            if mine.leads:
                self._lead(mine)
        except BaseException:  # a timeout of gevent's, KeyboardInterrupt
            with self._lock:
                if mine in self._queue:
                    self._queue.remove(mine)
            if mine.leads:
                self._hand_over(mine)
            raise
        return _outcome(mine)

    def _lead(self, mine: Waiting[Job]) -> None:
        with self._lock:
            # It is the first: a leader is always the first that waits.
            batch = [self._queue.popleft() for _ in range(min(len(self._queue), MAX_JOBS))]
        self._leader = threading.get_ident()
        try:
            self._write(batch)
        except Exception as error:
            for each in batch:
                each.error = each.error or error
        except BaseException:
            for each in batch:
                each.error = each.error or RuntimeError("the thread that was writing was ended")
            raise
        finally:
            self._leader = None
            for each in batch:
                each.done = True
                each.wake()
        self._hand_over(mine)

    def _hand_over(self, mine: Waiting[Job]) -> None:
        """The next one leads; without one, whoever comes."""
        with self._lock:
            if not mine.leads:
                return
            mine.leads = False
            if not self._queue:
                self._led = False
                return
            following = self._queue[0]
            following.leads = True
        following.wake()


def _outcome(waiting: Waiting[Job]) -> object:
    if waiting.error is not None:
        raise waiting.error
    return waiting.result
