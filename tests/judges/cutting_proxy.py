"""A TCP proxy that cuts connections at random."""

from __future__ import annotations

import contextlib
import random
import selectors
import socket
import struct
import threading
from types import TracebackType

RESET = struct.pack("ii", 1, 0)  # SO_LINGER of 0 s: close() sends RST, as when a middlebox forgets a connection


class CuttingProxy:
    """Listens on ``url`` and passes everything on to ``(host, port)``.

    While ``cutting`` is true, each connection is cut after a random number of bytes from the server, most often in the
    middle of an answer; both sides see a reset. The numbers, ``least`` to ``most``, are the same for the same seed.
    """

    def __init__(self, host: str, port: int, *, seed: int, least: int, most: int) -> None:
        self.cutting = False
        self.cuts = 0
        self._upstream = (host, port)
        self._random = random.Random(seed)
        self._range = (least, most)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._listener.settimeout(0.05)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=self._accept)]

    def __enter__(self) -> CuttingProxy:
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
        with client, socket.create_connection(self._upstream) as server, selectors.DefaultSelector() as selector:
            other = {client: server, server: client}
            for sock in other:
                selector.register(sock, selectors.EVENT_READ, other[sock])
            left: int | None = None
            while not self._stopped.is_set():
                for key, _ in selector.select(0.05):
                    try:
                        data = key.fileobj.recv(65536)  # type: ignore[union-attr]
                        if key.fileobj is server and self.cutting:
                            left = self._random.randint(*self._range) if left is None else left
                            data, left = data[:left], left - len(data)
                        key.data.sendall(data)
                    except OSError:
                        return
                    if left is not None and left <= 0:
                        self.cuts += 1
                        for sock in other:
                            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                        return
                    if not data:
                        return
