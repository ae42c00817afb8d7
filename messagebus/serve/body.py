"""A request's body as a WSGI application reads it: ``wsgi.input``."""

from __future__ import annotations

import io
from collections.abc import Callable

from werkzeug.exceptions import HTTPException


class BodyError(HTTPException, OSError):
    """A body cannot be read to its end: it is malformed, cut off, too large or too slow. ``code`` is the status.

    Flask turns it into an answer of that status; other programs see an ``OSError``. If nobody answers, the server
    does."""

    code: int

    def __init__(self, code: int, description: str) -> None:
        super().__init__(description)
        self.code = code

    def __str__(self) -> str:
        return str(self.description)


class Body(io.RawIOBase):
    """A body that arrives while it is read. Ends with the request."""

    def __init__(self, read: Callable[[], bytes]) -> None:
        """``read`` returns the next piece, empty at the end, or raises :class:`BodyError`."""
        self._read = read
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        data = self._rest or self._read()
        size = min(len(data), len(buffer))
        buffer[:size] = data[:size]
        self._rest = data[size:]
        return size


def open_body(begun: bytes, read: Callable[[], bytes]) -> io.BufferedReader:
    """A stream of ``begun`` and what ``read`` gives after it."""
    body = Body(read)
    body._rest = begun
    return io.BufferedReader(body, 64 * 1024)
