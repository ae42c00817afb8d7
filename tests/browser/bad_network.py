"""A network that fails: a TCP proxy that cuts connections, refuses them, or lets them fall silent."""

from __future__ import annotations

import contextlib
import random
import select
import socket
import threading
from types import TracebackType

_CHUNK = 4096


class _Link:
    """One connection through the proxy, both halves of it."""

    def __init__(self, client: socket.socket, upstream: socket.socket, budget: float) -> None:
        self.client = client
        self.upstream = upstream
        self.left = budget
        self.silent = False
        self.waits = False
        """Whether the client has asked, and nothing has come back yet."""

    def run(self) -> None:
        """Pass bytes on until either side ends, somebody cuts it, or the budget is used up."""
        with self.client, self.upstream, contextlib.suppress(OSError):
            while self.left > 0:
                ready, _, _ = select.select([self.client, self.upstream], [], [])
                for source in ready:
                    target = self.upstream if source is self.client else self.client
                    data = source.recv(int(min(_CHUNK, max(self.left, 1))))
                    if self.silent:
                        while self.client.recv(_CHUNK):
                            pass  # nobody hears it
                        return
                    if not data:
                        return
                    target.sendall(data)
                    self.waits = source is self.client
                    # Only what the server says counts: no request is too long to get through.
                    self.left -= len(data) if source is self.upstream else 0

    def cut(self) -> None:
        for half in (self.client, self.upstream):
            with contextlib.suppress(OSError):
                half.shutdown(socket.SHUT_RDWR)  # and the thread wakes up

    def fall_silent(self) -> None:
        """The server sees the connection end; the client sees nothing at all."""
        self.silent = True
        with contextlib.suppress(OSError):
            self.upstream.shutdown(socket.SHUT_RDWR)


class BadNetwork:
    """Listens on ``url`` and passes on to a server. Sound, until it is told otherwise. Its methods may be called from
    any thread."""

    def __init__(self, host: str, port: int, seed: int = 0) -> None:
        self._upstream = (host, port)
        self._random = random.Random(seed)
        self._mean: float | None = None
        self._refusing = False
        self._vanished = False
        self._links: list[_Link] = []
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.cuts = 0
        """Connections that were cut."""
        self._start(self._accept)

    def __enter__(self) -> BadNetwork:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self.cut()
        for thread in self._threads:
            thread.join(30)

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

    def _start(self, *call: object) -> None:
        target, *arguments = call
        thread = threading.Thread(target=target, args=arguments, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with self._listener:
            while True:
                try:
                    client, _ = self._listener.accept()
                except OSError:
                    return
                self._start(self._carry, client)

    def _carry(self, client: socket.socket) -> None:
        with client:
            if self._refusing:
                return
            try:
                upstream = socket.create_connection(self._upstream, 10.0)
            except OSError:
                return
            upstream.settimeout(None)
            for half in (client, upstream):
                half.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                budget = self._random.expovariate(1 / self._mean) if self._mean else float("inf")
                link = _Link(client, upstream, budget)
                self._links.append(link)
                if self._vanished:
                    link.fall_silent()
            try:
                link.run()
            finally:
                with self._lock:
                    self._links.remove(link)
                    self.cuts += link.left <= 0
