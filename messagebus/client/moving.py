"""When to open the next connection beside one that its server is about to end. No I/O, no waiting."""

from __future__ import annotations

import random
from collections.abc import Callable

from ..backoff import growing

MOST_MILLISECONDS = 600_000
AGAIN, AGAIN_MOST = 1.0, 8.0
"""Seconds until the next try where no other server was there: a random part of the first, doubling up to the second."""


class Move:
    """See the module. For one connection, and one thread or loop."""

    __slots__ = ("_clock", "_dice", "_failures", "at")

    def __init__(self, clock: Callable[[], float], dice: Callable[[], float] = random.random) -> None:
        """``clock``: seconds. ``dice``: numbers from 0 to 1."""
        self._clock = clock
        self._dice = dice
        self._failures = 0
        self.at: float | None = None
        """When the next connection is due, by ``clock``; ``None`` where this one has no end in sight."""

    def told(self, milliseconds: object) -> None:
        """The server has said within which time to move; anything but a number is ignored. All its clients are told the
        same, so each takes a time of its own. The first word counts."""
        is_number = isinstance(milliseconds, (int, float)) and not isinstance(milliseconds, bool)
        if self.at is None and is_number and 0 <= milliseconds <= MOST_MILLISECONDS:  # type: ignore[operator]
            self.at = self._clock() + self._dice() * milliseconds / 1000  # type: ignore[operator]

    def at_after(self, now: float) -> float | None:
        """When it is due where that is still to come."""
        return self.at if self.at is not None and self.at > now else None

    def failed(self) -> None:
        """The next connection did not open: this one goes on, until it ends or another try is due."""
        self.at = self._clock() + self._dice() * growing(AGAIN, self._failures, AGAIN_MOST)
        self._failures += 1
