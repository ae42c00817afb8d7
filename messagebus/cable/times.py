"""Which global id the bus had come to at a moment: for clients that name their position by the time."""

from __future__ import annotations

import time
from bisect import bisect_right
from collections import deque
from collections.abc import Callable
from operator import itemgetter

from ..loop.reactor import Reactor
from ..stores import StoreState

EVERY = 1.0
"""Seconds between two looks."""
KEPT = 900
"""Looks that are kept: a quarter of an hour of a busy bus, more of a quiet one."""


class Times:
    """See the module. In the reactor's loop, except :meth:`at`."""

    def __init__(self, reactor: Reactor, state: Callable[[], StoreState]) -> None:
        """``state``: how far this process has come."""
        self._reactor = reactor
        self._state = state
        self._epoch: str | None = None
        self._known: deque[tuple[float, int]] = deque(maxlen=KEPT)
        """Moments, and the last global id then. None is kept where nothing has come since the one before."""
        self.tick = 0

    def start(self) -> None:
        self.on_deadline()

    def on_deadline(self) -> None:
        global_id, epoch, lineage = self._state()
        if self._epoch not in (None, epoch) and self._epoch not in lineage:
            self._known.clear()  # the ids of another life of the store
        self._epoch = epoch
        if not self._known or self._known[-1][1] != global_id:
            self._known.append((time.time(), global_id))
        self._reactor.set_deadline(self, EVERY)

    def at(self, moment: float) -> int | None:
        """The last global id at a moment (seconds since 1970) or a little earlier; ``None``: not known. From any
        thread."""
        known = [*self._known]
        index = bisect_right(known, moment, key=itemgetter(0))
        return known[index - 1][1] if index else None
