"""Which global ids the bus had come to at a moment: for clients that name their position by the time."""

from __future__ import annotations

import time
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Sequence
from operator import itemgetter

from ..hub.epochs import Epochs
from ..loop.reactor import Reactor

EVERY = 1.0
"""Seconds between two looks."""
LEARNS_EVERY = 5
"""Looks, before one of which the store is asked how far it is: so much older may be what ``at`` returns where this
process follows nothing. It costs a cluster's worker 0.1 % of a core."""
KEPT = 900
"""Looks that are kept: a quarter of an hour of a busy bus, more of a quiet one."""


class Times:
    """See the module. In the reactor's loop, except :meth:`at`."""

    def __init__(
        self, reactor: Reactor, reached: Sequence[int], epochs: Epochs, learn: Callable[[], object] = lambda: None
    ) -> None:
        """``reached``: how far this process has come in each partition of the store; others change it. ``learn``: asks
        for that where the process does not hear of all that comes."""
        self._reactor = reactor
        self._reached = reached
        self._learn = learn
        self._epochs = epochs
        self._lives: dict[int, tuple[str | None, float]] = {}
        """Of the partitions: their epochs, and since when, where there was another one before."""
        self._known: deque[tuple[float, tuple[int, ...]]] = deque(maxlen=KEPT)
        """Moments, and the last global ids then. None is kept where nothing has come since the one before."""
        self._looks = 0
        self.tick = 0

    def start(self) -> None:
        self.on_deadline()

    def on_deadline(self) -> None:
        now, reached = time.time(), (*self._reached,)
        for partition in range(len(reached)):
            before, since = self._lives.get(partition, (None, 0.0))
            epoch = self._epochs[partition]
            if epoch != before:
                # What came before has the ids of another life, unless the one has a part of the other.
                is_other = before is not None and before not in self._epochs.lineages[partition]
                self._lives[partition] = epoch, now if is_other else since
        if not self._known or self._known[-1][1] != reached:
            self._known.append((now, reached))
        self._looks += 1
        if self._looks % LEARNS_EVERY == 0:
            self._learn()
        self._reactor.set_deadline(self, EVERY)

    def at(self, moment: float, partition: int) -> int | None:
        """The last global id of a partition at a moment (seconds since 1970) or a little earlier; ``None``: not known.
        From any thread."""
        if moment < self._lives.get(partition, (None, 0.0))[1]:
            return None
        known = [*self._known]
        index = bisect_right(known, moment, key=itemgetter(0))
        return known[index - 1][1][partition] if index else None
