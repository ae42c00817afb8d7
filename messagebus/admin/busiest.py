"""Which channels the admin page shows: the busiest of those whose names begin with a text."""

from __future__ import annotations

from typing import NamedTuple

from ..statistics.reachable import ask_reachable
from ..stores import Store

PAGES = 10
"""Pages of the store's names that are looked through at a time."""
PAGE = 1000
MOST = 2000
"""Channels that are compared."""


class Found(NamedTuple):
    """Some channels."""

    names: list[str]
    """As the store names them, in their alphabetical order."""
    has_more: bool
    """Whether there are others."""
    away: set[int]
    """Partitions that give no answer, whose channels are not among them."""


class Busiest:
    """Of one text. Remembers how many messages each channel had, to see which have more. For one thread at a time."""

    def __init__(self, store: Store, prefix: str) -> None:
        self._store = store
        self._prefix = prefix
        self._ids: dict[str, int] = {}
        self._busy: dict[str, float] = {}
        """Channel -> its messages between two looks, of which older ones count less and less."""

    def find(self, number: int) -> Found:
        """Up to so many channels, and goes on without the partitions that give no answer. Blocks.

        Raises:
            BackendUnavailable: The store gives no answer.
        """
        names, has_more, away = self._names()
        ids, more_away = ask_reachable(self._store, names, self._store.last_ids) if names else ({}, [])
        self._busy = {
            name: self._busy.get(name, 0.0) * 0.8 + max(0, last_id - self._ids.get(name, last_id))
            for name, last_id in ids.items()
        }
        self._ids = ids
        # Those that were quiet from the beginning: by what they have had so far.
        busiest = sorted(ids, key=lambda name: (-self._busy[name], -ids[name], name))[:number]
        return Found(sorted(busiest), has_more or len(names) > number, {*away, *more_away})

    def _names(self) -> Found:
        cursor, found, away = "", dict[str, None](), set[int]()
        for _ in range(PAGES):
            page, cursor, more_away = self._store.channels(cursor, PAGE)
            away.update(more_away)
            found |= dict.fromkeys([name for name in page if name.startswith(self._prefix)])
            if not cursor or len(found) > MOST:
                break
        return Found([*found][:MOST], bool(cursor) or len(found) > MOST, away)
