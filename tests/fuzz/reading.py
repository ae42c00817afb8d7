"""What a server says to nonsense, until it ends the connection."""

from __future__ import annotations

import socket


def read_to_end(connection: socket.socket, received: bytearray, sent: bytes) -> None:
    """Adds to ``received``, so that it is kept where the connection is reset."""
    try:
        while part := connection.recv(1 << 16):
            received += part
    except TimeoutError:
        raise AssertionError(f"it does not end: {sent!r} got {bytes(received[-500:])!r}") from None
