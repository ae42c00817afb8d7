"""How batches become bytes on a kind of connection. No sockets, no subscribers: bytes in, bytes out."""

from __future__ import annotations

from .base import Transport, batch_parts, join_batch
from .named_events import NAMED_EVENTS
from .polling import LONG_POLLING, LONG_POLLING_WSGI
from .sse import EVENT_SOURCE
from .streaming import STREAMING, STREAMING_WSGI
from .websocket import WEBSOCKET

__all__ = [
    "EVENT_SOURCE",
    "LONG_POLLING",
    "LONG_POLLING_WSGI",
    "NAMED_EVENTS",
    "STREAMING",
    "STREAMING_WSGI",
    "WEBSOCKET",
    "Transport",
    "batch_parts",
    "join_batch",
]
