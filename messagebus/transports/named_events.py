"""EventSource for readers that know nothing of batches: an event for each message, named after its channel, with the
bare data (``?events=channel&format=data``). The ``sse-swap`` of htmx, for one, takes these as they are."""

from __future__ import annotations

import msgspec

from ..message import STATUS_CHANNEL
from ..wire import RECONNECT_KEY
from .base import Transport


class _Part(msgspec.Struct):
    global_id: int
    channel: str
    data: msgspec.Raw


_decode_batch = msgspec.json.Decoder(list[_Part]).decode


class _NamedEvents(Transport):
    name = "eventsource"
    begins = True
    heartbeat = b":\n\n"  # a comment: it is no event, and keeps proxies from ending the connection

    def encode(self, batch: bytes, global_id: int | None) -> bytes:
        events = b"".join(map(_encode_message, _decode_batch(batch)))
        # An id without data is no event: it moves the position that the browser comes back with.
        return events if global_id is None else b"%bid: %d\n\n" % (events, global_id)


def _encode_message(message: _Part) -> bytes:
    if message.channel == STATUS_CHANNEL:
        return _encode_status(message.data)
    identity = b"id: %d\n" % message.global_id if message.global_id > 0 else b""
    # A text is written as it is, anything else as JSON; each of its lines is a line of the event.
    data = bytes(message.data)
    text = msgspec.json.decode(data, type=str).encode() if data.startswith(b'"') else data
    lines = b"".join(b"data: %b\n" % line for line in text.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n"))
    return b"event: %b\n%b%b\n" % (message.channel.encode(), identity, lines)


def _encode_status(data: msgspec.Raw) -> bytes:
    """Positions are the ids' business; when to come back is what ``retry`` is for."""
    wait = msgspec.json.decode(data, type=dict[str, object]).get(RECONNECT_KEY)
    return b"retry: %d\n\n" % wait if isinstance(wait, int) else b""


NAMED_EVENTS = _NamedEvents()
