"""Which channels a feed of the SQLite store is to be woken for: bits in a file beside its socket, one for each hash of
a name.

The feed sets them, whoever publishes looks. A bit is set before the feed reads how far the channel is, and looked at
after the commit: so one of the two sees the other. A bit that is shared by two channels costs a look in vain. Where
there is no such file, for want of room or because the feed wants all channels, the feed is woken for everything.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence

ENDING = ".marks"
SIZE = 1 << 17
"""Bytes: 10,000 channels set one bit in a hundred."""
Bits = Sequence[tuple[int, int]]
"""Which byte, and which bit of it."""


def bits_of(names: Iterable[str]) -> Bits:
    """The bits of these names."""
    hashes = [zlib.crc32(name.encode("utf-8", "surrogatepass")) for name in names]
    return [(each >> 3 & SIZE - 1, 1 << (each & 7)) for each in hashes]


class Marks:
    """A feed's own. For one thread."""

    def __init__(self, path: str) -> None:
        """Make the file, with no bit set.

        Raises:
            OSError: It cannot be made.
        """
        self._path = path
        self._counts: Counter[tuple[int, int]] = Counter()
        self._bytes = bytearray(SIZE)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        # All of it, for what is written now cannot be found to have no room later; a reader may have it in its memory.
        if os.write(self._file, self._bytes) != SIZE:
            self.close()
            raise OSError("no room")

    def add(self, names: Iterable[str]) -> None:
        """Each name once."""
        for place in bits_of(names):
            self._counts[place] += 1
            if self._counts[place] == 1:
                self._set(place[0], self._bytes[place[0]] | place[1])

    def remove(self, names: Iterable[str]) -> None:
        """Names that were added."""
        for place in bits_of(names):
            self._counts[place] -= 1
            if not self._counts[place]:
                del self._counts[place]
                self._set(place[0], self._bytes[place[0]] & ~place[1])

    def _set(self, index: int, value: int) -> None:
        self._bytes[index] = value
        os.pwrite(self._file, bytes((value,)), index)

    def close(self) -> None:
        """Delete the file; may be repeated."""
        self.leave_to_parent()
        with contextlib.suppress(OSError):
            os.unlink(self._path)

    def leave_to_parent(self) -> None:
        """In a child: close the descriptor alone."""
        file, self._file = self._file, -1
        if file >= 0:
            os.close(file)


def open_marks(path: str) -> mmap.mmap | None:
    """Another feed's, to look at; ``None`` where they cannot be seen, and the feed has to be woken."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        # Refuses a file that is not yet as long.
        return mmap.mmap(file, SIZE, access=mmap.ACCESS_READ)
    except (OSError, ValueError):
        return None
    finally:
        os.close(file)


def has_any(marks: mmap.mmap, bits: Bits) -> bool:
    return any(marks[index] & bit for index, bit in bits)
