"""The writer of a taken socket, which lives in the reactor and never blocks. No HTTP, no channels."""

from __future__ import annotations

import contextlib
import sys

# Not socket.socket: under gevent that is a class that waits for its greenlet's turn, and it is three times the size.
from _socket import IPPROTO_TCP, SHUT_WR, TCP_NODELAY
from _socket import socket as RawSocket
from collections.abc import Sequence

from .outboxes import Outboxes
from .poller import WRITABLE
from .reactor import Reactor
from .writer import WriterOwner

READ_SIZE = 65_536
LINGER_SECONDS = 2.0
JOIN_SIZE = 65_536
"""Up to this many bytes, joining pieces is cheaper than passing each to the kernel."""
MAX_PIECES = 256
TCP_USER_TIMEOUT = 18  # <linux/tcp.h>; unknown elsewhere
DEAD_PEER_SECONDS = 60
"""Seconds without an acknowledgement, heartbeats included, after which the kernel gives up a peer."""


class SocketWriter:
    """A taken socket."""

    __slots__ = (
        "_limit",
        "_lingering",
        "_lingers",
        "_out",
        "_outboxes",
        "_owner",
        "_piece",
        "_reactor",
        "_size",
        "_sock",
        "_tells_when_sent",
        "closed",
        "finishing",
        "tick",
    )

    def __init__(
        self,
        sock: RawSocket,
        reactor: Reactor,
        owner: WriterOwner,
        limit: int,
        outboxes: Outboxes,
        lingers: bool = False,
    ) -> None:
        """``limit``: bytes that may wait for a slow peer. ``outboxes``: where they are counted. ``lingers``: after the
        last byte go on reading, and throwing away, for a moment: to close a socket with unread input is to reset it,
        and a reset overtakes the farewell."""
        self._sock = sock
        self._reactor = reactor
        self._owner = owner
        self._limit = limit
        self._outboxes = outboxes
        # What is to be sent: nearly always one piece, shared with thousands, and then no list of its own for it.
        self._out: bytes | list[bytes | memoryview] | None = None
        self._size = 0  # bytes that wait for the peer to read; 0 while it keeps up
        self._piece = 0  # bytes of a piece that has not left yet, with what was put before it
        self._tells_when_sent = False  # it is finishing, or a piece is out
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

    @property
    def waiting(self) -> int:
        return self._size

    @property
    def is_behind(self) -> bool:
        return self._size > 0

    def tell_when_sent(self) -> None:
        self._tells_when_sent = True

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
            self._outboxes.hold(self, (data,))
            self._check_limit()

    def put_piece(self, parts: Sequence[bytes]) -> None:
        if self.closed:
            return
        size = sum(map(len, parts))
        self._piece = self._size + size
        self._tells_when_sent = True
        out = self._out
        if out is None:
            self._out = [*parts]
            self._reactor.mark_dirty(self)
            return
        if isinstance(out, bytes):
            self._out = out = [out]
        out.extend(parts)
        if self._size:
            self._size += size
            self._outboxes.hold(self, parts)

    def finish(self) -> None:
        self.finishing = self._tells_when_sent = True
        if self._out is None:
            self._finished()

    def abort(self) -> None:
        if self.closed:
            return
        self.closed = True
        self._let_go()
        self._reactor.clear_deadline(self)
        self._reactor.remove(self._sock.fileno())
        self._sock.close()
        if not self._lingering:
            self._owner.on_closed()

    def _let_go(self) -> None:
        """Of everything that waits."""
        out, self._out = self._out, None
        if self._size and isinstance(out, list):
            self._outboxes.release(out)
            self._outboxes.forget(self)
        self._size = 0

    def _check_limit(self) -> None:
        if self._size > self._limit + self._piece and not self.finishing and not self.closed:
            self._owner.on_slow()

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
        if sent == len(out) and not self._tells_when_sent:
            self._out = None
        else:
            self._note_sent([out], sent, len(out))

    def on_events(self, events: int) -> None:
        if events & ~WRITABLE:  # errors and hang-ups show when reading
            self._read()
        out = self._out
        if events & WRITABLE and isinstance(out, list):
            self._send(out)

    def _watch_writable(self, watch: bool) -> None:
        self._reactor.watch(self._sock.fileno(), readable=True, writable=watch)

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
            if len(out) == 1:
                sent = self._sock.send(out[0])
            elif size <= JOIN_SIZE:
                # Joined only for the kernel: what it does not take stays as the original pieces, which others share.
                sent = self._sock.send(b"".join(out))
            else:
                sent = self._sock.sendmsg(out[:MAX_PIECES])
        except BlockingIOError:
            sent = 0
        except OSError:
            self.abort()
            return
        self._note_sent(out, sent, size)

    def _note_sent(self, out: list[bytes | memoryview], sent: int, size: int) -> None:
        """The socket has taken ``sent`` of the ``size`` bytes in ``out``; the rest waits until it is writable."""
        if self._size:
            self._outboxes.release(_drop_sent(out, sent))
            if sent < size:
                self._size = size - sent
                if sent:
                    self._outboxes.progressed(self)
                return
            self._outboxes.forget(self)
            self._watch_writable(False)
        elif sent < size:
            _drop_sent(out, sent)
            self._out = out
            self._size = size - sent
            self._watch_writable(True)
            self._outboxes.hold(self, out)
            self._check_limit()
            return
        self._out = None
        self._size = 0
        if self.finishing:
            self._finished()
        elif self._tells_when_sent:
            self._tells_when_sent = False
            self._piece = 0
            self._owner.on_drained()


def _drop_sent(out: list[bytes | memoryview], sent: int) -> list[bytes | memoryview]:
    """Take what was sent from the front; returns the pieces of which nothing is left."""
    whole = 0
    while sent and sent >= len(out[whole]):
        sent -= len(out[whole])
        whole += 1
    gone = out[:whole]
    del out[:whole]
    if sent:
        out[0] = memoryview(out[0])[sent:]
    return gone
