"""EventSource: one event for each batch, in a response that ends when the connection does (WHATWG HTML, section
9.2)."""

from __future__ import annotations

from .base import EMPTY_BATCH, Transport
from .event_ids import EventId, Spread


class _EventSource(Transport):
    name = "eventsource"
    begins = True
    has_event_ids = True
    tells_epoch = True
    # No id, which would be taken for a position; and no comment, which a page's script would never see.
    heartbeat = b"data: %b\n\n" % EMPTY_BATCH

    def __init__(self, spread: Spread | None = None) -> None:
        self._spread = spread

    def spread(self, spread: Spread) -> Transport:
        return _EventSource(spread)

    def encode(self, batch: bytes, event_id: EventId) -> bytes:
        return b"%b%b\n\n" % (self._begin(event_id), _on_one_line(batch))

    def encode_parts(self, parts: list[bytes], event_id: EventId) -> list[bytes]:
        return [self._begin(event_id), *map(_on_one_line, parts), b"\n\n"]

    def _begin(self, event_id: EventId) -> bytes:
        if event_id is None:
            return b"data: "
        if self._spread is not None:
            return b"id: %b\ndata: " % self._spread.last(event_id)
        assert isinstance(event_id, int)
        return b"id: %d\ndata: " % event_id


def _on_one_line(batch: bytes) -> bytes:
    if b"\n" in batch or b"\r" in batch:
        # Data that another program stored with line breaks between its tokens: to JSON they are blanks.
        return batch.replace(b"\r", b" ").replace(b"\n", b" ")
    return batch


EVENT_SOURCE = _EventSource()
