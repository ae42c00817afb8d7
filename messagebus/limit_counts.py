"""How often each limit was met, for statistics. A limit goes by the name of its option."""

from __future__ import annotations

import threading


class LimitCounts:
    """Safe from any thread. Only refusals come here, so that a message costs nothing."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[str, int] = {}

    def count(self, limit: str, times: int = 1) -> None:
        with self._lock:
            self._counts[limit] = self._counts.get(limit, 0) + times

    def as_dict(self) -> dict[str, int]:
        """Limit -> how often it was met; limits that never were are left out."""
        with self._lock:
            return dict(self._counts)


SERVER = LimitCounts()
"""Those of ``messagebus serve`` itself, where this process is a worker of it. A bus has its own: ``Hub.refused``."""
