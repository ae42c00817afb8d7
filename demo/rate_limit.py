"""How often each of many may do something. No Flask."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from threading import Lock


class RateLimit:
    """Token buckets: ``burst`` at once, and ``per_second`` in the long run, for each key. Safe from any thread."""

    def __init__(
        self, *, per_second: float, burst: int, keys: int = 10_000, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """``keys``: how many are remembered; past it the one that was not seen for longest is forgotten."""
        self._per_second, self._burst, self._keys, self._clock = per_second, burst, keys, clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()  # key -> (tokens, when counted)
        self._lock = Lock()

    def take(self, key: str) -> float:
        """Take a token. Returns 0.0, or the seconds until there will be one."""
        now = self._clock()
        with self._lock:
            tokens, counted = self._left.pop(key, (float(self._burst), now))
            tokens = min(tokens + (now - counted) * self._per_second, self._burst)
            wait = 0.0 if tokens >= 1 else (1 - tokens) / self._per_second
            self._left[key] = (tokens - 1 if wait == 0.0 else tokens, now)
            if len(self._left) > self._keys:
                self._left.popitem(last=False)
            return wait
