"""The writer where the WSGI server keeps its socket: the loop puts, and the server's thread takes. No HTTP, no
channels."""

from __future__ import annotations

import contextlib
import queue
from collections.abc import Iterator, Sequence

from .outboxes import Outboxes
from .reactor import Reactor
from .writer import WriterOwner

ON_ITS_WAY = 65_536
"""Up to so many bytes the server's thread takes as soon as it runs."""
LOOK_SECONDS = 10.0
"""Seconds between checks of a server's waiting thread that the loop still runs."""


class BlockingWriter:
    """A WSGI server's iterable: it waits in the server's thread or greenlet, and takes what the loop puts."""

    __slots__ = (
        "_limit",
        "_outboxes",
        "_owner",
        "_piece",
        "_queue",
        "_reactor",
        "_size",
        "_tells_when_sent",
        "closed",
        "finishing",
        "tick",
    )

    def __init__(self, reactor: Reactor, owner: WriterOwner, limit: int, outboxes: Outboxes) -> None:
        self._reactor = reactor
        self._owner = owner
        self._limit = limit
        self._outboxes = outboxes
        self._queue: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._size = 0
        self._piece = 0
        self._tells_when_sent = False  # a piece is out, or the owner has asked
        self.closed = False
        self.finishing = False
        self.tick = 0

    @property
    def waiting(self) -> int:
        return self._size

    @property
    def is_behind(self) -> bool:
        # What the server's thread has yet to be woken for is on its way.
        return self._size > ON_ITS_WAY

    def tell_when_sent(self) -> None:
        self._tells_when_sent = True

    def put(self, data: bytes) -> None:
        if self.closed or self.finishing:
            return
        self._add(data)
        if self._size > self._limit + self._piece:
            self._owner.on_slow()

    def put_piece(self, parts: Sequence[bytes]) -> None:
        if self.closed or self.finishing:
            return
        data = b"".join(parts)  # the server may make a chunk, and a write, of each
        self._piece = self._size + len(data)
        self._tells_when_sent = True
        self._add(data)

    def _add(self, data: bytes) -> None:
        self._queue.put(data)
        self._size += len(data)
        self._outboxes.hold(self, (data,))

    def finish(self) -> None:
        self.finishing = True
        self._queue.put(None)

    def abort(self) -> None:
        if not self.closed:
            self.closed = True
            self._reactor.clear_deadline(self)
            self._let_go()
            self._queue.put(None)
            self._owner.on_closed()

    def _let_go(self) -> None:
        """Of everything that waits, but for what the server is writing at the moment."""
        self._outboxes.forget(self)
        with contextlib.suppress(queue.Empty):
            while True:
                data = self._queue.get_nowait()
                if data is not None:
                    self._outboxes.release((data,))

    def on_deadline(self) -> None:
        self._owner.on_deadline()

    # --- in the server's thread ---

    def __iter__(self) -> Iterator[bytes]:
        try:
            while (data := self._next()) is not None:
                try:
                    yield data
                finally:
                    self._reactor.call_soon(self._taken, data)
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
        """Called by the WSGI server when it is done with the response, begun or not (PEP 3333)."""
        self._reactor.call_soon(self.abort)

    def _taken(self, data: bytes) -> None:
        self._outboxes.release((data,))
        self._size -= len(data)
        if self.closed:
            return
        if self._size:
            self._outboxes.progressed(self)
            return
        self._outboxes.forget(self)
        if self._tells_when_sent and not self.finishing:
            self._tells_when_sent = False
            self._piece = 0
            self._owner.on_drained()
