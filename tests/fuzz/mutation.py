"""Bytes that are nearly right: well-formed ones that are cut, doubled, joined, flipped and filled with what is hard to
read. Reproducible by its seed."""

from __future__ import annotations

import random
from collections.abc import Sequence

HARD = [
    *(b"\x00", b"\xff", b"\xc3\x28", b"\xed\xa0\x80", b"\xf0\x9f\x98\x80", b"\r", b"\n", b"\r\n", b"\r\n\r\n", b"\t"),
    *(b"%", b"%0", b"%00", b"%ff", b"%C3%28", b"%0d%0a", b"%25", b"+", b"&", b"=", b";", b"#", b"?", b"//", b"../"),
    *(b"0", b"-0", b"-1", b"-2", b"@0", b"@-1", b"1e400", b"9" * 18, b"9" * 19, b"9" * 5000, b"0x10", b"NaN", b"01"),
    *(b"{", b"}", b"[" * 500, b"]", b'"', b"\\", b"\\ud800", b"null", b"true", b"__seq", b"__epoch", b"__grants"),
    *(b"/", b"/__status", b"/a$|$b", b"/" + b"x" * 300, b"__refusals=t", b"$$123", b"\x1b[31m", b"\xc2\x9b"),
]


class Mutation:
    """Draws from a seed."""

    def __init__(self, seed: int, hard: Sequence[bytes] = ()) -> None:
        """``hard``: more that is hard to read, of the format in question."""
        self.random = random.Random(seed)
        self._hard = [*HARD, *hard]

    def of(self, seeds: Sequence[bytes]) -> bytes:
        """One of the seeds, changed in up to six places; now and then not at all."""
        data = bytearray(self.random.choice(seeds))
        for _ in range(self.random.choice((0, 1, 1, 2, 3, 6))):
            self._change(data, seeds)
        return bytes(data)

    def _change(self, data: bytearray, seeds: Sequence[bytes]) -> None:
        draw = self.random
        start = draw.randrange(len(data) + 1)
        end = min(len(data), start + draw.choice((0, 1, 1, 2, 5, 20, 200)))
        kind = draw.randrange(7)
        if kind == 0:
            data[start:end] = b""
        elif kind == 1:
            data[start:end] = draw.choice(self._hard)
        elif kind == 2:
            data[start:start] = draw.choice(self._hard)
        elif kind == 3:
            data[start:start] = data[start:end] * draw.choice((1, 2, 50))
        elif kind == 4:
            data[start:end] = draw.randbytes(end - start)
        elif kind == 5 and start < len(data):
            data[start] ^= 1 << draw.randrange(8)
        else:
            other = draw.choice(seeds)
            data[start:] = other[draw.randrange(len(other) + 1) :]
