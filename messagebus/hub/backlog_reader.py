"""Reads backlogs from the store: one round trip at a time, for all requests that wait at that moment. May block, so
never in the loop.

A request that comes during a round waits for the next one, which serves all requests that have come until it begins. So
the cost of a crowd depends on how much there is to read, not on its size, and each request gets what was read after it
came. While the store does not answer, one request at a time tries it, and the others fail at once.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from ..errors import BackendUnavailable
from ..stores import BacklogPage, BacklogQuery
from .history import HistoryView, answers, view_of_page
from .patterns import PatternBacklogs, Source

ROUND_BYTES = 4 * 1024 * 1024
"""Approximate number of bytes read in one round."""
PAGE_BYTES = 1024 * 1024, 64 * 1024
"""The maximum and the minimum of that for one channel."""
MAX_CHANNELS = 256
"""Of one round; who comes after is in the one after it."""
PATIENCE = 2.0
"""Seconds that a request waits for the readings of others."""
PROBE_SECONDS = 1.0
"""Seconds between tries of a store that does not answer."""


class OtherEpoch(BackendUnavailable):
    """What was read is of another epoch than this process has come to: its clients know no name yet for that, or the
    store that was read is no longer the one. To be read again in a moment."""

    def __init__(self) -> None:
        super().__init__("this process does not know yet what became of the store")


class _Round:
    """The queries of one round trip."""

    def __init__(self) -> None:
        self.asked: dict[tuple[str, bool], tuple[int, int]] = {}
        """Channel and whether the newest are asked for -> the first and the last position."""
        self.done = threading.Event()
        self.pages: dict[str, list[BacklogPage]] = {}
        self.read_at = 0.0
        self.error: BaseException | None = None

    def add(self, queries: Sequence[BacklogQuery]) -> None:
        """Of each channel the positions are read that reach back the furthest and the least. Who stands in between
        finds what these bring, or asks again."""
        for name, after in queries:
            key = name, after < 0
            first, last = self.asked.get(key, (after, after))
            self.asked[key] = min(first, after), max(last, after)

    def queries(self) -> list[BacklogQuery]:
        found = set()
        for (name, newest), (first, last) in self.asked.items():
            found.add(BacklogQuery(name, first))
            if not newest:
                found.add(BacklogQuery(name, last))
        return list(found)


class BacklogReader:
    """See the module. Safe from any thread or greenlet."""

    def __init__(
        self,
        store: Source,
        timeout: float,
        absorb: Callable[[str, HistoryView], object],
        clock: Callable[[], float] = time.monotonic,
        epoch: Callable[[], str | None] = lambda: None,
    ) -> None:
        """``timeout``: seconds that the store may take. ``absorb``: called with every page that was read. ``epoch``:
        the one that this process has come to, ``None`` where it knows none."""
        self._store = PatternBacklogs(store)
        self._patience = min(PATIENCE, timeout)
        self._absorb = absorb
        self._clock = clock
        self._epoch = epoch
        self._lock = threading.Lock()
        self._turn = threading.Lock()  # who reads
        self._next: _Round | None = None
        self.is_away = False
        """Whether the store is known not to answer."""
        self._probe_at = 0.0

    def set_away(self, away: bool) -> None:
        """Whether the store's feed is down: then a reading is a probe, one at a time."""
        self.is_away = away

    def read(self, queries: Sequence[BacklogQuery]) -> dict[str, HistoryView]:
        """By channel: a page that answers its query, read after this call began.

        Raises:
            OtherEpoch: See there.
            BackendUnavailable: The store gave no answer, or is known to be unreachable.
        """
        found: dict[str, HistoryView] = {}
        left = list(queries)
        until = self._clock() + self._patience
        while left:
            done = self._join_round(left, until)
            rest = []
            for query in left:
                page = next((page for page in done.pages.get(query.name, ()) if answers(page, query)), None)
                if page is None:
                    rest.append(query)
                else:
                    found[query.name] = view_of_page(page, done.read_at)
            left = rest
            if left and self._clock() > until:
                raise BackendUnavailable("the store is busy reading backlogs for others")
        return found

    def _join_round(self, queries: Sequence[BacklogQuery], until: float) -> _Round:
        with self._lock:
            if self.is_away:
                now = self._clock()
                if now < self._probe_at:
                    raise BackendUnavailable("the store is unreachable")
                self._probe_at = now + PROBE_SECONDS
            mine, leads = self._next, False
            if mine is None:
                mine, leads = _Round(), True
                self._next = mine
            mine.add(queries)
            if len(mine.asked) >= MAX_CHANNELS:
                self._next = None
        if leads:
            self._lead(mine, until)
        elif not mine.done.wait(max(0.0, until - self._clock()) + self._patience):
            raise BackendUnavailable("the store gave no answer to others who asked before")
        if mine.error is not None:
            if leads and not isinstance(mine.error, BackendUnavailable):
                raise mine.error
            raise mine.error if isinstance(mine.error, OtherEpoch) else BackendUnavailable(str(mine.error))
        return mine

    def _lead(self, mine: _Round, until: float) -> None:
        try:
            got = self._turn.acquire(timeout=max(0.0, until - self._clock()))
            with self._lock:
                if self._next is mine:
                    self._next = None
                if not got:
                    self.is_away, self._probe_at = True, self._clock() + PROBE_SECONDS
            if not got:
                raise BackendUnavailable("the store gave no answer to others who asked before")
            try:
                self._read_round(mine)
            finally:
                self._turn.release()
        except BaseException as error:
            mine.error = error
        finally:
            mine.done.set()

    def _read_round(self, mine: _Round) -> None:
        queries = mine.queries()
        most, least = PAGE_BYTES
        mine.read_at = self._clock()
        try:
            pages = self._store.backlogs(queries, max(least, min(most, ROUND_BYTES // len(queries))))
        except BackendUnavailable:
            self.is_away, self._probe_at = True, self._clock() + PROBE_SECONDS
            raise
        self.is_away = False
        here = self._epoch()
        if here is not None and any(page.epoch not in (None, here) for page in pages):
            # Nobody may have any of it, nor remember it: it would be taken for what this process's epoch has there.
            raise OtherEpoch
        for query, page in zip(queries, pages, strict=True):
            mine.pages.setdefault(query.name, []).append(page)
            self._absorb(query.name, view_of_page(page, mine.read_at))
