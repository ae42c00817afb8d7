"""Splits the bytes of a WebSocket into frames (RFC 6455, section 5.2). The websockets library parses them."""

from __future__ import annotations

from collections.abc import Generator

from websockets.frames import Frame


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
            self._parser = Frame.parse(self._read_exact, mask=self._mask, max_size=self._max_size)
        try:
            next(self._parser)
        except StopIteration as parsed:
            self._parser = None
            frame: Frame = parsed.value
            return frame
        return None

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
