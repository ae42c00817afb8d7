"""A TCP proxy such as a firewall or a load balancer is: it may forget connections, or lead to another server."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from types import TracebackType


class ForgetfulProxy:
    """Listens on ``port`` and passes new connections on to ``upstream``, which may change at any time."""

    def __init__(self, upstream: int) -> None:
        """``upstream``: a port of this machine."""
        self.upstream = upstream
        self.connections = 0
        """Connections so far."""
        self._forgotten = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = int(self._listener.getsockname()[1])
        self._open = True
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> ForgetfulProxy:
        self._spawn(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._open = False
        for thread in self._threads:
            thread.join(30)
        self._listener.close()

    def forget(self) -> None:
        """From now on what comes on the connections that are there is swallowed; none is closed."""
        self._forgotten.set()
        self._forgotten = threading.Event()

    def _spawn(self, target: object, *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while self._open:
            if select.select([self._listener], [], [], 0.05)[0]:
                self.connections += 1
                self._spawn(self._carry, self._listener.accept()[0], self._forgotten)

    def _carry(self, client: socket.socket, forgotten: threading.Event) -> None:
        with (
            client,
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", self.upstream)) as server,
        ):
            while self._open:
                for source in select.select([client, server], [], [], 0.05)[0]:
                    data = source.recv(65_536)
                    if forgotten.is_set():
                        if not data:
                            return
                    elif not data:
                        return
                    else:
                        (server if source is client else client).sendall(data)
