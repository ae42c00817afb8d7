"""Splits the bytes of a WebSocket into frames (RFC 6455, section 5.2). The websockets library parses them."""

from __future__ import annotations

from collections.abc import Generator

from websockets.frames import Frame, Opcode

try:
    from websockets.speedups import apply_mask
except ImportError:  # the library's compiled part is optional
    from websockets.utils import apply_mask

_WHOLE = {0x81: Opcode.TEXT, 0x82: Opcode.BINARY}
"""First byte of a frame -> a message that is all in it."""


class FrameReader:
    """The frames that one peer sends. Needed only while a frame is incomplete: see :attr:`is_between_frames`."""

    __slots__ = ("_buffer", "_mask", "_max_size", "_parser")

    def __init__(self, max_size: int | None, *, mask: bool = True) -> None:
        """``max_size``: bytes of a frame's payload. ``mask``: whether the peer has to mask its frames, as clients
        have."""
        self._buffer = bytearray()
        self._max_size = max_size
        self._mask = mask
        self._parser: Generator[None, None, Frame] | None = None

    def feed(self, data: bytes) -> None:
        self._buffer += data

    def take(self) -> Frame | None:
        """The next frame, or ``None`` if it is incomplete.

        Raises:
            websockets.exceptions.PayloadTooBig, ProtocolError: The reader cannot be used any more.
        """
        if self._parser is None:
            if not self._buffer:
                return None
            whole = self._take_whole()
            if whole is not None:
                return whole
            self._parser = Frame.parse(self._read_exact, mask=self._mask, max_size=self._max_size)
        try:
            next(self._parser)
        except StopIteration as parsed:
            self._parser = None
            frame: Frame = parsed.value
            return frame
        return None

    def _take_whole(self) -> Frame | None:
        """A message in one masked frame that has come to its end, as nearly all that clients send have: a third of the
        parser's time. ``None``: it is something else, for the parser."""
        buffer = self._buffer
        opcode = _WHOLE.get(buffer[0])
        if opcode is None or not self._mask or len(buffer) < 6 or not buffer[1] & 0x80:
            return None
        begin, size = 6, buffer[1] & 0x7F
        if size == 126:
            begin, size = 8, buffer[2] << 8 | buffer[3]
        end = begin + size
        if size == 127 or len(buffer) < end or (self._max_size is not None and size > self._max_size):
            return None
        frame = Frame(opcode, apply_mask(buffer[begin:end], buffer[begin - 4 : begin]))
        del buffer[:end]
        return frame

    @property
    def is_between_frames(self) -> bool:
        """Whether all fed bytes have been consumed."""
        return self._parser is None and not self._buffer

    def _read_exact(self, size: int) -> Generator[None, None, bytes]:
        while len(self._buffer) < size:
            yield
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data
