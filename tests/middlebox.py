"""A box on the way that misbehaves: it looks at the first line of each connection."""

from __future__ import annotations

import socket
import time

from .proxies import Proxy, reset


class Middlebox(Proxy):
    """What it does to a WebSocket is set by attributes:

    ``mute``: it lets the answer to the handshake through and swallows what follows. ``resets_after``: seconds after
    which it resets the connection. ``delay``: seconds that it holds back the first bytes of every answer, of whatever
    transport.
    """

    def __init__(self, upstream: int) -> None:
        super().__init__(upstream)
        self.mute = False
        self.resets_after: float | None = None
        self.delay = 0.0
        self.websockets = 0
        """WebSocket handshakes so far."""

    def carry(self, client: socket.socket, server: socket.socket) -> None:
        request = client.recv(65_536)
        websocket = b"/ws?" in request.partition(b"\r\n")[0]
        self.websockets += websocket
        server.sendall(request)
        answered_at: float | None = None
        first_at = time.monotonic() + self.delay

        def is_over() -> bool:
            after = self.resets_after if websocket else None
            return answered_at is not None and after is not None and time.monotonic() >= answered_at + after

        for source, target, data in self.pieces(client, server, is_over):
            if source is server and answered_at is None:
                time.sleep(max(0.0, first_at - time.monotonic()))
                answered_at = time.monotonic()
                head, separator, rest = data.partition(b"\r\n\r\n")
                data = head + separator + (b"" if websocket and self.mute else rest)
            elif source is server and websocket and self.mute:
                continue
            target.sendall(data)
        if is_over():
            reset(client)
