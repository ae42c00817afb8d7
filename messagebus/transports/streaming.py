"""Streamed long-polling: many batches in one response, each followed by a separator.

Chunks belong to HTTP: a proxy may change them, so a reader looks for the separator only. JSON never contains it (it has
no bare ``|`` outside of strings, and no bare line feed inside of them), but the protocol defines how it would be
escaped.
"""

from __future__ import annotations

from ..errors import Close
from ..wire import ESCAPED_SEPARATOR, SEPARATOR
from .base import EMPTY_BATCH, Transport
from .event_ids import EventId


class _StreamingWSGI(Transport):
    """The server frames what it is given."""

    name = "streaming"
    bounded = True
    begins = True
    heartbeat = EMPTY_BATCH + SEPARATOR

    def encode(self, batch: bytes, event_id: EventId) -> bytes:
        return batch.replace(SEPARATOR, ESCAPED_SEPARATOR) + SEPARATOR

    def encode_parts(self, parts: list[bytes], event_id: EventId) -> list[bytes]:
        # A separator in two of them it cannot be: they are cut at a comma or a colon.
        return [*[part.replace(SEPARATOR, ESCAPED_SEPARATOR) for part in parts], SEPARATOR]

    def end(self, close: Close, last: bytes = b"") -> bytes:
        return last or self.heartbeat


class _Streaming(_StreamingWSGI):
    """On a taken socket: ``Transfer-Encoding: chunked`` (RFC 9112, section 7.1)."""

    heartbeat = b"%x\r\n%b\r\n" % (len(_StreamingWSGI.heartbeat), _StreamingWSGI.heartbeat)

    def fields(self, size: int) -> bytes:
        return b"Connection: close\r\nTransfer-Encoding: chunked\r\n"

    def encode(self, batch: bytes, event_id: EventId) -> bytes:
        part = super().encode(batch, event_id)
        return b"%x\r\n%b\r\n" % (len(part), part)

    def encode_parts(self, parts: list[bytes], event_id: EventId) -> list[bytes]:
        parts = super().encode_parts(parts, event_id)
        return [b"%x\r\n" % sum(map(len, parts)), *parts, b"\r\n"]

    def end(self, close: Close, last: bytes = b"") -> bytes:
        return (last or self.heartbeat) + b"0\r\n\r\n"


STREAMING = _Streaming()
STREAMING_WSGI = _StreamingWSGI()
