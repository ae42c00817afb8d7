"""A forever iframe: a page that never ends, with a script for each batch, which posts it to the page around it."""

from __future__ import annotations

from .base import EMPTY_BATCH, Transport
from .event_ids import EventId

_PADDING = b"<!-- %b -->\n" % (b"." * 1024)
"""Some browsers show nothing of a page before so many bytes."""


def _script(batch: bytes) -> bytes:
    # `<` and `&` could end the script or begin a comment; in JSON they stand in strings only.
    for unsafe, escaped in ((b"<", b"\\u003c"), (b">", b"\\u003e"), (b"&", b"\\u0026")):
        batch = batch.replace(unsafe, escaped)
    batch = batch.replace(b"\xe2\x80\xa8", b"\\u2028").replace(b"\xe2\x80\xa9", b"\\u2029")
    return b"<script>p(%b)</script>\n" % batch


class _Iframe(Transport):
    name = "iframe"
    begins = True
    preamble = (
        b'<!DOCTYPE html>\n<meta charset="utf-8">\n'
        b"<script>function p(batch) { parent.postMessage(batch, location.origin) }</script>\n" + _PADDING
    )
    heartbeat = _script(EMPTY_BATCH)

    def encode(self, batch: bytes, event_id: EventId) -> bytes:
        return _script(batch)


IFRAME = _Iframe()
