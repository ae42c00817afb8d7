"""A store, as commands use it: by the same bus that apps have."""

from __future__ import annotations

import contextlib
import queue
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

from ..bus import Bus
from ..errors import BackendUnavailable
from ..hub.workers import reports_of
from ..message import Message
from ..names import check_channel, split_name
from ..option_kinds import check_pattern, matches
from ..statistics.bus import newest_page, stats_of
from ..statistics.reachable import ask_reachable
from ..statistics.why import Finding, read_user_id
from ..stores import BacklogQuery, Store, open_store
from .ending import CannotDo
from .places import Backlog, Channel, Channels, Place, Published
from .watch import Watch

WAITING = 1000
"""Messages that wait to be printed; what is beyond is left in the store."""
PAGE = 1 << 20
"""Bytes that are read at once."""


class StorePlace(Place):
    """The settings of the environment hold (``MESSAGEBUS_…``), as for an app."""

    def __init__(self, url: str) -> None:
        self._bus = Bus(url=url)
        self._reader: Store | None = None
        self._waiting: queue.Queue[Message] = queue.Queue(WAITING)
        self._closed = False

    @property
    def _store(self) -> Store:
        if self._reader is None:
            self._reader = open_store(self._bus.options)
        return self._reader

    def check(self, channel: str) -> None:
        self._store.last_ids([check_channel(channel)])

    def publish(self, channel: str, data: Sequence[Any], options: dict[str, Any]) -> Published:
        given = {"queue_in_memory": False, **options}
        if len(data) == 1:
            ids = self._bus.publish_ids(channel, data[0], **given)
            return Published(channel, *(ids or (None, None)))
        return Published(channel, self._bus.publish_many([(channel, each) for each in data], **given)[-1], None)

    def subscribe(self, channels: Sequence[str], last_id: int) -> Iterator[Message]:
        patterns = [check_pattern(channel) for channel in channels if channel.endswith("*")]
        if patterns and last_id != -1:
            raise CannotDo(f"{patterns[0]}: --last and --from are for channels by their names, not for a pattern")
        for channel in channels:
            check_channel(channel)
        names = [channel for channel in dict.fromkeys(channels) if channel not in patterns]
        # They answer: later the bus itself comes back to them, however long that takes.
        for partition in sorted({self._store.partition_of(name) for name in names} or {0}):
            self._store.state(partition)
        for channel in names:
            self._bus.subscribe(channel, self._put, last_id)

        def put_what_matches(message: Message) -> None:
            channel = message.channel
            if channel not in names and any(matches(pattern, channel) for pattern in patterns):
                self._put(message)

        if patterns:
            self._bus.subscribe(None, put_what_matches)
        while True:
            yield self._waiting.get()

    def _put(self, message: Message) -> None:
        if not self._closed:
            self._waiting.put(message)

    def watch(self, channel: str) -> Callable[[], Collection[str]]:
        self._bus.start()
        return Watch(self._bus._running_node(), check_channel(channel)).clients

    def backlog(self, channel: str, last_id: int) -> Backlog:
        newest = self._store.last_ids([check_channel(channel)])[0]
        after = max(newest + 1 + last_id, 0) if last_id < 0 else last_id
        return Backlog(newest, self._pages(channel, after, newest))

    def _pages(self, channel: str, after: int, newest: int) -> Iterator[Message]:
        while after < newest:
            (page,) = self._store.backlogs([BacklogQuery(channel, after)], PAGE)
            for message in page.messages:
                if message.message_id > newest:
                    return
                yield message
            if page.through <= after:
                return
            after = page.through

    def channels(self, pattern: str = "/*") -> Channels:
        away: set[int] = set()
        return Channels(self._channels(pattern, away), away)

    def _channels(self, pattern: str, away: set[int]) -> Iterator[Channel]:
        seen: set[str] = set()
        cursor = ""
        while True:
            found = self._store.channels(cursor)
            names = [name for name in dict.fromkeys(found.names) if name not in seen]
            seen.update(names)
            away.update(found.away)
            yield from self._describe([name for name in names if matches(pattern, split_name(name)[0])], away)
            cursor = found.cursor
            if not cursor:
                return

    def _describe(self, names: Sequence[str], away: set[int]) -> Iterator[Channel]:
        pages, more_away = ask_reachable(self._store, names, newest_page(self._store))
        away.update(more_away)
        for name, page in pages.items():
            stored = page.last_id - page.first_id + 1
            if stored > 0:  # or it has gone meanwhile
                channel, site_id = split_name(name)
                yield Channel(channel, stored, page.last_id, site=site_id)

    def forget(self, channel: str) -> None:
        self._bus.forget(channel)

    def stats(self) -> dict[str, Any]:
        # Not Bus.stats, which would make this process one of those that it counts.
        try:
            reports = reports_of(self._store)
        except BackendUnavailable:
            if self._store.partitions == 1:
                raise
            reports = {}  # the others can be counted without the partition that has them
        return stats_of(self._store, reports)

    def why(self, channel: str, message_id: int, user: str | None, client: str | None) -> list[Finding]:
        return self._bus.why(
            channel, message_id, user_id=None if user is None else read_user_id(user), client_id=client
        )

    def close(self) -> None:
        self._closed = True
        with contextlib.suppress(queue.Empty):
            self._waiting.get_nowait()  # the callback may be waiting for room
        self._bus.close()
        if self._reader is not None:
            self._reader.close()
