"""Bytes in any pieces -> batches, for the two kinds of stream. No I/O.

Both look for ASCII marks in the bytes, which UTF-8 never has inside a character; and search only what is new, so that a
batch of megabytes costs no more per byte than a small one.
"""

from __future__ import annotations

import re

from ..wire import ESCAPED_SEPARATOR, SEPARATOR


class StreamParser:
    """A streamed poll: batches, each followed by a separator; or one batch without, where the server does not
    stream."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The batches that these bytes complete."""
        buffer = self._buffer
        start = max(0, len(buffer) - len(SEPARATOR) + 1)
        buffer += data
        batches = []
        begin = 0
        while (end := buffer.find(SEPARATOR, start)) >= 0:
            batches.append(bytes(buffer[begin:end]))
            begin = start = end + len(SEPARATOR)
        del buffer[:begin]
        return _unescape(batches)

    def finish(self) -> list[bytes]:
        """What is left when the response is over."""
        rest = bytes(self._buffer)
        self._buffer.clear()
        return _unescape([rest])


def _unescape(batches: list[bytes]) -> list[bytes]:
    return [batch.replace(ESCAPED_SEPARATOR, SEPARATOR) for batch in batches if batch.strip()]


_LINE_END = re.compile(rb"\r\n|\n|\r")
_BOM = b"\xef\xbb\xbf"


class EventParser:
    """An event stream (WHATWG HTML, section 9.2): the data of each event. Ids and names of events are not used here."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._searched = 0
        self._data: list[bytes] = []
        self._after_cr = False
        self._at_start = True

    def feed(self, data: bytes) -> list[bytes]:
        """The events that these bytes complete."""
        if self._after_cr and data:
            # The line was ended by the CR already, which may have been half of a CR LF.
            self._after_cr = False
            data = data.removeprefix(b"\n")
        buffer = self._buffer
        buffer += data
        if self._at_start:
            if len(buffer) < len(_BOM) and _BOM.startswith(buffer):
                return []
            self._at_start = False
            if buffer.startswith(_BOM):
                del buffer[: len(_BOM)]
        events = []
        begin = 0
        while match := _LINE_END.search(buffer, max(begin, self._searched)):
            event = self._on_line(bytes(buffer[begin : match.start()]))
            if event is not None:
                events.append(event)
            begin = match.end()
            if match.group() == b"\r" and begin == len(buffer):
                self._after_cr = True
        del buffer[:begin]
        self._searched = len(buffer)
        return events

    def _on_line(self, line: bytes) -> bytes | None:
        if line:
            field, _, value = line.partition(b":")
            if field == b"data":
                self._data.append(value.removeprefix(b" "))
            return None
        data, self._data = self._data, []
        return b"\n".join(data) if data else None
