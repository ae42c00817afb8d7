"""The one poll loop over all taken sockets, its clock, and its two drivers. No HTTP, no channels.

Without gevent a daemon thread runs the loop. Where gevent has patched the process, the poller's own descriptor is
watched by gevent's loop, and the same turn runs in a callback of it. Everything that the loop calls runs in that one
place, one call at a time, and must never block; everybody else hands work over with :meth:`Reactor.call_soon`.
"""

from __future__ import annotations

import heapq
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from .jobs import Jobs
from .poller import PEER_CLOSED, READABLE, WRITABLE, Poller, Waker, gevent_is_in_charge, open_poller

logger = logging.getLogger("messagebus.loop")

TICK = 0.1
"""Precision of deadlines in seconds, so that those of many connections fall into one turn."""
EVENTS_PER_TURN = 512
SPAWNED_THREADS = 4
AGAIN_SECONDS = 1.0
"""Until a call is tried again for which the system gave no thread."""
_READ = READABLE | PEER_CLOSED


class HasDeadline(Protocol):
    """Something with a deadline."""

    tick: int
    """The tick it is due at, 0 for none; maintained by the reactor."""

    def on_deadline(self) -> None:
        """The deadline has passed."""


class Handler(HasDeadline, Protocol):
    """A socket that the reactor watches, and what to do when something happens to it."""

    def on_events(self, events: int) -> None:
        """The poller reported these events."""

    def flush(self) -> None:
        """The turn is over: write what was put in it."""

    def abandon(self) -> None:
        """Close the descriptor, and do nothing else."""


class Reactor:
    """See the module. Only :meth:`call_soon`, :meth:`spawn`, :meth:`start` and :meth:`stop` may be called from
    outside the loop."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, poller: Poller | None = None) -> None:
        self.clock = clock
        self._poller = poller or open_poller()
        self._waker = Waker()
        self._poller.register(self._waker.fileno(), READABLE)
        self._handlers: dict[int, Handler] = {}
        self._calls: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._awake = False
        self._dirty: list[Handler] = []
        self.mark_dirty: Callable[[Handler], object] = self._dirty.append
        """Have a handler's ``flush`` called when the turn is over: what is put in one turn leaves in one write. In the
        loop only. Once for each delivery, so it is the list's own method, without a call more around it."""
        self._due: dict[int, set[HasDeadline]] = {}
        self._ticks: list[int] = []
        self.stopped = False
        self._jobs = Jobs(SPAWNED_THREADS, "messagebus-job")
        self._lacks_threads = False
        self._driver: _ThreadDriver | _GeventDriver = (
            _GeventDriver(self) if gevent_is_in_charge() else _ThreadDriver(self)
        )

    def start(self) -> None:
        self._driver.start()

    def stop(self) -> None:
        """End the loop after the calls that were handed over. Handlers have to close their sockets before."""
        self.stopped = True
        self._wake()

    def abandon(self) -> None:
        """In a forked child: close inherited descriptors. The parent's connections stay open."""
        self.stopped = True
        self._driver.abandon()
        self._close()

    # --- from anywhere ---

    def call_soon(self, call: Callable[..., object], *args: Any) -> None:
        """Run ``call(*args)`` in the loop, in the order of these calls. Never blocks."""
        self._calls.append((call, args))
        if not self._awake:
            self._wake()

    def spawn(self, call: Callable[[], object]) -> None:
        """Run ``call`` where it may block: in one of a few threads, or in a greenlet. Where the system gives no thread,
        it runs as soon as there is one: who waits for what comes of it waits for a while, and not for ever."""
        try:
            self._jobs.start(call)
            self._lacks_threads = False
        except RuntimeError as error:
            if self.stopped:
                return
            if not self._lacks_threads:
                self._lacks_threads = True
                logger.error("the bus's work in the background waits: %s", error)
            self.call_soon(self.set_deadline, _PutOff(self, call), AGAIN_SECONDS)

    def _wake(self) -> None:
        self._awake = True
        self._waker.wake()

    # --- in the loop ---

    def add(self, fd: int, handler: Handler) -> None:
        self._handlers[fd] = handler
        self._poller.register(fd, _READ)

    def remove(self, fd: int) -> None:
        """Forget a descriptor; to be called before it is closed."""
        if self._handlers.pop(fd, None) is not None:
            self._poller.unregister(fd)

    def watch(self, fd: int, *, readable: bool, writable: bool) -> None:
        """What a descriptor is watched for. That its peer has gone is told in any case."""
        self._poller.modify(fd, (_READ if readable else PEER_CLOSED) | (WRITABLE if writable else 0))

    def set_deadline(self, timed: HasDeadline, seconds: float) -> None:
        """Call ``on_deadline`` in about ``seconds``; replaces an earlier deadline."""
        self.clear_deadline(timed)
        tick = int((self.clock() + seconds) / TICK) + 1
        bucket = self._due.get(tick)
        if bucket is None:
            bucket = self._due[tick] = set()
            heapq.heappush(self._ticks, tick)
        bucket.add(timed)
        timed.tick = tick

    def clear_deadline(self, timed: HasDeadline) -> None:
        if timed.tick:
            bucket = self._due.get(timed.tick)
            if bucket is not None:
                bucket.discard(timed)
            timed.tick = 0

    def turn(self, wait: float) -> bool:
        """One turn: what was handed over, what happened on the sockets, what is due, then one write per socket.

        ``wait`` is how many seconds to wait for something to happen, negative for as long as it takes. Returns
        whether the loop goes on."""
        events = self._poller.poll(wait, EVENTS_PER_TURN)
        # Not where `_awake` says so alone: a turn may come between the setting of it and the byte that follows, and
        # that byte would keep every further turn from waiting.
        if self._awake or (self._waker.fileno(), READABLE) in events:
            self._waker.clear()
            # Before the calls are run, not after: what is handed over from now on wakes the loop again.
            self._awake = False
        self._run_calls()
        for fd, mask in events:
            handler = self._handlers.get(fd)
            if handler is not None:
                self._guard(handler.on_events, mask)
        self._run_due()
        if self._dirty:
            dirty = self._dirty[:]
            self._dirty.clear()
            for handler in dirty:
                try:  # as in _guard, without a call more for each connection
                    handler.flush()
                except Exception:
                    logger.exception("%r failed in the loop", handler)
            if self._dirty:  # a handler whose last byte has left was given more
                self._wake()
        return not (self.stopped and not self._calls)

    def seconds_to_next(self) -> float:
        """Seconds until something is due, -1 if nothing is."""
        if not self._ticks:
            return -1
        return max(0.0, self._ticks[0] * TICK - self.clock())

    def _run_calls(self) -> None:
        calls = self._calls
        for _ in range(len(calls)):  # what is added meanwhile waits for the next turn, so that sockets get theirs
            call, args = calls.popleft()
            self._guard(call, *args)
        if calls:
            self._wake()

    def _run_due(self) -> None:
        now = self.clock() / TICK
        while self._ticks and self._ticks[0] <= now:
            tick = heapq.heappop(self._ticks)
            for timed in self._due.pop(tick):
                if timed.tick == tick:  # one that came before it may have cleared or moved it
                    timed.tick = 0
                    self._guard(timed.on_deadline)

    def _guard(self, call: Callable[..., object], *args: Any) -> None:
        # A bug in one connection's handling must not end the loop that serves all of them.
        try:
            call(*args)
        except Exception:
            logger.exception("%r failed in the loop", call)

    def _close(self) -> None:
        for handler in self._handlers.values():
            handler.abandon()
        self._handlers.clear()
        self._poller.close()
        self._waker.close()


class _PutOff:
    """A call for which there was no thread."""

    def __init__(self, reactor: Reactor, call: Callable[[], object]) -> None:
        self._reactor = reactor
        self._call = call
        self.tick = 0

    def on_deadline(self) -> None:
        self._reactor.spawn(self._call)


class _ThreadDriver:
    def __init__(self, reactor: Reactor) -> None:
        self._reactor = reactor
        self._thread = threading.Thread(target=self._run, name="messagebus-reactor", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def abandon(self) -> None:
        pass  # a fork leaves other threads behind

    def _run(self) -> None:
        reactor = self._reactor
        while reactor.turn(reactor.seconds_to_next()):
            pass
        reactor._close()
        reactor._jobs.stop()


class _GeventDriver:
    def __init__(self, reactor: Reactor) -> None:
        import gevent

        self._reactor = reactor
        self._loop = gevent.get_hub().loop
        # Without a reference: the loop must not be what keeps a program from ending.
        self._readable = self._loop.io(reactor._poller.fileno(), 1, ref=False)
        self._timer: Any = None
        self._timer_tick = 0

    def start(self) -> None:
        self._readable.start(self._turn)

    def rearm(self) -> None:
        """Let gevent's timer go off at the earliest tick."""
        ticks = self._reactor._ticks
        if not ticks or ticks[0] == self._timer_tick:
            return
        self._stop_timer()
        self._timer_tick = ticks[0]
        # libev counts from the time its turn began; update=True makes it look at the clock.
        self._timer = self._loop.timer(self._reactor.seconds_to_next(), ref=False)
        self._timer.start(self._on_timer, update=True)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.stop()
            self._timer.close()
            self._timer = None
        self._timer_tick = 0

    def abandon(self) -> None:
        self._stop_timer()
        self._readable.stop()
        self._readable.close()

    def _on_timer(self) -> None:
        self._stop_timer()
        self._turn()

    def _turn(self) -> None:
        if self._reactor.turn(0):
            self.rearm()
            return
        self.abandon()
        self._reactor._close()
