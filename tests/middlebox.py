"""A box on the way that misbehaves: a TCP proxy that looks at the first line of each connection."""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import threading
import time
from types import TracebackType


class Middlebox:
    """Listens on ``url`` and passes connections on to a server. What it does to a WebSocket is set by attributes, which
    may change at any time:

    ``mute``: it lets the answer to the handshake through and swallows what follows. ``resets_after``: seconds after
    which it resets the connection. ``delay``: seconds that it holds back the first bytes of every answer, of whatever
    transport.
    """

    def __init__(self, host: str, port: int) -> None:
        self.mute = False
        self.resets_after: float | None = None
        self.delay = 0.0
        self.websockets = 0
        """WebSocket handshakes so far."""
        self._upstream = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads: list[threading.Thread] = []
        self._open = True
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Middlebox:
        self._spawn(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._open = False
        self._listener.close()
        for thread in self._threads:
            thread.join(30)

    def _spawn(self, target: object, *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while self._open:
            if select.select([self._listener], [], [], 0.1)[0]:
                with contextlib.suppress(OSError):
                    self._spawn(self._serve, self._listener.accept()[0])

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError), socket.create_connection(self._upstream) as upstream:
            request = client.recv(65_536)
            websocket = b"/ws?" in request.partition(b"\r\n")[0]
            self.websockets += websocket
            upstream.sendall(request)
            answered_at: float | None = None
            first_at = time.monotonic() + self.delay
            while self._open:
                resets = self.resets_after if websocket else None
                if answered_at is not None and resets is not None and time.monotonic() >= answered_at + resets:
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    return
                for source in select.select([client, upstream], [], [], 0.02)[0]:
                    data = source.recv(65_536)
                    if not data:
                        return
                    if source is client:
                        upstream.sendall(data)
                        continue
                    if answered_at is None:
                        time.sleep(max(0.0, first_at - time.monotonic()))
                        answered_at = time.monotonic()
                        head, separator, rest = data.partition(b"\r\n\r\n")
                        data = head + separator + (b"" if websocket and self.mute else rest)
                    elif websocket and self.mute:
                        continue
                    client.sendall(data)
