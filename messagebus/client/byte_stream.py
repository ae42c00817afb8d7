"""A connection of bytes, TLS or not, on which every wait has a deadline and can be woken from another thread.

This is why neither urllib3 nor ``websockets.sync`` is underneath: both block in a read which only closing the socket
from another thread can end, and which sees no difference between "stop" and "there is one more channel to ask for"; a
read that is not yet a response, as of a held poll, cannot be ended at all; and the latter reads in a thread of its own.
So h11 and the protocol class of websockets, both without I/O, do HTTP and WebSocket; sockets and TLS are the standard
library's; the waiting is here.
"""

from __future__ import annotations

import errno
import os
import selectors
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from itertools import zip_longest
from typing import Any

from ..loop.poller import Waker
from .settings import Address

READ_SIZE = 65_536
LONGEST_WAIT = 10.0
"""Seconds. A system's wait does not count the time that the computer was asleep; the clock does."""


HEAD_START = 0.25
"""Seconds that an address has before the next one is tried beside it (RFC 8305, section 8)."""
AddressInfo = tuple[int, int, int, str, Any]


def clock() -> float:
    """Seconds on a clock that nobody can set, and that goes on while the computer sleeps where the system has one."""
    return _clock()


_clock: Callable[[], float] = (
    partial(time.clock_gettime, time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic
)


class Stopped(Exception):
    """The client was stopped while it waited."""


class Waiter:
    """The one place where a client's thread waits. :meth:`wake` and :meth:`stop` are safe from any thread."""

    def __init__(self, clock: Callable[[], float] = clock) -> None:
        self.clock = clock
        self.stopping = False
        self._waker = Waker()
        # Looked up when it is used: gevent's patching may have come after the import.
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._waker.fileno(), selectors.EVENT_READ)
        # A pipe's number may be another file's as soon as it is closed.
        self._lock = threading.Lock()
        self._open = True

    def wake(self) -> None:
        """Have the wait under way, or else the next one, return."""
        with self._lock:
            if self._open:
                self._waker.wake()

    def stop(self) -> None:
        """Have this and every further wait raise :class:`Stopped`."""
        self.stopping = True
        self.wake()

    def close(self) -> None:
        """For the waiting thread, when it is done."""
        with self._lock:
            self._open = False
            self._selector.close()
            self._waker.close()

    def wait(self, deadline: float | None, sock: socket.socket | None = None, events: int = 0) -> bool:
        """Wait for a socket; ``False`` where the deadline (by ``clock``) has come, or somebody has called
        :meth:`wake`."""
        self.check()
        left = None if deadline is None else min(max(0.0, deadline - self.clock()), LONGEST_WAIT)
        if sock is not None:
            self._selector.register(sock, events)
        try:
            ready = [key.fileobj for key, _ in self._selector.select(left)]
        finally:
            if sock is not None:
                self._selector.unregister(sock)
        woken = self._waker.fileno() in ready
        if woken:
            self._waker.clear()
        self.check()
        return bool(ready) and not woken

    def wait_for_any(self, deadline: float, socks: Sequence[socket.socket]) -> list[socket.socket]:
        """Wait until some of these sockets can be written to, or have failed, and return those. None by the deadline,
        or where somebody has called :meth:`wake`."""
        self.check()
        left = min(max(0.0, deadline - self.clock()), LONGEST_WAIT)
        for sock in socks:
            self._selector.register(sock, selectors.EVENT_WRITE)
        try:
            ready = [key.fileobj for key, _ in self._selector.select(left)]
        finally:
            for sock in socks:
                self._selector.unregister(sock)
        if self._waker.fileno() in ready:
            self._waker.clear()
        self.check()
        return [sock for sock in socks if sock in ready]

    def wait_through(self, deadline: float, sock: socket.socket, events: int) -> None:
        """As :meth:`wait`, but go on when woken.

        Raises:
            TimeoutError: The deadline has come.
        """
        while not self.wait(deadline, sock, events):
            if self.clock() >= deadline:
                raise TimeoutError("no answer came in time")
            # Whoever woke it wanted something that is looked for when this is done.

    def check(self) -> None:
        """Raises Stopped."""
        if self.stopping:
            raise Stopped


class ByteStream:
    """One connection; not safe to share between threads. Its methods raise OSError where it breaks."""

    def __init__(self, waiter: Waiter, address: Address, context: ssl.SSLContext | None, deadline: float) -> None:
        """Connect, with TLS where there is a context. Raises OSError, TimeoutError, Stopped."""
        self.heard = waiter.clock()
        """When the last bytes came."""
        self.received = 0
        self._waiter = waiter
        sock = _connect(waiter, address, deadline)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if context is not None:
                sock = context.wrap_socket(sock, server_hostname=address.host, do_handshake_on_connect=False)
                while (events := _attempt(sock.do_handshake)) != 0:
                    waiter.wait_through(deadline, sock, events)
        except BaseException:
            sock.close()
            raise
        self._sock = sock

    def send(self, data: bytes, deadline: float) -> None:
        """Send it all, whatever else happens but a stop. Raises TimeoutError."""
        view = memoryview(data)
        while view:
            try:
                view = view[self._sock.send(view) :]
            except (BlockingIOError, ssl.SSLWantWriteError):
                self._waiter.wait_through(deadline, self._sock, selectors.EVENT_WRITE)
            except ssl.SSLWantReadError:
                self._waiter.wait_through(deadline, self._sock, selectors.EVENT_READ)

    def send_now(self, data: bytes) -> None:
        """Send what can be sent without waiting: a farewell."""
        try:
            self._sock.send(data)
        except OSError:
            pass  # it has gone, or is busy; it will be closed

    def receive(self, deadline: float) -> bytes | None:
        """The next bytes; ``b""`` at the end; ``None`` where there are none by the deadline, or it was woken."""
        while True:
            self._waiter.check()
            try:
                data = self._sock.recv(READ_SIZE)
            except (BlockingIOError, ssl.SSLWantReadError):
                events = selectors.EVENT_READ
            except ssl.SSLWantWriteError:
                events = selectors.EVENT_WRITE
            except ssl.SSLEOFError:
                return b""  # no TLS farewell: the protocols above know whether something is missing
            else:
                self.heard = self._waiter.clock()
                self.received += len(data)
                return data
            if not self._waiter.wait(deadline, self._sock, events):
                return None

    def receive_through(self, deadline: float) -> bytes:
        """As :meth:`receive`, but go on when woken. Raises TimeoutError."""
        while (data := self.receive(deadline)) is None:
            if self._waiter.clock() >= deadline:
                raise TimeoutError("no answer came in time")
        return data

    def close(self) -> None:
        self._sock.close()


def _connect(waiter: Waiter, address: Address, deadline: float) -> socket.socket:
    """Connect to whichever of the host's addresses answers first. The next one is tried beside those before it after
    :data:`HEAD_START`, so that an address that swallows everything costs no more than that (RFC 8305, section 5)."""
    # The one thing that cannot be woken: the standard library has no other way to ask for names.
    todo = deque(_interleaved(socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)))
    trying: list[socket.socket] = []
    error: OSError = ConnectionError(f"{address.host} has no address")
    next_at = waiter.clock()
    try:
        while todo or trying:
            if todo and (not trying or waiter.clock() >= next_at):
                family, kind, protocol, _, where = todo.popleft()
                sock = socket.socket(family, kind, protocol)
                trying.append(sock)
                sock.setblocking(False)
                next_at = waiter.clock() + HEAD_START
                code = sock.connect_ex(where)
                if code not in (0, errno.EINPROGRESS):
                    error = _cannot_connect(code, address)
                    trying.remove(sock)
                    sock.close()
                    continue
            for sock in waiter.wait_for_any(min(deadline, next_at) if todo else deadline, trying):
                trying.remove(sock)
                code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if not code:
                    return sock
                error = _cannot_connect(code, address)
                sock.close()
            if waiter.clock() >= deadline:
                raise TimeoutError(f"no connection to {address.authority} in time")
        raise error
    finally:
        for sock in trying:
            sock.close()


def _cannot_connect(code: int, address: Address) -> OSError:
    return OSError(code, f"cannot connect to {address.authority}: {os.strerror(code)}")


def _interleaved(found: Sequence[AddressInfo]) -> list[AddressInfo]:
    """Addresses of one family and the other in turn, in the system's order (RFC 8305, section 4)."""
    first = [info for info in found if info[0] == found[0][0]]
    others = [info for info in found if info[0] != found[0][0]]
    return [info for pair in zip_longest(first, others) for info in pair if info is not None]


def _attempt(handshake: Callable[[], object]) -> int:
    """Zero where it is done, else what it waits for."""
    try:
        handshake()
    except ssl.SSLWantReadError:
        return selectors.EVENT_READ
    except ssl.SSLWantWriteError:
        return selectors.EVENT_WRITE
    return 0
