"""The feed of the SQLite store: one thread that reads what is new in the file whenever another process wakes it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

from ..errors import BackendUnavailable, MessageBusError
from .base import Listener
from .feed_thread import FeedThread
from .sequencer import Entry, Source
from .sqlite_stillness import Stillness
from .sqlite_waking import Alarm

QUIET = 2.0
"""Seconds after which the feed looks at the file without being woken: the most that a lost wake-up costs."""
AT_ONCE = 1000
"""Messages of one read."""


class News(NamedTuple):
    """What is new, read at one moment."""

    entries: Sequence[Entry]
    global_id: int
    epoch: str | None
    resets: int
    announced: int
    """The id of the newest announcement."""


class SqliteSource(Source, Protocol):
    def news(self, after: int, resets: int | None) -> News:
        """Up to ``AT_ONCE`` messages after a global id; all from the first one on where the store was reset since."""

    def announcements(self, after: int, through: int) -> list[str]:
        """The announcements after an id, up to another, as far as they are kept."""


class SqliteFeed(FeedThread):
    OUTAGES = (MessageBusError, OSError)

    def __init__(self, source: SqliteSource, listener: Listener, path: str) -> None:
        super().__init__(source, listener, f"SQLite at {path}")
        self._source = source
        self._path = path
        self._alarm: Alarm | None = None
        self._stillness = Stillness(path)

    def _wait(self, alarm: Alarm, timeout: float) -> None:
        """Until the feed is woken, or the file may have news of which it was not told."""
        while not alarm.wait(timeout) and not self.closed and self._stillness.lasts():
            timeout = QUIET

    def _interrupt(self) -> None:
        alarm = self._alarm
        if alarm is not None:
            alarm.ring()

    def _drop(self) -> None:
        alarm, self._alarm = self._alarm, None
        if alarm is not None:
            alarm.leave_to_parent()

    def _follow(self) -> Iterator[None]:
        self._alarm = alarm = Alarm(self._path)
        try:
            self._sequencer.prepare()
            known = self._source.news(0, None)
            position = known.global_id
            self._sequencer.resume()
            self._came_up()
            yield
            while not self.closed:
                self._stillness.begin_look()
                news = self._source.news(position, known.resets)
                if news.resets != known.resets:
                    position = 0
                if news.entries:
                    self._sequencer.received(news.entries)
                    position = news.entries[-1].global_id
                if news.announced > known.announced:
                    # Not those that have come since: the next look brings them.
                    self._gate.announced(self._source.announcements(known.announced, news.announced))
                if (news.epoch, news.resets) != (known.epoch, known.resets):
                    self._sequencer.check_epoch()
                if position > news.global_id:
                    raise BackendUnavailable("the file was replaced")  # by an older copy, or a new one
                if position < news.global_id and not news.entries:
                    # Gone already.
                    self._sequencer.resume()
                    position = news.global_id
                known = news
                yield
                if len(news.entries) >= AT_ONCE:
                    time.sleep(0)  # let other greenlets run
                elif not self.closed:
                    self._wait(alarm, QUIET)
        finally:
            if self._alarm is alarm:
                self._alarm = None
                with contextlib.suppress(OSError):
                    alarm.close()
