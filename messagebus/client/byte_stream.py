"""A connection of bytes, TLS or not, on which every wait has a deadline and can be woken.

This is why neither urllib3 nor ``websockets.sync`` is underneath: both block in a read which only closing the socket
from another thread can end, and which sees no difference between "stop" and "there is one more channel to ask for"; a
read that is not yet a response, as of a held poll, cannot be ended at all; and the latter reads in a thread of its own.
So h11 and the protocol class of websockets, both without I/O, do HTTP and WebSocket; sockets and TLS are the standard
library's; the waiting is in ``waiting``.
"""

from __future__ import annotations

import errno
import os
import selectors
import socket
import ssl
from collections import deque
from collections.abc import Callable, Sequence
from itertools import zip_longest

from .settings import Address
from .waiting import AddressInfo, Waiter

READ_SIZE = 65_536
HEAD_START = 0.25
"""Seconds that an address has before the next one is tried beside it (RFC 8305, section 8)."""


class ByteStream:
    """One connection; not safe to share between threads. Its methods raise OSError where it breaks."""

    def __init__(self, waiter: Waiter, sock: socket.socket) -> None:
        """Use :meth:`connect`."""
        self.heard = waiter.clock()
        """When the last bytes came."""
        self.received = 0
        self._waiter = waiter
        self._sock = sock

    @classmethod
    async def connect(
        cls, waiter: Waiter, address: Address, context: ssl.SSLContext | None, deadline: float
    ) -> ByteStream:
        """Connect, with TLS where there is a context. Raises OSError, TimeoutError, Stopped."""
        sock = await _connect(waiter, address, deadline)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if context is not None:
                sock = context.wrap_socket(sock, server_hostname=address.host, do_handshake_on_connect=False)
                while (events := _attempt(sock.do_handshake)) != 0:
                    await waiter.wait_through(deadline, sock, events)
        except BaseException:
            sock.close()
            raise
        return cls(waiter, sock)

    async def send(self, data: bytes, deadline: float) -> None:
        """Send it all, whatever else happens but a stop. Raises TimeoutError."""
        view = memoryview(data)
        while view:
            try:
                view = view[self._sock.send(view) :]
            except (BlockingIOError, ssl.SSLWantWriteError):
                await self._waiter.wait_through(deadline, self._sock, selectors.EVENT_WRITE)
            except ssl.SSLWantReadError:
                await self._waiter.wait_through(deadline, self._sock, selectors.EVENT_READ)

    def send_now(self, data: bytes) -> None:
        """Send what can be sent without waiting: a farewell."""
        try:
            self._sock.send(data)
        except OSError:
            pass  # it has gone, or is busy; it will be closed

    async def receive(self, deadline: float) -> bytes | None:
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
            if not await self._waiter.wait(deadline, self._sock, events):
                return None

    async def receive_through(self, deadline: float) -> bytes:
        """As :meth:`receive`, but go on when woken. Raises TimeoutError."""
        while (data := await self.receive(deadline)) is None:
            if self._waiter.clock() >= deadline:
                raise TimeoutError("no answer came in time")
        return data

    def close(self) -> None:
        self._sock.close()


async def _connect(waiter: Waiter, address: Address, deadline: float) -> socket.socket:
    """Connect to whichever of the host's addresses answers first. The next one is tried beside those before it after
    :data:`HEAD_START`, so that an address that swallows everything costs no more than that (RFC 8305, section 5)."""
    todo = deque(_interleaved(await waiter.resolve(address.host, address.port)))
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
            until = min(deadline, next_at) if todo else deadline
            for sock in await waiter.wait_for_any(until, trying, selectors.EVENT_WRITE):
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
