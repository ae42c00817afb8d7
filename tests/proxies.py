"""TCP proxies in front of a server of this machine: one that is sound, and those that do to it what networks do."""

from __future__ import annotations

import contextlib
import random
import re
import select
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import TypeVar

ProxyT = TypeVar("ProxyT", bound="Proxy")

RESET = struct.pack("ii", 1, 0)  # SO_LINGER of 0 s
LOOK_SECONDS = 0.02
"""Between two looks at whether the proxy is to end."""


def reset(*sockets: socket.socket) -> None:
    """Have ``close`` send RST, as when a box on the way has forgotten the connection."""
    for sock in sockets:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)


class Proxy:
    """Passes everything on to a port, while its block lasts. Subclasses say in :meth:`carry` what they do to it.

    What is set by attributes may change at any time.
    """

    def __init__(self, upstream: int) -> None:
        self.upstream = upstream
        """The server's port; another one counts for new connections."""
        self.connections = 0
        """Connections so far."""
        self.is_open = True
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = int(self._listener.getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}"
        self._threads: list[threading.Thread] = []

    def __enter__(self: ProxyT) -> ProxyT:
        self._start(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.is_open = False
        for thread in self._threads:
            thread.join(30)
        self._listener.close()

    def carry(self, client: socket.socket, server: socket.socket) -> None:
        """What happens to a connection, in a thread of its own. Both sockets are closed afterwards; an ``OSError`` is
        an end like any other."""
        for _, target, data in self.pieces(client, server):
            target.sendall(data)

    def pieces(
        self, client: socket.socket, server: socket.socket, is_over: Callable[[], bool] = lambda: False
    ) -> Iterator[tuple[socket.socket, socket.socket, bytes]]:
        """What comes, where from and where to, until either side ends, ``is_over`` says so, or the proxy ends."""
        while self.is_open and not is_over():
            for source in select.select([client, server], [], [], LOOK_SECONDS)[0]:
                data = source.recv(65_536)
                if not data:
                    return
                yield source, server if source is client else client, data

    def _start(self, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while self.is_open:
            if select.select([self._listener], [], [], LOOK_SECONDS)[0]:
                self.connections += 1
                self._start(self._carry, self._listener.accept()[0])

    def _carry(self, client: socket.socket) -> None:
        with (
            client,
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", self.upstream)) as server,
        ):
            for sock in (client, server):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.carry(client, server)


class ForgetfulProxy(Proxy):
    """A firewall or a load balancer: it may forget connections, or lead to another server (``upstream``)."""

    def __init__(self, upstream: int) -> None:
        super().__init__(upstream)
        self._forgotten = threading.Event()

    def forget(self) -> None:
        """From now on what comes on the connections that are there is swallowed; none is closed."""
        self._forgotten.set()
        self._forgotten = threading.Event()

    def carry(self, client: socket.socket, server: socket.socket) -> None:
        forgotten = self._forgotten
        for _, target, data in self.pieces(client, server):
            if not forgotten.is_set():
                target.sendall(data)


class LosingProxy(Proxy):
    """Loses the store's answers: a request that has ``lose-`` and a number in it reaches the server, and the connection
    ends when the answer is there; once for each number. While ``forgets`` is true, what clients send on connections
    that exist already goes nowhere, and no answer comes."""

    def __init__(self, upstream: int) -> None:
        super().__init__(upstream)
        self.lost: set[bytes] = set()
        self.forgets = False

    def carry(self, client: socket.socket, server: socket.socket) -> None:
        is_late, is_doomed = self.forgets, False
        for source, target, data in self.pieces(client, server):
            if source is client:
                numbers = set(re.findall(rb"lose-\d+", data)) - self.lost
                self.lost |= numbers
                is_doomed = is_doomed or bool(numbers)
                if self.forgets and not is_late:
                    continue
            elif is_doomed:
                reset(client, server)
                return
            target.sendall(data)


class CuttingProxy(Proxy):
    """While ``cutting`` is true, each connection is cut after a random number of bytes from the server, most often in
    the middle of an answer; both sides see a reset."""

    def __init__(self, upstream: int, *, seed: int, least: int, most: int) -> None:
        """``least`` to ``most`` bytes; the numbers are the same for the same seed."""
        super().__init__(upstream)
        self.cutting = False
        self.cuts = 0
        self._random = random.Random(seed)
        self._range = (least, most)

    def carry(self, client: socket.socket, server: socket.socket) -> None:
        left: int | None = None
        for source, target, data in self.pieces(client, server):
            if source is server and self.cutting:
                left = self._random.randint(*self._range) if left is None else left
                data, left = data[:left], left - len(data)
            target.sendall(data)
            if left is not None and left <= 0:
                self.cuts += 1
                reset(client, server)
                return
