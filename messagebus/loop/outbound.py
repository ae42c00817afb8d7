"""One subscriber's way out: bytes in, never blocking, bounded. No HTTP, no channels.

Two kinds with the same face: :class:`SocketWriter` owns a taken socket and lives in the reactor;
:class:`BlockingWriter` is iterated by a WSGI server that gives its sockets to nobody. All methods are called in
the reactor's loop, except where it says otherwise.
"""

from __future__ import annotations

import contextlib
import queue
import sys

# Not socket.socket: under gevent that is a class that waits for its greenlet's turn, and it is three times the size.
from _socket import IPPROTO_TCP, SHUT_WR, TCP_NODELAY
from _socket import socket as RawSocket
from collections.abc import Iterator
from typing import Protocol

from .poller import WRITABLE
from .reactor import Reactor

READ_SIZE = 65_536
LINGER_SECONDS = 2.0
LOOK_SECONDS = 10.0
"""How often a server's waiting thread looks whether the loop is still there."""
JOIN_SIZE = 65_536
"""Up to this many bytes, copying pieces together is cheaper than naming each to the kernel."""
MAX_PIECES = 256
TCP_USER_TIMEOUT = 18  # <linux/tcp.h>; unknown elsewhere
DEAD_PEER_SECONDS = 60
"""A peer that acknowledges nothing for so long, a heartbeat included, is gone."""


class OutboundListener(Protocol):
    """Whose connection it is."""

    def on_data(self, data: bytes) -> None:
        """The peer sent something."""

    def on_deadline(self) -> None:
        """The connection's deadline has come."""

    def on_slow(self) -> None:
        """More waits for the peer than it may; the owner is expected to end the connection."""

    def on_closed(self) -> None:
        """The connection has ended, whoever ended it. Called once."""


class Outbound(Protocol):
    """What both kinds of connection can do."""

    tick: int

    def put(self, data: bytes) -> None:
        """Send this, in the order of these calls. Never blocks; what is put in one turn leaves in one write."""

    def allow(self, size: int) -> None:
        """Let ``size`` more bytes wait than ``limit``."""

    def finish(self) -> None:
        """Close when everything that was put has been sent."""

    def abort(self) -> None:
        """Close now."""

    def on_deadline(self) -> None: ...


class SocketWriter:
    """A taken socket."""

    __slots__ = (
        "_limit",
        "_lingering",
        "_lingers",
        "_out",
        "_owner",
        "_reactor",
        "_size",
        "_sock",
        "closed",
        "finishing",
        "tick",
    )

    def __init__(
        self, sock: RawSocket, reactor: Reactor, owner: OutboundListener, limit: int, lingers: bool = False
    ) -> None:
        """``limit``: bytes that may wait for a slow peer. ``lingers``: after the last byte go on reading, and throwing
        away, for a moment: to close a socket with unread input is to reset it, and a reset overtakes the farewell."""
        self._sock = sock
        self._reactor = reactor
        self._owner = owner
        self._limit = limit
        # What is to be sent: nearly always one piece, shared with thousands, and then no list of its own for it.
        self._out: bytes | list[bytes | memoryview] | None = None
        self._size = 0  # bytes that wait for the peer to read; 0 while it keeps up
        self._lingers = lingers
        self._lingering = False
        self.closed = False
        self.finishing = False
        self.tick = 0
        sock.setblocking(False)
        with contextlib.suppress(OSError):  # a unix socket has neither
            sock.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
            if sys.platform == "linux":
                sock.setsockopt(IPPROTO_TCP, TCP_USER_TIMEOUT, DEAD_PEER_SECONDS * 1000)
        reactor.add(sock.fileno(), self)

    def put(self, data: bytes) -> None:
        out = self._out
        if out is None:
            if not self.closed:
                self._out = data
                self._reactor.mark_dirty(self)
            return
        if isinstance(out, bytes):
            self._out = [out, data]
            return
        out.append(data)
        if self._size:
            self._size += len(data)
            if self._size > self._limit:
                self._owner.on_slow()

    def allow(self, size: int) -> None:
        self._limit += size

    def finish(self) -> None:
        self.finishing = True
        if self._out is None:
            self._finished()

    def abort(self) -> None:
        if self.closed:
            return
        self.closed = True
        self._out = None
        self._reactor.clear_deadline(self)
        self._reactor.remove(self._sock.fileno())
        self._sock.close()
        if not self._lingering:
            self._owner.on_closed()

    def _finished(self) -> None:
        if not self._lingers or self.closed:
            self.abort()
        elif not self._lingering:
            with contextlib.suppress(OSError):  # the peer has gone meanwhile, which reading will tell
                self._sock.shutdown(SHUT_WR)
            self._reactor.set_deadline(self, LINGER_SECONDS)
            self._owner.on_closed()
            self._lingering = True

    def abandon(self) -> None:
        self.closed = True
        self._sock.close()

    def flush(self) -> None:
        out = self._out
        if out is None or self._size:  # closed, or waiting until the socket is writable
            return
        if isinstance(out, list):
            self._send(out)
            return
        try:
            sent = self._sock.send(out)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.abort()
            return
        if sent == len(out) and not self.finishing:
            self._out = None
        else:
            self._note_sent([out], sent, len(out))

    def on_events(self, events: int) -> None:
        if events & ~WRITABLE:  # errors and hang-ups show when reading
            self._read()
        out = self._out
        if events & WRITABLE and isinstance(out, list):
            self._send(out)

    def on_deadline(self) -> None:
        if self._lingering:
            self.abort()
        else:
            self._owner.on_deadline()

    def _read(self) -> None:
        try:
            data = self._sock.recv(READ_SIZE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.abort()
        elif not self.finishing:
            self._owner.on_data(data)

    def _send(self, out: list[bytes | memoryview]) -> None:
        size = self._size or sum(map(len, out))
        try:
            if len(out) > 1 and size <= JOIN_SIZE:
                out[:] = [b"".join(out)]
            sent = self._sock.send(out[0]) if len(out) == 1 else self._sock.sendmsg(out[:MAX_PIECES])
        except BlockingIOError:
            sent = 0
        except OSError:
            self.abort()
            return
        self._note_sent(out, sent, size)

    def _note_sent(self, out: list[bytes | memoryview], sent: int, size: int) -> None:
        """The socket has taken ``sent`` of the ``size`` bytes in ``out``; the rest waits until it is writable."""
        was_waiting = self._size
        self._size = size - sent
        if sent == size:
            self._out = None
            if was_waiting:
                self._reactor.watch_writable(self._sock.fileno(), False)
            if self.finishing:
                self._finished()
            return
        _drop_sent(out, sent)
        self._out = out
        if not was_waiting:
            self._reactor.watch_writable(self._sock.fileno(), True)
            if self._size > self._limit:
                self._owner.on_slow()


def _drop_sent(out: list[bytes | memoryview], sent: int) -> None:
    whole = 0
    while sent and sent >= len(out[whole]):
        sent -= len(out[whole])
        whole += 1
    del out[:whole]
    if sent:
        out[0] = memoryview(out[0])[sent:]


class BlockingWriter:
    """A WSGI server's iterable: it waits in the server's thread or greenlet, and takes what the loop puts."""

    __slots__ = ("_limit", "_owner", "_queue", "_reactor", "_size", "closed", "finishing", "tick")

    def __init__(self, reactor: Reactor, owner: OutboundListener, limit: int) -> None:
        self._reactor = reactor
        self._owner = owner
        self._limit = limit
        self._queue: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._size = 0
        self.closed = False
        self.finishing = False
        self.tick = 0

    def put(self, data: bytes) -> None:
        if self.closed or self.finishing:
            return
        self._queue.put(data)
        self._size += len(data)
        if self._size > self._limit:
            self._owner.on_slow()

    def allow(self, size: int) -> None:
        self._limit += size

    def finish(self) -> None:
        self.finishing = True
        self._queue.put(None)

    def abort(self) -> None:
        if not self.closed:
            self.closed = True
            self._reactor.clear_deadline(self)
            self._queue.put(None)
            self._owner.on_closed()

    def on_deadline(self) -> None:
        self._owner.on_deadline()

    # --- in the server's thread ---

    def __iter__(self) -> Iterator[bytes]:
        try:
            while (data := self._next()) is not None:
                yield data
                self._reactor.call_soon(self._taken, len(data))
        finally:
            self.close()

    def _next(self) -> bytes | None:
        while True:
            try:
                return self._queue.get(timeout=LOOK_SECONDS)
            except queue.Empty:
                if self._reactor.stopped:  # before it came to this connection, so that nobody will end it
                    return None

    def close(self) -> None:
        """As a WSGI server does when it has no more use for the response, begun or not (PEP 3333)."""
        self._reactor.call_soon(self.abort)

    def _taken(self, size: int) -> None:
        self._size -= size
