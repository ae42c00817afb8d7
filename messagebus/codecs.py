"""Other forms of the stored envelope than JSON. What goes to clients is JSON in any case.

A codec is given the envelope, ``{"data": …, "user_ids": …, "group_ids": …, "client_ids": …}``, and makes bytes of it,
and the other way round. Every program that shares the store needs the same one.
"""

from __future__ import annotations

from typing import Any, Protocol

import msgspec


class Codec(Protocol):
    """What ``transport_codec`` takes. Called from any thread, and in the feed: it must not block."""

    def encode(self, envelope: dict[str, Any], /) -> bytes:
        """Bytes of an envelope whose data is a JSON value."""

    def decode(self, stored: bytes, /) -> dict[str, Any]:
        """The envelope. May raise anything for bytes that are none: the message is logged and left out."""


class MessagePackCodec:
    """MessagePack: smaller than JSON where data is mostly numbers and short keys."""

    def encode(self, envelope: dict[str, Any]) -> bytes:
        return msgspec.msgpack.encode(envelope)

    def decode(self, stored: bytes) -> dict[str, Any]:
        return msgspec.msgpack.decode(stored, type=dict[str, Any])
