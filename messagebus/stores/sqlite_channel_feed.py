"""The feed of the SQLite store that hears only what somebody in this process follows.

It is woken for the channels that it marks (``sqlite_marks``), and reads what is new of these alone (``sqlite_wanted``).
What it reads it reads at one moment: so all that is wanted is there, up to the file's global id, in its order.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Protocol

from .base import Listener
from .channel_feed import BothSources, ChannelFeed
from .interest import Interest
from .sqlite_feed import QUIET, SqliteFeed, SqliteSource
from .sqlite_waking import Alarm
from .sqlite_wanted import Look, SqliteWanted


class SqliteChannelSource(SqliteSource, BothSources, Protocol):
    """What the two ways to hear ask the store."""


class SqliteChannelFeed(ChannelFeed, SqliteFeed):
    def __init__(
        self, source: SqliteChannelSource, listener: Listener, path: str, interest: Interest, wanted: SqliteWanted
    ) -> None:
        super().__init__(source, listener, path)
        self._wanted = wanted
        self._told = 0
        """The global id up to which the listener knows that it has everything."""
        self._announced = 0
        self._follow_names(source, interest)

    def _run(self) -> None:
        try:
            super()._run()
        finally:
            self._wanted.close()

    def _follow_channels(self) -> Iterator[None]:
        alarm = self._alarm = Alarm(self._path, by_channel=True)
        self._wanted.begin_again()
        try:
            self._source.named_state()
            self._announced = self._source.news(0, None).announced
            is_first = True
            look_at = 0.0
            while not self.closed:
                look = self._turn(alarm, is_first, time.monotonic() >= look_at)
                is_first = False
                self._came_up()
                yield
                if not look.is_all:
                    time.sleep(0)  # let other greenlets run
                    continue
                if time.monotonic() >= look_at:
                    look_at = time.monotonic() + QUIET
                if not self.closed:
                    self._wait(alarm, max(look_at - time.monotonic(), 0.0))
        finally:
            if self._alarm is alarm:
                self._alarm = None
                with contextlib.suppress(OSError):
                    alarm.close()

    def _turn(self, alarm: Alarm, is_first: bool, checks: bool) -> Look:
        """Take up what is wanted by now, and hand over what is new."""
        followed = self._followed
        changes = followed.begin() if is_first else followed.take()
        alarm.mark(changes.more, changes.less)  # before the look, see ``sqlite_marks``
        self._by_channel.unfollow([name.encode() for name in changes.less])
        asked = [*[name for name, _ in changes.wanted], *changes.less]
        if checks:
            asked += followed.next_to_look_at()
        look = self._look(asked)
        while not look.is_all and (changes.wanted or changes.calls):
            # What is said of these holds for the end of what there is.
            look = self._look(asked)
        reached = self._by_channel.reached
        if changes.wanted or changes.calls or (look.is_all and reached != self._told):
            self._told = reached
            self._gate.caught_up(reached, changes.wanted)
            for call in changes.calls:
                call()
        return look

    def _look(self, asked: list[str]) -> Look:
        sequencer = self._by_channel
        self._stillness.begin_look()
        look = self._wanted.look(sequencer.reached, self._followed.names, asked)
        if look.snapshot.epoch is None and self._source.named_state().epoch is not None:
            self._wanted.begin_again()
            look = self._wanted.look(sequencer.reached, self._followed.names, asked)
        if look.begins:
            sequencer.resume(look.snapshot)
        else:
            sequencer.forgotten(look.forgotten)
            sequencer.received(look.items)
            if look.items:
                self._told = sequencer.reached
            if look.is_all:
                sequencer.checked(look.snapshot)
        if look.announced > self._announced:
            # Not those that have come since: the next look brings them.
            self._gate.announced(self._source.announcements(self._announced, look.announced))
        self._announced = look.announced
        return look
