"""Bytes as they come, cut into lines."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

CHUNK = 1 << 16
MOST = 16 << 20
"""Bytes of a line. No bus takes messages as large, and a program that never ends its line must not fill the memory."""


class LineTooLong(Exception):
    """A line has more bytes than it may."""


def read_lines(
    file: int, told: Callable[[int], object] = lambda size: None, most: int | None = None
) -> Iterator[list[bytes]]:
    """The lines that are there, without their ends, as soon as they are: of a file many at once, of a program that
    writes one now and then each by itself. The last one may have no end.

    ``file``: a descriptor. ``told``: is given the number of bytes of each reading. ``most``: bytes of a line;
    ``None``: ``MOST``.

    Raises:
        LineTooLong: One has no end. What comes after it was not read.
    """
    begun: list[bytes] = []
    size = 0
    while chunk := os.read(file, CHUNK):
        told(len(chunk))
        *lines, rest = chunk.split(b"\n")
        if lines:
            lines[0] = b"".join([*begun, lines[0]])
            begun, size = [], 0
            yield [line.removesuffix(b"\r") for line in lines]
        if rest:
            begun.append(rest)
            size += len(rest)
            if size > (most or MOST):
                raise LineTooLong
    if begun:
        yield [b"".join(begun)]
