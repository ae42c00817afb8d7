"""Whether a SQLite file may have been written to since a feed looked at it, told by what the file system says of it.

A look is a transaction, which costs many times as much. Times of files have steps: one that was written to a moment ago
may be written to again, and nothing will tell.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

FINE_STEP, COARSE_STEP = 0.05, 2.0
"""Seconds between two times that a file can have, and more: where times have fractions of seconds, and where they are
coarsest (FAT)."""
LONGEST = 10.0
"""Seconds after which a file is no longer believed to be still."""

_Stamp = tuple[int, int, int, int]
"""Device, number, size in bytes, and time of the last write in nanoseconds."""


class Stillness:
    """See the module. For one thread."""

    def __init__(
        self, path: str, clock: Callable[[], float] = time.monotonic, now: Callable[[], float] = time.time
    ) -> None:
        self._paths = path, path + "-wal"  # a transaction is written to the second, and later to the first
        self._clock = clock
        self._now = now
        self._stamps: list[_Stamp | None] | None = None
        self._looked_at = 0.0

    def begin_look(self) -> None:
        """Whatever is in the file now is seen by the look that follows."""
        stamps = self._read()
        now = self._now()
        self._stamps = stamps if all(_is_over(stamp, now) for stamp in stamps) else None
        self._looked_at = self._clock()

    def lasts(self) -> bool:
        """Whether nothing can have come since the last look. ``False`` where that is not known."""
        return self._stamps is not None and self._clock() < self._looked_at + LONGEST and self._read() == self._stamps

    def _read(self) -> list[_Stamp | None]:
        return [_stamp(path) for path in self._paths]


def _is_over(stamp: _Stamp | None, now: float) -> bool:
    """Whether what is written from now on gives the file another time."""
    if stamp is None:
        return True
    seconds, rest = divmod(stamp[3], 10**9)
    return seconds + rest / 1e9 + (FINE_STEP if rest else COARSE_STEP) < now


def _stamp(path: str) -> _Stamp | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
