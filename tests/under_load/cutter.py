"""A way between two programs that can be cut: one loop for all of its connections, however many there are."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable


class Cutter:
    """Passes on what comes to :attr:`port`. Its methods are for the thread of its loop."""

    def __init__(self, upstream: int) -> None:
        self.upstream = upstream
        self.port = 0
        self._halves: set[_Half] = set()
        self._server: asyncio.AbstractServer | None = None
        self._is_stalled = False

    async def open(self) -> Cutter:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: _Half(self, self._connect), "127.0.0.1", self.port, backlog=1024, reuse_address=True
        )
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def close(self) -> None:
        """End every connection with a reset, and refuse new ones until it is opened again, on the same port."""
        if self._server is not None:
            self._server.close()
        self.cut()

    def cut(self) -> None:
        """End every connection with a reset."""
        for half in [*self._halves]:
            half.abort()

    def stall(self, stalled: bool = True) -> None:
        """Pass nothing on, and end nothing: what a network does whose cable was pulled."""
        self._is_stalled = stalled
        for half in self._halves:
            half.read(not stalled)

    def _connect(self, half: _Half) -> None:
        half.read(False)
        half.joining = asyncio.get_running_loop().create_task(self._join(half))

    async def _join(self, half: _Half) -> None:
        try:
            _, other = await asyncio.get_running_loop().create_connection(
                lambda: _Half(self, lambda _: None), "127.0.0.1", self.upstream
            )
        except OSError:
            half.abort()
            return
        half.other, other.other = other, half
        if half.is_over:
            other.abort()
        for each in (half, other):
            each.read(not self._is_stalled)


class _Half(asyncio.Protocol):
    """One side of a connection."""

    def __init__(self, cutter: Cutter, made: Callable[[_Half], None]) -> None:
        self._cutter = cutter
        self._made = made
        self.other: _Half | None = None
        self.joining: asyncio.Task[None] | None = None
        self.is_over = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._cutter._halves.add(self)
        self._made(self)

    def data_received(self, data: bytes) -> None:
        if self.other is not None:
            self.other._transport.write(data)

    def connection_lost(self, error: Exception | None) -> None:
        self.is_over = True
        self._cutter._halves.discard(self)
        if self.other is not None:
            self.other._transport.close()  # what was written before still goes out

    def abort(self) -> None:
        self._transport.abort()

    def read(self, reads: bool) -> None:
        with contextlib.suppress(RuntimeError):  # where it does so already
            (self._transport.resume_reading if reads else self._transport.pause_reading)()
