"""Where a client waits: for sockets, until a deadline, or until it is woken.

The client's parts are written once, as coroutines that wait nowhere but here. :class:`BlockingWaiter` blocks the
client's own thread, so that a coroutine over it never suspends, and :func:`run_blocking` runs it through. The waiter of
``async_waiting`` waits in an event loop.
"""

from __future__ import annotations

import selectors
import socket
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any, TypeVar

from ..loop.poller import Waker

T = TypeVar("T")
LONGEST_WAIT = 10.0
"""Seconds. A system's wait does not count the time that the computer was asleep; the clock does."""
AddressInfo = tuple[int, int, int, str, Any]


def clock() -> float:
    """Seconds on a clock that nobody can set, and that goes on while the computer sleeps where the system has one."""
    return _clock()


_clock: Callable[[], float] = (
    partial(time.clock_gettime, time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic
)


def run_blocking(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end that waits in a :class:`BlockingWaiter` only."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    coroutine.close()
    raise TypeError("a coroutine of the blocking client waited for something else; use AsyncClient")


class Stopped(Exception):
    """The client was stopped while it waited."""


class Waiter(ABC):
    """The one place where a client waits. :meth:`wake` and :meth:`stop` are safe from any thread."""

    def __init__(self) -> None:
        self.clock = clock
        self.stopping = False

    @abstractmethod
    def wake(self) -> None:
        """Have the wait under way, or else the next one, return."""

    def stop(self) -> None:
        """Have this and every further wait raise :class:`Stopped`."""
        self.stopping = True
        self.wake()

    @abstractmethod
    def close(self) -> None:
        """For whoever waits, when it is done."""

    @abstractmethod
    async def resolve(self, host: str, port: int) -> Sequence[AddressInfo]:
        """A host's addresses, in the system's order. Raises OSError."""

    @abstractmethod
    async def _wait(self, seconds: float | None, socks: Sequence[socket.socket], events: int) -> list[socket.socket]:
        """The sockets that are ready; none after that time, or when woken."""

    async def wait_for_any(
        self, deadline: float | None, socks: Sequence[socket.socket], events: int
    ) -> list[socket.socket]:
        """Wait until some of these sockets are ready, or have failed, and return those. None by the deadline, or where
        somebody has called :meth:`wake`."""
        self.check()
        left = LONGEST_WAIT if deadline is None else min(max(0.0, deadline - self.clock()), LONGEST_WAIT)
        ready = await self._wait(left, socks, events)
        self.check()
        return ready

    async def wait(self, deadline: float | None, sock: socket.socket | None = None, events: int = 0) -> bool:
        """Wait for a socket; ``False`` where the deadline (by ``clock``) has come, or somebody has called
        :meth:`wake`."""
        return bool(await self.wait_for_any(deadline, [] if sock is None else [sock], events))

    async def wait_through(self, deadline: float, sock: socket.socket, events: int) -> None:
        """As :meth:`wait`, but go on when woken.

        Raises:
            TimeoutError: The deadline has come.
        """
        while not await self.wait(deadline, sock, events):
            if self.clock() >= deadline:
                raise TimeoutError("no answer came in time")
            # Whoever woke it wanted something that is looked for when this is done.

    def check(self) -> None:
        """Raises Stopped."""
        if self.stopping:
            raise Stopped


class BlockingWaiter(Waiter):
    """Blocks the thread that waits."""

    def __init__(self) -> None:
        super().__init__()
        self._waker = Waker()
        # Looked up when it is used: gevent's patching may have come after the import.
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._waker.fileno(), selectors.EVENT_READ)
        # A pipe's number may be another file's as soon as it is closed.
        self._lock = threading.Lock()
        self._open = True

    def wake(self) -> None:
        with self._lock:
            if self._open:
                self._waker.wake()

    def close(self) -> None:
        with self._lock:
            self._open = False
            self._selector.close()
            self._waker.close()

    async def resolve(self, host: str, port: int) -> Sequence[AddressInfo]:
        # The one thing that cannot be woken: the standard library has no other way to ask for names.
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)

    async def _wait(self, seconds: float | None, socks: Sequence[socket.socket], events: int) -> list[socket.socket]:
        for sock in socks:
            self._selector.register(sock, events)
        try:
            ready = [key.fileobj for key, _ in self._selector.select(seconds)]
        finally:
            for sock in socks:
                self._selector.unregister(sock)
        if self._waker.fileno() in ready:
            self._waker.clear()
        return [sock for sock in socks if sock in ready]
