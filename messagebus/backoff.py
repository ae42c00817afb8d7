"""How long to wait before the next attempt. Pure: no clock, and the dice are an argument."""

from __future__ import annotations

import random
from collections.abc import Callable


def growing(first: float, attempts: int, longest: float) -> float:
    """``first``, doubled with each attempt before this one, and ``longest`` at most."""
    return min(longest, first * 2.0 ** min(max(attempts, 0), 30))


class Backoff:
    """The pauses between attempts, in seconds: the first is short, each next one up to twice as long.

    Up to half of each is left out at random, so that the processes of a site do not come back to a restarted store all
    at once. For one thread."""

    def __init__(self, first: float, longest: float, dice: Callable[[], float] = random.random) -> None:
        """``dice``: a number from 0 to 1."""
        self._first = first
        self._longest = longest
        self._dice = dice
        self._attempts = 0

    def next(self) -> float:
        """The pause before the next attempt."""
        pause = growing(self._first, self._attempts, self._longest)
        self._attempts += 1
        return pause * (0.5 + self._dice() / 2)

    def reset(self) -> None:
        """An attempt has succeeded."""
        self._attempts = 0
