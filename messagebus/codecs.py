"""Codecs for the stored envelope. Clients always get JSON.

A codec turns the envelope, ``{"data": …, "user_ids": …, "group_ids": …, "client_ids": …}``, into bytes and back. Every
program that shares the store needs the same codec.
"""

from __future__ import annotations

from typing import Any, Protocol

import msgspec


class Codec(Protocol):
    """The type of ``transport_codec``. Its methods are called from any thread, and in the feed: they must not block."""

    def encode(self, envelope: dict[str, Any], /) -> bytes:
        """Encode an envelope whose data is a JSON value."""

    def decode(self, stored: bytes, /) -> dict[str, Any]:
        """Decode an envelope. May raise any exception for malformed bytes: the message is logged and skipped."""


class MessagePackCodec:
    """MessagePack: smaller than JSON where data is mostly numbers and short keys."""

    def encode(self, envelope: dict[str, Any]) -> bytes:
        return msgspec.msgpack.encode(envelope)

    def decode(self, stored: bytes) -> dict[str, Any]:
        return msgspec.msgpack.decode(stored, type=dict[str, Any])
