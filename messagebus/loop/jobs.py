"""Runs calls that may block outside of the loop: in one of a few threads, or in a greenlet under gevent."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from .poller import gevent_is_in_charge


class Jobs:
    """Runs calls side by side, ``threads`` of them at a time; the others wait for their turn. Under gevent each has a
    greenlet of its own, and none waits. ``start`` may be called from anywhere."""

    def __init__(self, threads: int, name: str) -> None:
        self._threads = threads
        self._name = name
        self._pool: Any = None  # made when first needed: a process without such calls has no such threads

    def start(self, call: Callable[[], object]) -> None:
        """Run ``call``, which must not raise."""
        if gevent_is_in_charge():
            import gevent

            gevent.spawn(call)
            return
        if self._pool is None:
            from concurrent.futures import ThreadPoolExecutor

            self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix=self._name)
        self._pool.submit(call)

    def stop(self) -> None:
        """Accept no more calls; running ones finish."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)


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
