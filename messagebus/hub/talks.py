"""Counts the application's code that serves connections of its own, so that its threads have a bound, and that who
closes the bus can wait for its end. No HTTP."""

from __future__ import annotations

import threading
import time


class Talks:
    """Safe from any thread."""

    def __init__(self, most: int) -> None:
        """``most``: how many may have a thread of their own at the same time."""
        self._most = most
        self._changed = threading.Condition()
        self._running = self._threads = 0

    def is_full(self) -> bool:
        return self._threads >= self._most

    def begin(self, has_thread: bool) -> bool:
        """Count one that begins. ``False``: there are too many threads, and it must not."""
        with self._changed:
            if has_thread and self.is_full():
                return False
            self._running += 1
            self._threads += has_thread
            return True

    def end(self, has_thread: bool) -> None:
        with self._changed:
            self._running -= 1
            self._threads -= has_thread
            self._changed.notify_all()

    def wait(self, timeout: float) -> int:
        """Wait for the end of all, for ``timeout`` seconds at most. How many still run."""
        deadline = time.monotonic() + timeout
        with self._changed:
            while self._running and (left := deadline - time.monotonic()) > 0:
                self._changed.wait(left)
            return self._running
