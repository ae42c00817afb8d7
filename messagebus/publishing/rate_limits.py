"""How many messages a key, or an address, may publish over HTTP. Each process counts its own."""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable

MOST_PUBLISHERS = 10_000
"""Publishers that are remembered; of more, those that have published least recently are forgotten."""


class PublishLimits:
    """Token buckets: a publisher may save up what it is allowed in a second. Safe from any thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()
        """Publisher -> what it may still publish, and when that was counted."""

    def take(self, publisher: str, messages: int, per_second: int) -> int:
        """Count messages. Returns 0 if they are allowed; otherwise the whole seconds to wait, and nothing is counted.

        More at once than a second allows are taken from a full bucket, and are paid for afterwards."""
        now = self._clock()
        with self._lock:
            left, counted_at = self._buckets.pop(publisher, (float(per_second), now))
            left = min(float(per_second), left + (now - counted_at) * per_second)
            missing = min(messages, per_second) - left
            if missing <= 0:
                left -= messages
            self._buckets[publisher] = (left, now)
            if len(self._buckets) > MOST_PUBLISHERS:
                self._buckets.popitem(last=False)
        return max(1, math.ceil(missing / per_second)) if missing > 0 else 0
