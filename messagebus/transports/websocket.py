"""WebSocket: one text frame for each batch (RFC 6455, section 5.2; a server's frames are not masked)."""

from __future__ import annotations

import struct

from ..errors import Close
from .base import EMPTY_BATCH, Transport
from .event_ids import EventId

_TEXT = 0x81
_BINARY = 0x82
_CLOSE = 0x88
_PING = 0x89
_PONG = 0x8A
_pack_short = struct.Struct("!BB").pack
_pack_medium = struct.Struct("!BBH").pack
_pack_long = struct.Struct("!BBQ").pack


def text_frame(payload: bytes) -> bytes:
    """A whole text message."""
    return _frame(_TEXT, payload)


def binary_frame(payload: bytes) -> bytes:
    """A whole binary message."""
    return _frame(_BINARY, payload)


def pong_frame(payload: bytes) -> bytes:
    """The answer to a ping: the same payload."""
    return _frame(_PONG, payload)


def ping_frame() -> bytes:
    """A ping, without payload."""
    return _frame(_PING, b"")


def _frame(first_byte: int, payload: bytes) -> bytes:
    return _frame_head(first_byte, len(payload)) + payload


def _frame_head(first_byte: int, size: int) -> bytes:
    if size < 126:
        return _pack_short(first_byte, size)
    if size < 65_536:
        return _pack_medium(first_byte, 126, size)
    return _pack_long(first_byte, 127, size)


class _WebSocket(Transport):
    name = "websocket"
    begins = True
    tells_epoch = True
    heartbeat = _frame(_TEXT, EMPTY_BATCH)

    def fields(self, size: int) -> bytes:
        return b""

    def encode(self, batch: bytes, event_id: EventId) -> bytes:
        return _frame(_TEXT, batch)

    def encode_parts(self, parts: list[bytes], event_id: EventId) -> list[bytes]:
        return [_frame_head(_TEXT, sum(map(len, parts))), *parts]

    def end(self, close: Close, last: bytes = b"") -> bytes:
        # A control frame has 125 bytes at most, two of which are the code; a character is not cut in two.
        reason = close.reason.encode()[:123].decode(errors="ignore").encode()
        return last + _frame(_CLOSE, struct.pack("!H", close.code) + reason)


WEBSOCKET = _WebSocket()


class _OwnSocket(_WebSocket):
    """A WebSocket that an application's own code speaks on: there are no batches. Heartbeats are pings."""

    name = "socket"
    begins = False
    tells_epoch = False
    heartbeat = ping_frame()

    def encode(self, batch: bytes, event_id: EventId) -> bytes:
        return b""

    def end(self, close: Close, last: bytes = b"") -> bytes:
        return super().end(close)


OWN_SOCKET = _OwnSocket()
