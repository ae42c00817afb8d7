"""What the feeds have in common that hear only what somebody in this process follows: how they are woken when that
changes, and how they go over to hearing everything."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Iterator
from typing import Protocol

from ..loop.poller import Waker
from .channel_sequencer import ChannelSequencer, ChannelSource
from .feed_thread import FeedThread
from .interest import Followed, HearAll, Interest
from .sequencer import Sequencer, Source

logger = logging.getLogger("messagebus.stores")


class BothSources(Source, ChannelSource, Protocol):
    """What the two ways to hear ask the store."""


class ChannelFeed(FeedThread):
    """See the module. The first of two bases; the other one hears everything."""

    def _follow_names(self, source: BothSources, interest: Interest, waker: Waker | None = None) -> None:
        """To be called by the initializer. ``waker``: what wakes the thread where it waits for the store, if that is
        not what interrupts it."""
        self._both = source
        self._interest = interest
        self._waker = waker
        self._followed = Followed(interest)
        self._by_channel = ChannelSequencer(source, self._gate)
        self._hears_all = False
        interest.attach(self._interrupt if waker is None else waker.wake)

    @abstractmethod
    def _follow_channels(self) -> Iterator[None]:
        """Run one connection, as ``_follow`` does; it may also end with ``HearAll``, or when the feed is closed."""

    def _follow(self) -> Iterator[None]:
        if not self._hears_all:
            try:
                yield from self._follow_channels()
                return
            except HearAll as why:
                if str(why):
                    logger.warning("%s: from now on this process hears all channels: %s", self._where, why)
                self._sequencer = Sequencer(self._both, self._gate, again=self._by_channel.give_up())
                self._hears_all = self._interest.everything = True
        yield from super()._follow()  # type: ignore[safe-super]  # the other base's

    def _run(self) -> None:
        try:
            super()._run()
        finally:
            self._interest.attach(lambda: None)
            if self._waker is not None:
                self._waker.close()

    def _interrupt(self) -> None:
        super()._interrupt()  # type: ignore[safe-super]
        if self._waker is not None:
            self._waker.wake()

    def _drop(self) -> None:
        super()._drop()  # type: ignore[safe-super]
        if self._waker is not None:
            self._waker.close()
