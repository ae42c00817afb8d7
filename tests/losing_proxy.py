"""A TCP proxy that loses the store's answers: each request that has a certain word in it reaches the server, and the
connection ends when the answer is there."""

from __future__ import annotations

import contextlib
import re
import selectors
import socket
import struct
import threading
from types import TracebackType

RESET = struct.pack("ii", 1, 0)  # SO_LINGER of 0 s: close() sends RST


class LosingProxy:
    """Listens on ``port`` and passes everything on to a server on this machine.

    The answer to a request in which ``lose-`` and a number stand is lost, once for each number. While ``forgets`` is
    true, what clients send on connections that exist already goes nowhere, and no answer comes."""

    def __init__(self, port: int) -> None:
        self.lost: set[bytes] = set()
        self.forgets = False
        self._upstream = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._listener.settimeout(0.05)
        self.port = int(self._listener.getsockname()[1])
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=self._accept)]

    def __enter__(self) -> LosingProxy:
        self._threads[0].start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def _accept(self) -> None:
        while not self._stopped.is_set():
            with contextlib.suppress(TimeoutError):
                connection, _ = self._listener.accept()
                thread = threading.Thread(target=self._carry, args=(connection,))
                self._threads.append(thread)
                thread.start()

    def _carry(self, client: socket.socket) -> None:
        is_old = self.forgets
        with client, socket.create_connection(self._upstream) as server, selectors.DefaultSelector() as selector:
            for sock in (client, server):
                selector.register(sock, selectors.EVENT_READ)
            doomed = False
            while not self._stopped.is_set():
                for key, _ in selector.select(0.05):
                    try:
                        data = key.fileobj.recv(65536)  # type: ignore[union-attr]
                        if key.fileobj is server:
                            if data and doomed:
                                for sock in (client, server):
                                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                                return
                            client.sendall(data)
                        else:
                            numbers = set(re.findall(rb"lose-\d+", data)) - self.lost
                            doomed = doomed or bool(numbers)
                            self.lost |= numbers
                            if not self.forgets or is_old:
                                server.sendall(data)
                    except OSError:
                        return
                    if not data:
                        return
