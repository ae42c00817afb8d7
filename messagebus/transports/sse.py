"""EventSource: one event for each batch, in a response that ends when the connection does (WHATWG HTML, section
9.2)."""

from __future__ import annotations

from .base import EMPTY_BATCH, Transport


class _EventSource(Transport):
    name = "eventsource"
    begins = True
    tells_epoch = True
    # No id, which would be taken for a position; and no comment, which a page's script would never see.
    heartbeat = b"data: %b\n\n" % EMPTY_BATCH

    def encode(self, batch: bytes, global_id: int | None) -> bytes:
        return b"%b%b\n\n" % (_begin(global_id), _on_one_line(batch))

    def encode_parts(self, parts: list[bytes], global_id: int | None) -> list[bytes]:
        return [_begin(global_id), *map(_on_one_line, parts), b"\n\n"]


def _begin(global_id: int | None) -> bytes:
    return b"data: " if global_id is None else b"id: %d\ndata: " % global_id


def _on_one_line(batch: bytes) -> bytes:
    if b"\n" in batch or b"\r" in batch:
        # Data that another program stored with line breaks between its tokens: to JSON they are blanks.
        return batch.replace(b"\r", b" ").replace(b"\n", b" ")
    return batch


EVENT_SOURCE = _EventSource()
