"""When clients have last asked this process for a channel."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable

MOST_CHANNELS = 10_000
"""Channels that are remembered; of more, those that were asked for least recently are forgotten."""


class RequestTimes:
    """Safe from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._at: OrderedDict[str, float] = OrderedDict()

    def note(self, names: Iterable[str], now: float) -> None:
        """``names``: as the store names them; ``now``: seconds of one clock."""
        with self._lock:
            for name in names:
                self._at[name] = now
                self._at.move_to_end(name)
            while len(self._at) > MOST_CHANNELS:
                self._at.popitem(last=False)

    def ago(self, name: str, now: float) -> float | None:
        """Seconds since a channel was asked for; ``None``: never, or forgotten."""
        at = self._at.get(name)
        return None if at is None else now - at
