"""Turns a store's live stream into calls of a listener that misses nothing. Shared by the stores on the network; no own
I/O.

A live stream may break and be opened again; the messages of the pause are then read from the global backlog. Ids tell
how the two fit together. On one stream ids only grow: an id that does not means that the store was reset. But an id
that was already *delivered*, from the backlog, may come once more on the stream, which was opened before the backlog
was read. So the last id *seen* on the stream and the last id *delivered* are two numbers.

A store that returns may have gone back to an older copy of its data, where ids are given a second time. If they have
not yet passed the last delivered id, that shows. If they have, the messages that were delivered last are compared with
what the store holds in their places. Either way the store gets another epoch before the listener is told, so nobody's
old position is taken for one of the new epoch. A store that finds out by itself that it may have gone back has
another epoch already, and says how much of the old one it still has: where that is all, only the name is new.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from ..codecs import Codec
from ..message import Message, decode_stored
from .base import Listener, StoreState, Trace

logger = logging.getLogger("messagebus.stores")

EPOCH_CHANGED = b'-1|-1|/__epoch|{"data":null}'
"""Announced in place of a message when the epoch changes, so that busy feeds learn it at once, too. Other programs take
it for an old message."""
RECENT = 16
"""Number of messages to compare with the store: the last one of each of the last deliveries."""
SMALL = 4096
"""Bytes of a message that may be kept as it is until then."""
EPOCHS = 100
"""Number of former epochs to remember: an older copy of the data comes with an older epoch."""


class Unreadable(NamedTuple):
    """Takes the place of a message of another program that cannot be decoded: only its id counts."""

    global_id: int


Entry = Message | Unreadable


def decode_entry(stored: bytes, codec: Codec | None) -> Entry | None:
    """Decode a stored message; ``None`` if even its id is unreadable. What cannot be decoded is logged."""
    try:
        return decode_stored(stored, codec)
    except ValueError as error:
        if stored == EPOCH_CHANGED:  # no codec's
            return Unreadable(-1)
        logger.warning("skipped a message that cannot be decoded: %s", error)
    try:
        return Unreadable(int(stored.partition(b"|")[0]))
    except ValueError:
        return None


class Source(Protocol):
    """What the sequencer asks the store. Every method may raise; then the sequencer keeps its place, for the next
    ``resume``."""

    def named_state(self) -> StoreState:
        """The store's state; a store without an epoch gets one, so that listeners know it from the beginning."""

    def renew_epoch(self, epoch: str | None) -> StoreState:
        """See ``Store``."""

    def entries(self, after: int) -> Sequence[Entry]:
        """The global backlog after a global id, in order; without those that are gone."""

    def contradicts(self, traces: Sequence[Trace]) -> bool:
        """Whether the store holds another message in the place of one of these, or its ids are below theirs. A message
        that is gone from the store contradicts nothing."""


class Sequencer:
    """Gives the listener every message once and in order, or calls ``resync``. For one thread, the feed's.

    For each connection: ``prepare``, subscribe, ``resume``, then ``received`` with whatever comes."""

    def __init__(self, source: Source, listener: Listener, again: bool = False) -> None:
        """``again``: the listener has been told ``started`` already, and is told ``resync`` in its place."""
        self._source = source
        self._listener = listener
        self._started = False
        self._again = again
        self._delivered = 0
        self._seen = 0
        self._owed = 0
        self._epoch: str | None = None
        self._past: deque[str] = deque(maxlen=EPOCHS)
        self._recent: deque[Message | Trace] = deque(maxlen=RECENT)
        self._unsure = False
        """Whether the store may have gone back since the last delivery: it was not listened to."""

    def prepare(self) -> None:
        """Before subscribing: every id that the coming stream brings is greater than the store's last one now.

        Without this floor, the first message after a reset could not be told from one that the backlog already gave."""
        self._seen = self._source.named_state().global_id
        self._owed = 0
        self._unsure = True

    def check_alive(self) -> bool:
        """Called when the stream is silent. Delivers messages that the stream failed to deliver.

        Returns ``False`` if the stream has not brought what an earlier call had to fetch: it is open, but dead."""
        if self._owed > self._seen:
            return False
        before = self._delivered
        self.resume()
        self._owed = self._delivered if self._delivered > before else 0
        return True

    def is_in(self, epoch: str) -> bool:
        """Whether it follows this epoch, as far as it knows."""
        return self._epoch in (None, epoch)

    def check_epoch(self) -> None:
        """Called while messages come: checks whether the epoch has changed."""
        state = self._source.named_state()
        if self._has_all(state):
            self._rename(state)
        elif self._is_other_life(state):
            self._begin_life(state)

    def resume(self) -> None:
        """Called after subscribing: deliver what was missed since the last connection, or begin."""
        state = self._source.named_state()
        self._seen = min(self._seen, state.global_id)
        if not self._started:
            self._go_on_after(state)
            self._started = True
            (self._listener.resync if self._again else self._listener.started)(state)
        elif self._is_other_life(state) and not self._has_all(state):
            self._begin_life(state)
        elif state.global_id < self._delivered or (self._unsure and self._source.contradicts(self._traces())):
            self._begin_life(self._source.renew_epoch(state.epoch))
        else:
            if self._is_other_life(state):
                self._rename(state)
            self._epoch = state.epoch or self._epoch
            if state.global_id > self._delivered:
                self._recover(state.global_id)
        self._unsure = False

    def received(self, entries: Sequence[Entry]) -> None:
        """The next entries of the live stream."""
        run: list[Entry] = []  # to deliver, without a hole behind self._delivered
        for entry in entries:
            global_id = entry.global_id
            if global_id <= self._seen:
                self._deliver(run)
                run = []
                if global_id < 0:
                    self.resume()
                    continue
                self._went_back(global_id)
            self._seen = global_id
            following = self._delivered + len(run) + 1
            if global_id > following:
                self._deliver(run)
                run = []
                self._recover(global_id - 1)
                following = self._delivered + 1
            if global_id == following:
                run.append(entry)
        self._deliver(run)

    def _traces(self) -> list[Trace]:
        return [each if isinstance(each, Trace) else Trace.of(each) for each in self._recent]

    def _is_other_life(self, state: StoreState) -> bool:
        # A store that cannot be written to may have no epoch, and then there is none to compare.
        return state.epoch is not None and self._epoch is not None and state.epoch != self._epoch

    def _has_all(self, state: StoreState) -> bool:
        """Whether the store has another epoch, but nothing was lost of what was delivered."""
        return self._epoch is not None and self._delivered <= state.lineage.get(self._epoch, -1)

    def _rename(self, state: StoreState) -> None:
        if self._epoch is not None:
            self._past.append(self._epoch)
        self._epoch = state.epoch
        self._listener.renewed(state)

    def _begin_life(self, state: StoreState) -> None:
        """The store has another epoch."""
        if state.epoch in self._past:  # as it was in one that is over
            state = self._source.renew_epoch(state.epoch)
        self._resync(state)

    def _went_back(self, global_id: int) -> None:
        """Ids went back on the stream; this is the first message of the new epoch."""
        state = self._source.named_state()
        if not self._is_other_life(state) or state.epoch in self._past:
            state = self._source.renew_epoch(state.epoch)
        self._resync(state._replace(global_id=global_id - 1))

    def _recover(self, through: int) -> None:
        """Deliver what follows the last delivered id, up to ``through`` at least; or call ``resync``."""
        run: list[Entry] = []
        for entry in self._source.entries(self._delivered):
            if entry.global_id != self._delivered + len(run) + 1:
                break
            run.append(entry)
        if self._delivered + len(run) >= through:
            self._deliver(run)
            return
        state = self._source.named_state()
        # The messages that would have shown it are lost, too.
        if state.epoch in self._past or (
            not self._is_other_life(state) and self._source.contradicts([*self._listener.newest()])
        ):
            state = self._source.renew_epoch(state.epoch)
        # Never before what the stream has shown, even if the store is reset right now: the stream will show that, too.
        self._resync(state._replace(global_id=max(state.global_id, through)))

    def _deliver(self, run: Sequence[Entry]) -> None:
        if not run:
            return
        # First, so that a listener that raises does not get the same messages again and again.
        self._delivered = run[-1].global_id
        messages = [entry for entry in run if isinstance(entry, Message)]
        if messages:
            newest = messages[-1]
            # Its trace is made when it is asked for: a feed brings thousands for each time that it reconnects.
            self._recent.append(newest if len(newest.raw) <= SMALL else Trace.of(newest))
            self._listener.received(messages)

    def _resync(self, state: StoreState) -> None:
        self._go_on_after(state)
        self._listener.resync(state)

    def _go_on_after(self, state: StoreState) -> None:
        # This process delivers none of these, but clients that come here from now on have seen them.
        entries = self._source.entries(max(state.global_id - RECENT, 0))
        if self._epoch not in (None, state.epoch):
            self._past.append(self._epoch)
        self._recent.clear()
        self._recent.extend(Trace.of(entry) for entry in entries if isinstance(entry, Message))
        self._delivered = state.global_id
        self._epoch = state.epoch


class Gate(Listener):
    """Wraps a listener, and can be shut for good: no call begins after ``shut`` has returned."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        # Reentrant: a listener may close its own feed.
        self._lock = threading.RLock()
        self.is_shut = False

    def shut(self) -> None:
        with self._lock:
            self.is_shut = True

    def shut_after_fork(self) -> None:
        """Like ``shut``, in a child process, where a thread that no longer exists may have left the lock taken."""
        self._lock = threading.RLock()
        self.is_shut = True

    def started(self, state: StoreState) -> None:
        self._call(self._listener.started, state)

    def received(self, messages: Sequence[Message]) -> None:
        self._call(self._listener.received, messages)

    def resync(self, state: StoreState) -> None:
        self._call(self._listener.resync, state)

    def renewed(self, state: StoreState) -> None:
        self._call(self._listener.renewed, state)

    def healthy(self, healthy: bool, partition: int = 0) -> None:
        self._call(self._listener.healthy, healthy, partition)

    def announced(self, texts: Sequence[str]) -> None:
        self._call(self._listener.announced, texts)

    def caught_up(self, global_id: int, wanted: Sequence[tuple[str, object]]) -> None:
        self._call(self._listener.caught_up, global_id, wanted)

    def newest(self) -> Sequence[Trace]:
        return self._listener.newest()

    def _call(self, method: Callable[..., None], *arguments: object) -> None:
        with self._lock:
            if not self.is_shut:
                method(*arguments)
