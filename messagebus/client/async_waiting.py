"""Where the client for asyncio waits: in the event loop. The client for threads does without importing it."""

from __future__ import annotations

import asyncio
import selectors
import socket
from collections.abc import Sequence

from .waiting import AddressInfo, Waiter


class AsyncWaiter(Waiter):
    """Waits in the running event loop, which has to be able to watch sockets (asyncio's on Windows is not by default).
    To be made and used in that loop; only :meth:`wake` and :meth:`stop` are safe from other threads."""

    def __init__(self) -> None:
        super().__init__()
        self._loop = asyncio.get_running_loop()
        self._woken = False
        self._waiting: asyncio.Future[None] | None = None

    def wake(self) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        self._woken = True
        self._go_on()

    def _go_on(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    def close(self) -> None:
        self._go_on()

    async def resolve(self, host: str, port: int) -> Sequence[AddressInfo]:
        return await self._loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)

    async def _wait(self, seconds: float | None, socks: Sequence[socket.socket], events: int) -> list[socket.socket]:
        ready: list[socket.socket] = []

        def is_ready(sock: socket.socket) -> None:
            if sock not in ready:
                ready.append(sock)
            self._go_on()

        if not self._woken:
            self._waiting = self._loop.create_future()
            timer = None if seconds is None else self._loop.call_later(seconds, self._go_on)
            for sock in socks:
                if events & selectors.EVENT_READ:
                    self._loop.add_reader(sock, is_ready, sock)
                if events & selectors.EVENT_WRITE:
                    self._loop.add_writer(sock, is_ready, sock)
            try:
                await self._waiting
            finally:
                self._waiting = None
                if timer is not None:
                    timer.cancel()
                for sock in socks:
                    self._loop.remove_reader(sock)
                    self._loop.remove_writer(sock)
        self._woken = False
        return ready
