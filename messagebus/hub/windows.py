"""The windows of all channels that somebody in this process asks for, and pages of their backlogs further back.

Both together are bounded in bytes. Catching up without a gap or a duplicate rests on one rule: a channel is entered
here *before* its backlog is read from the store. From then on the window has what is dispatched, the store had what
came before, and ``reached``, the last global id that was dispatched of the channel's partition, says where the two
meet: what was read beyond it is left to the live feed.
"""

from __future__ import annotations

import threading
from _thread import allocate_lock
from collections.abc import Callable, Iterable

import msgspec

from ..message import Message, memory_of
from ..names import is_presence
from ..options import Options
from ..stores.partitions import partition_of
from .epochs import Epochs
from .history import Cursor, HistoryView, covers, dispatched, is_sure, trimmed
from .patterns import Pattern
from .window import ChannelWindow

LINGER_SECONDS = 60.0
"""Seconds that a channel without followers keeps its window, for clients that come back."""
MAX_IDLE_CHANNELS = 10_000


class Windows:
    """See the module. In the reactor's loop only, unless a method says otherwise."""

    def __init__(self, options: Options, clock: Callable[[], float], partitions: int = 1) -> None:
        """``partitions``: of the store."""
        self._clock = clock
        self._options = options
        self._by_name: dict[str, ChannelWindow] = {}
        self.find = self._by_name.get
        """The window of a channel, if it has one. From any thread; the table's own method, for the dispatcher calls it
        for every message of the store."""
        self._unheard: dict[str, ChannelWindow] = {}
        """Those of channels that the feed does not bring yet. The dispatcher does not find them."""
        self._changed: list[Callable[[str], object] | None] = [None] * partitions
        self.patterns: dict[str, Pattern] = {}
        """Those of the windows that are patterns', by their names."""
        self._pages: dict[tuple[str, int], HistoryView] = {}  # by channel and floor, the newest last
        self._floors: dict[str, tuple[int, ...]] = {}
        self._lock = allocate_lock()  # native: never held across anything that could switch greenlets
        self.partitions = partitions
        self.reached = list(range(partitions))
        """The last dispatched global id of each partition. The dispatcher sets it before it looks for the channel."""
        self.epochs = Epochs(partitions)
        self.size = 0
        """Bytes of all windows; the dispatcher adds to it."""
        self._pages_size = 0
        self.share = options.window_bytes
        """Maximum bytes of one window."""

    # --- from any thread ---

    def partition_of(self, name: str) -> int:
        return partition_of(name, self.partitions)

    def partitions_of(self, names: Iterable[str]) -> set[int]:
        """Those that have a channel among these names. (Who is where has none.)"""
        if self.partitions == 1:
            return {0}
        return {partition_of(name, self.partitions) for name in names if not is_presence(name)}

    def epoch_for(self, names: Iterable[str]) -> str | None:
        """What a client with these channels is told of the store's epochs."""
        return self.epochs[0] if self.partitions == 1 else self.epochs.text(self.partitions_of(names))

    def is_of_now(self, epoch: str | None, names: Iterable[str]) -> bool:
        """Whether what was read of these channels in an epoch (``None``: there was none yet) is of their partitions'
        present lives. The epoch may name partitions of other channels too."""
        if self.partitions == 1:
            return epoch in (None, self.epochs[0])
        named = self.epochs.named(epoch)
        return not any(named.is_over(each) for each in self.partitions_of(names))

    def reached_for(self, names: Iterable[str]) -> int:
        """A global id up to which everything was dispatched, in a partition of one of these channels."""
        return self.reached[0 if self.partitions == 1 else min(self.partitions_of(names), default=0)]

    def hear_only(self, changed: Callable[[str], object]) -> None:
        """The feed brings only channels that have a window. ``changed``: called, from any thread, when a channel has
        got one or has lost it."""
        self._changed = [changed] * self.partitions

    def enter(self, name: str) -> ChannelWindow:
        """The channel's window; from now on it remembers what is dispatched. (Where the feed has to be told first, it
        does not do so before ``window.heard`` is set.)"""
        window = self.find(name)
        if window is None:
            window = self._begin(name)
        window.touched = self._clock()
        return window

    def _begin(self, name: str) -> ChannelWindow:
        with self._lock:
            window = self.find(name) or self._unheard.get(name)
            if window is not None:
                return window
            partition = self.partition_of(name)
            window, changed = ChannelWindow(name, self._clock(), partition), self._changed[partition]
            if changed is None:
                self._by_name[name] = window
                # After it can be found: every message that is dispatched from now on has a greater global id, and
                # finds it. The other way round, one that came in between would be claimed and never seen.
                window.entered = self.reached[partition]
                pattern = Pattern.of(name)
                if pattern is not None:
                    self.patterns[name] = pattern
            else:
                window.heard = threading.Event()
                self._unheard[name] = window
        if changed is not None:
            changed(name)
        return window

    def find_any(self, name: str) -> ChannelWindow | None:
        """The window of a channel, whether the feed brings its messages or not yet."""
        return self.find(name) or self._unheard.get(name)

    def names(self) -> list[str]:
        """The channels that have a window, heard or not."""
        with self._lock:
            return [*self._by_name, *self._unheard]

    def covering(self, want: Cursor) -> HistoryView | None:
        """What suffices to tell where ``want`` begins, the window or a page; ``None`` where this process has neither.
        (It may be out of date, see :meth:`knows`.)"""
        window = self.find(want.name)
        state = window.state if window is not None else None
        if state is not None and covers(state, want):
            return state
        for floor in self._floors.get(want.name, ()):
            page = self._pages.get((want.name, floor))
            if page is None:
                continue
            if state is not None:
                if want.position < 0 and want.after is None and page.through < state.floor:
                    continue  # of the last messages some would be missing
                last_id = max(page.last_id, state.last_id)
                page = msgspec.structs.replace(page, last_id=last_id, forgotten=state.forgotten)
            if covers(page, want):
                return page
        return None

    def newest(self) -> list[Message]:
        """The newest message of each channel that has one."""
        states = [window.state for window in list(self._by_name.values()) if window.name not in self.patterns]
        return [state.log[state.end - 1] for state in states if state is not None and state.end]

    def knows(self, want: Cursor) -> bool:
        """Whether what is due to ``want`` can be told without the store, and has certainly not expired there."""
        view = self.covering(want)
        return view is not None and is_sure(view, self._clock())

    def holding(self, name: str, position: int) -> HistoryView | None:
        """What has the messages after a position, or says that there are none: the window where it reaches back so far,
        a page otherwise. It may begin later where nothing older is kept."""
        window = self.find(name)
        state = window.state if window is not None else None
        if state is not None and (state.floor <= position or state.whole):
            return state
        for floor in self._floors.get(name, ()):
            page = self._pages.get((name, floor))
            if page is not None and (floor <= position or page.whole) and position < page.through:
                return page
        return None

    def patterns_of(self, name: str) -> list[str]:
        """The patterns that somebody asked for, by their names, of those that match a channel."""
        return [other for other, pattern in list(self.patterns.items()) if pattern.has(name)]

    # --- in the loop ---

    def hear(self, windows: Iterable[ChannelWindow], global_id: int, read_from: float) -> None:
        """From now on the feed brings the messages of these channels: all above a global id. ``read_from``: what was
        read before that moment may lack what the feed has not brought."""
        events = []
        with self._lock:
            for window in windows:
                event = window.heard
                if event is None or self._unheard.get(window.name) is not window:
                    continue  # it is heard already, or nobody's any more
                window.created, window.entered = read_from, global_id
                window.heard = None
                del self._unheard[window.name]
                self._by_name[window.name] = window
                events.append(event)
        for event in events:
            event.set()

    def hear_all(self, partition: int = 0) -> None:
        """The feed has come to bring all channels of a partition; what is known of it is outdated in any case."""
        self._changed[partition] = None
        self.forget_all(partition)

    def _let_go(self, windows: Iterable[ChannelWindow]) -> None:
        """Windows that are nobody's any more: who waits for one of them begins anew."""
        for window in windows:
            if window.heard is not None:
                window.heard.set()
            changed = self._changed[window.partition]
            if changed is not None:
                changed(window.name)

    def absorb(self, name: str, page: HistoryView) -> HistoryView | None:
        """Take in what was read of a channel, for everybody who asks for it next. Returns what of it has been
        dispatched; ``None`` where it is of no use, as it was read before the window was begun."""
        window = self.find(name)
        if window is None or page.read_at < window.created:
            return None
        before = window.size
        page = dispatched(page, self.reached[window.partition])
        if self._merge(window, page):
            # Pages that were read before may touch the window now, the newest first.
            for floor in self._floors.get(name, ())[::-1]:
                if not self._merge(window, self._pages[name, floor]):
                    break
                self._drop(name, floor)
        else:
            self._keep(name, page)
        self.size += window.size - before
        self._make_room()
        return page

    def _merge(self, window: ChannelWindow, page: HistoryView) -> bool:
        """Take a page into the window. ``False`` where not all of it has room there, or there would be a hole."""
        state = window.state
        older = page.end if state is None else page.index_after(state.floor)
        count = self._options.window_size - (0 if state is None else state.end)
        size = self.share - window.size
        fitting = 0
        while fitting < min(older, count) and (size := size - memory_of((page.log[older - fitting - 1],))) >= 0:
            fitting += 1
        drop = older - fitting
        # What the page says of the channel's oldest message, and of its age, is good for the window in any case.
        return window.merge(trimmed(page, drop) if drop else page) and not drop

    def forget_all(self, partition: int = 0) -> None:
        """Forget everything of a partition: it no longer fits the store."""
        with self._lock:
            gone = [each for each in [*self._by_name.values(), *self._unheard.values()] if each.partition == partition]
            for window in gone:
                (self._by_name if window.heard is None else self._unheard).pop(window.name, None)
                self.patterns.pop(window.name, None)
        self._let_go(gone)
        for name, floor in [key for key in self._pages if self.partition_of(key[0]) == partition]:
            self._drop(name, floor)
        self.size = sum([window.size for window in list(self._by_name.values())])

    def forget(self, name: str) -> None:
        """Forget what a channel had: the store has forgotten it."""
        with self._lock:
            window = self._by_name.get(name)
            if window is not None:
                # In its place, and not entered later: the feed goes on to bring the channel.
                instead = self._by_name[name] = ChannelWindow(name, self._clock(), window.partition)
                instead.entered = self.reached[window.partition]
                instead.passed = window.last_id
        for floor in self._floors.get(name, ()):
            self._drop(name, floor)
        if window is not None:
            self.size -= window.size

    def sweep(self, is_followed: Callable[[str], bool]) -> None:
        """Drop windows that nobody has asked for in a while, and trim the others."""
        now = self._clock()
        with self._lock:
            idle = sorted(
                (
                    window
                    for window in [*self._by_name.values(), *self._unheard.values()]
                    if not is_followed(window.name)
                ),
                key=lambda window: window.touched,
            )
            gone = []
            for number, window in enumerate(idle):
                if window.touched < now - LINGER_SECONDS or number < len(idle) - MAX_IDLE_CHANNELS:
                    del (self._by_name if window.heard is None else self._unheard)[window.name]
                    self.patterns.pop(window.name, None)
                    gone.append(window)
            for name in self.patterns:
                self._by_name[name].age()
        self._let_go(gone)
        # Not of all channels: whoever asks for many that are empty must not make the others forget.
        windows = [window for window in list(self._by_name.values()) if window.size]
        self.share = self._options.window_bytes // max(1, len(windows))
        for window in windows:
            window.trim(self._options.window_size, self.share)
        self.size = sum([window.size for window in windows])
        for name, floor in [key for key, page in self._pages.items() if page.until < now]:
            self._drop(name, floor)
        self._make_room()

    def _keep(self, name: str, page: HistoryView) -> None:
        if (name, page.floor) in self._pages:
            self._drop(name, page.floor)
        page = self._pages[name, page.floor] = msgspec.structs.replace(page, kept=True)
        self._floors[name] = tuple(sorted((*self._floors.get(name, ()), page.floor)))
        self._pages_size += _size(page)

    def _make_room(self) -> None:
        # The newest page stays in any case: somebody has just asked for it.
        while len(self._pages) > 1 and self.size + self._pages_size > self._options.window_bytes:
            self._drop(*next(iter(self._pages)))

    def _drop(self, name: str, floor: int) -> None:
        self._pages_size -= _size(self._pages.pop((name, floor)))
        floors = tuple(other for other in self._floors[name] if other != floor)
        if floors:
            self._floors[name] = floors
        else:
            del self._floors[name]


def _size(page: HistoryView) -> int:
    return memory_of(page.log)
