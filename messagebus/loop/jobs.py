"""Runs calls that may block outside of the loop: in one of a few threads, or in a greenlet under gevent."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from .poller import gevent_is_in_charge

logger = logging.getLogger("messagebus.loop")

Call = Callable[[], object]
LINGER_SECONDS = 0.1
"""How long a thread that has nothing to do waits for one more call, which finds it awake sooner than a new one."""


class Jobs:
    """Runs calls side by side, ``threads`` of them at a time; the others wait for their turn. Under gevent each has a
    greenlet of its own, and none waits. ``start`` may be called from anywhere."""

    def __init__(self, threads: int, name: str) -> None:
        self._threads = threads
        self._name = name
        self._pool: Any = None  # made when first needed: a process without such calls has no such threads
        self._lock = threading.Lock()  # of what follows
        self._running = 0
        """Threads that run a call, or wait for one."""
        self._lingering: list[_Place] = []
        """Where those are that wait. The last one, whose memory is the warmest, gets the next call."""
        self._calls: deque[Call] = deque()
        self._stopped = False

    def start(self, call: Call) -> None:
        """Run ``call``. What it raises is logged.

        Raises:
            RuntimeError: It is not run: these jobs are stopped, the interpreter ends, or the system gives no thread and
                none is there.
        """
        if gevent_is_in_charge():
            import gevent

            gevent.spawn(call)
            return
        with self._lock:
            if self._stopped:
                raise RuntimeError(f"{self._name}: no job may begin any more")
            if self._lingering:
                self._lingering.pop().give(call)
            elif self._running < self._threads:
                try:
                    self._begin_thread(call)
                except RuntimeError:
                    if not self._running:
                        raise
                    self._calls.append(call)  # for those that are there
                else:
                    self._running += 1
            else:
                self._calls.append(call)

    def _begin_thread(self, call: Call) -> None:
        if self._pool is None:
            from concurrent.futures import ThreadPoolExecutor

            self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix=self._name)
        place = _Place()
        place.give(call)
        try:
            self._pool.submit(self._work, place)
        except RuntimeError:
            # The pool has queued it all the same, and counts a thread that it does not have.
            place.take()
            self._pool.shutdown(wait=False)
            self._pool = None
            raise

    def _work(self, place: _Place) -> None:
        while True:
            if not place.wait(LINGER_SECONDS):
                with self._lock:
                    if place in self._lingering:
                        self._lingering.remove(place)
                        self._running -= 1
                        return
                place.wait()  # it was given a call meanwhile
            call = place.take()
            if call is None:
                return  # it was taken back
            _run(call)
            del call  # nothing of it stays while the thread waits
            with self._lock:
                if self._calls:
                    place.give(self._calls.popleft())
                else:
                    self._lingering.append(place)

    def stop(self) -> None:
        """Accept no more calls, and forget those that wait; running ones finish."""
        with self._lock:
            self._stopped = True
            self._calls.clear()
        if self._pool is not None:
            self._pool.shutdown(wait=False)


class _Place:
    """Where a thread waits for a call. In Python 3.11 a ``queue.SimpleQueue`` may wait far beyond its timeout."""

    __slots__ = ("_call", "_given")

    def __init__(self) -> None:
        self._call: Call | None = None
        self._given = threading.Lock()
        self._given.acquire()

    def give(self, call: Call) -> None:
        self._call = call
        self._given.release()

    def wait(self, seconds: float = -1) -> bool:
        """Whether a call was given; then it is to be taken. Below 0: wait for as long as it takes."""
        return self._given.acquire(timeout=seconds)

    def take(self) -> Call | None:
        """The call, of which nothing stays here; ``None``: it was taken before."""
        call, self._call = self._call, None
        return call


def _run(call: Call) -> None:
    try:
        call()
    except BaseException:  # the thread goes on with others' calls
        logger.exception("a call that was begun in the background failed")


def start_thread(call: Callable[[], object], name: str) -> None:
    """Run ``call``, which must not raise, in a thread of its own that keeps no process from ending, or in a greenlet.
    May be called in the loop.

    Raises:
        RuntimeError: The system gives no more threads.
    """
    if gevent_is_in_charge():
        import gevent

        gevent.spawn(call)  # the patched Thread waits for its start, which the loop may not
    else:
        threading.Thread(target=call, name=name, daemon=True).start()
