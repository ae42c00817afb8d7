"""The clock of presence: numbers that grow over all workers, also where their clocks differ a little."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

STEPS = 2048
"""Numbers of a millisecond: enough to tell workers apart, and few enough for JavaScript's integers until 2109."""


class Stamps:
    """A hybrid logical clock: no number is below one that was heard before. For the loop only."""

    def __init__(self, clock: Callable[[], float] = time.time, dice: Callable[[int], int] = random.randrange) -> None:
        self._clock = clock
        self._dice = dice
        self.last = 0

    def next(self) -> int:
        """A number above all that this worker has given or heard."""
        self.last = max(self.last + 1, int(self._clock() * 1000) * STEPS + self._dice(STEPS))
        return self.last

    def heard(self, stamp: int) -> None:
        """Another worker has given a number."""
        self.last = max(self.last, stamp)
