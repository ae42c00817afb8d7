"""How batches become bytes on a kind of connection. No sockets, no subscribers: bytes in, bytes out."""

from __future__ import annotations

from .base import Transport, batch_parts, join_batch
from .iframe import IFRAME
from .plain import BY_CHANNEL, FORMS, NAMED_EVENTS, PlainTransport, plain_transport
from .polling import LONG_POLLING, LONG_POLLING_WSGI
from .sse import EVENT_SOURCE
from .streaming import STREAMING, STREAMING_WSGI
from .websocket import WEBSOCKET

__all__ = [
    "BY_CHANNEL",
    "EVENT_SOURCE",
    "FORMS",
    "IFRAME",
    "LONG_POLLING",
    "LONG_POLLING_WSGI",
    "NAMED_EVENTS",
    "STREAMING",
    "STREAMING_WSGI",
    "WEBSOCKET",
    "PlainTransport",
    "Transport",
    "batch_parts",
    "join_batch",
    "plain_transport",
]
