"""Long-polling: the held response is one JSON array, then it ends."""

from __future__ import annotations

from ..errors import Close
from .base import EMPTY_BATCH, Transport
from .event_ids import EventId


class _LongPollingWSGI(Transport):
    """The server makes the header and the end of the response."""

    name = "long-polling"
    one_batch = True
    bounded = True

    def encode(self, batch: bytes, event_id: EventId) -> bytes:
        return batch

    def encode_parts(self, parts: list[bytes], event_id: EventId) -> list[bytes]:
        return parts

    def end(self, close: Close, last: bytes = b"") -> bytes:
        return last or EMPTY_BATCH


class _LongPolling(_LongPollingWSGI):
    """On a taken socket."""

    def fields(self, size: int) -> bytes:
        return b"Connection: close\r\nContent-Length: %d\r\n" % size


LONG_POLLING = _LongPolling()
LONG_POLLING_WSGI = _LongPollingWSGI()
