"""The order of calls into the program: one after the other for each subscription, a few at a time for each client.

In the reactor's loop only. The calls themselves run in jobs, where they may block."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial

Call = Callable[[], object]
"""Must not raise."""
MAX_AT_ONCE = 4
"""Calls of one client that run at the same time, each of another subscription: so many of the threads for all."""
MAX_WAITING = 100
"""Actions of one subscription that wait for their turn; more are refused."""


class Turns:
    """Those of one client."""

    __slots__ = ("__weakref__", "_call_soon", "_ready", "_running", "_start")

    def __init__(self, start: Callable[[Call], object], call_soon: Callable[..., object]) -> None:
        """``start``: runs a call where it may block. ``call_soon``: hands one over to the loop."""
        self._start = start
        self._call_soon = call_soon
        self._ready: deque[Line] = deque()
        self._running = 0

    def ready(self, line: Line) -> None:
        """A line has a call, and none of it runs."""
        self._ready.append(line)
        self._go_on()

    def _go_on(self) -> None:
        while self._ready and self._running < MAX_AT_ONCE:
            line = self._ready.popleft()
            call = line.take()
            if call is not None:
                self._running += 1
                self._start(partial(self._run, line, call))

    def _run(self, line: Line, call: Call) -> None:
        try:
            call()
        finally:
            self._call_soon(self._done, line)

    def _done(self, line: Line) -> None:
        self._running -= 1
        line.done()
        self._go_on()


class Line:
    """The calls of one subscription, in their order."""

    __slots__ = ("_is_queued", "_turns", "_waiting")

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self._waiting: deque[Call] = deque()
        self._is_queued = False  # with a call that is ready, or runs

    def put(self, call: Call) -> bool:
        """Add a call. ``False``: too many wait, and it is dropped."""
        if len(self._waiting) >= MAX_WAITING:
            return False
        self._waiting.append(call)
        self._queue()
        return True

    def put_last(self, call: Call) -> None:
        """Add a call, however many wait. They are made all the same: each has to answer that nothing comes of it."""
        self._waiting.append(call)
        self._queue()

    def take(self) -> Call | None:
        if self._waiting:
            return self._waiting.popleft()
        self._is_queued = False
        return None

    def done(self) -> None:
        self._is_queued = False
        self._queue()

    def _queue(self) -> None:
        if self._waiting and not self._is_queued:
            self._is_queued = True
            self._turns.ready(self)
