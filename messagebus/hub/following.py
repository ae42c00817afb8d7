"""What this process wants of the store's feed: the channels that have a window, and those of Python functions.

Only where the feed leaves out the rest. A channel's window is *unheard* until the feed has said that it brings the
channel; who wants to read the backlog waits for that.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable, Sequence
from functools import partial

from ..errors import BackendUnavailable
from ..loop.reactor import Reactor
from ..options import Options
from ..stores import Interest, Store
from .backlog_reader import PATIENCE
from .callbacks import Callbacks
from .window import ChannelWindow
from .windows import Windows


class Following:
    """See the module. Safe from any thread or greenlet."""

    def __init__(
        self, store: Store, options: Options, windows: Windows, callbacks: Callbacks, reactor: Reactor
    ) -> None:
        self._windows = windows
        self._callbacks = callbacks
        self._reactor = reactor
        self._patience = min(PATIENCE, options.store_timeout)
        callbacks.changed = lambda name: None
        self._whole: set[int] = set()
        """The partitions of which the feed has come to bring everything."""
        self.interest: Interest | None = None
        """What the feed is asked for; ``None``: for everything."""
        if store.by_channel and not options.wildcard_subscriptions and not callbacks.has_any(None):
            self.interest = Interest(self._find, self._names, store.partitions)
            windows.hear_only(self.interest.changed)
            callbacks.changed = partial(self._changed_of_callbacks, self.interest)

    def _find(self, name: str) -> object | None:
        return self._windows.find_any(name) or (self._callbacks if self._callbacks.has_any(name) else None)

    def _names(self) -> set[str]:
        return {*self._windows.names(), *self._callbacks.names()}

    def _changed_of_callbacks(self, interest: Interest, name: str | None) -> None:
        if name is not None:
            interest.changed(name)
        elif self._callbacks.has_any(None):
            interest.want_everything()

    def enter(self, names: Sequence[str], away: Collection[int]) -> None:
        """Have windows of channels, and wait until the feed brings what comes on them.

        Raises:
            BackendUnavailable: It does not, within some seconds; or not at all, as the partition of one is ``away``.
        """
        windows = self._windows
        # So that what is wanted cannot grow while nobody takes it up.
        lacks = [name for name in names if windows.find(name) is None] if self.interest is not None and away else []
        if any(windows.partition_of(name) in away for name in lacks):
            raise BackendUnavailable("the store's feed is down, and cannot take up another channel")
        unheard = [name for name in names if windows.enter(name).heard is not None]
        if not unheard:
            return
        until = self._reactor.clock() + self._patience
        for name in unheard:
            while (heard := windows.enter(name).heard) is not None:
                left = until - self._reactor.clock()
                if left <= 0:
                    raise BackendUnavailable("the store's feed did not take up the channel in time")
                heard.wait(left)

    def catch_up(self, partitions: Iterable[int], seconds: float | None = None) -> None:
        """Wait, so long at most, until all that was published in these partitions before has been dispatched, of what
        the feed brings.

        Global ids of other channels are unknown here, so that one from elsewhere does not say whether this process is
        behind: the store is asked. Where the feed brings everything, there is no need to."""
        interest = self.interest
        if interest is None:
            return
        asked = []
        for each in partitions:
            done = threading.Event()
            interest.ask(partial(self._reactor.call_soon, done.set), each)
            asked.append(done)
        until = self._reactor.clock() + (self._patience if seconds is None else seconds)
        for done in asked:
            done.wait(max(0.0, until - self._reactor.clock()))

    def learn(self, away: Collection[int]) -> None:
        """Have the feed find out how far the store is, also where nothing comes that it brings. Waits for nothing."""
        interest = self.interest
        if interest is not None:
            for partition in range(len(interest.parts)):
                if partition not in away:  # where nobody would take it up
                    interest.ask(_nothing, partition)

    # --- from the feed ---

    def hear(self, wanted: Sequence[tuple[str, object]]) -> list[ChannelWindow]:
        """The feed brings these from now on. Returns the windows, for the loop; functions read what came before."""
        self._callbacks.hear([name for name, _ in wanted])
        return [window for _, window in wanted if isinstance(window, ChannelWindow)]

    def look(self, partition: int) -> None:
        """The feed of a partition begins, or begins again: it may have come to bring everything."""
        interest = self.interest
        if interest is not None and interest.parts[partition].everything and partition not in self._whole:
            self._whole.add(partition)
            if len(self._whole) == len(interest.parts):
                self.interest = None
            self._reactor.call_soon(self._windows.hear_all, partition)


def _nothing() -> None:
    """The answer alone is wanted."""
