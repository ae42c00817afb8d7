"""A network that fails: it cuts connections, refuses them, or lets them fall silent."""

from __future__ import annotations

import contextlib
import random
import socket
import threading
from types import TracebackType

from .proxies import Proxy


class _Link:
    """One connection through the proxy, both halves of it."""

    def __init__(self, network: BadNetwork, client: socket.socket, server: socket.socket, budget: float) -> None:
        self.network = network
        self.client = client
        self.server = server
        self.left = budget
        self.silent = False
        self.waits = False
        """Whether the client has asked, and nothing has come back yet."""

    def run(self) -> None:
        """Pass bytes on until either side ends, somebody cuts it, or the budget is used up."""
        for source, target, data in self.network.pieces(self.client, self.server, self.is_over):
            if self.silent:
                break
            if source is self.client:  # no request is too long to get through
                target.sendall(data)
            else:
                target.sendall(data[: int(min(len(data), max(self.left, 1)))])
                self.left -= len(data)
            self.waits = source is self.client
        while self.silent and self.network.is_open and self.client.recv(65_536):
            pass  # nobody hears it

    def is_over(self) -> bool:
        return self.silent or self.left <= 0

    def cut(self) -> None:
        for half in (self.client, self.server):
            with contextlib.suppress(OSError):
                half.shutdown(socket.SHUT_RDWR)  # and the thread wakes up

    def fall_silent(self) -> None:
        """The server sees the connection end; the client sees nothing at all."""
        self.silent = True
        with contextlib.suppress(OSError):
            self.server.shutdown(socket.SHUT_RDWR)


class BadNetwork(Proxy):
    """Sound, until it is told otherwise. Its methods may be called from any thread."""

    def __init__(self, upstream: int, seed: int = 0) -> None:
        super().__init__(upstream)
        self._random = random.Random(seed)
        self._mean: float | None = None
        self._refusing = False
        self._vanished = False
        self._links: list[_Link] = []
        self._lock = threading.Lock()
        self.cuts = 0
        """Connections that were cut."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.is_open = False
        self.cut()
        super().__exit__(kind, error, traceback)

    # --- what may go wrong ---

    def cut(self) -> None:
        """End every connection that there is."""
        with self._lock:
            self.cuts += len(self._links)
            for link in self._links:
                link.cut()

    def cut_after(self, mean: float | None) -> None:
        """From the next connection on, cut each after a random number of bytes of answers, about ``mean`` of them."""
        self._mean = mean

    def vanish(self) -> None:
        """Connections stay open for the client, new ones open, and nothing comes through any of them ever again."""
        with self._lock:
            self._vanished = True
            for link in self._links:
                link.fall_silent()

    def come_back(self) -> None:
        """New connections get through again; those from before do not."""
        self._vanished = False

    def is_waiting(self) -> bool:
        """Whether a client has asked on some connection and nothing has come back yet."""
        with self._lock:
            return any(link.waits for link in self._links)

    def refuse(self, refusing: bool = True) -> None:
        """End new connections at once, or take them again."""
        self._refusing = refusing

    # --- how it works ---

    def carry(self, client: socket.socket, server: socket.socket) -> None:
        if self._refusing:
            return
        with self._lock:
            budget = self._random.expovariate(1 / self._mean) if self._mean else float("inf")
            link = _Link(self, client, server, budget)
            self._links.append(link)
            if self._vanished:
                link.fall_silent()
        try:
            link.run()
        finally:
            with self._lock:
                self._links.remove(link)
                self.cuts += link.left <= 0
