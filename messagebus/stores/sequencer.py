"""From a store's live messages to a listener that misses nothing. Shared by the stores on the network; no own I/O.

A store's live stream may break off and start anew, and the messages of the pause are then read from the global backlog.
Ids tell how the two fit together. On one live stream they only grow: one that does not means that the store was reset.
But an id that was already *delivered*, from the backlog, may well come once more on the stream, which was opened before
the backlog was read. So the last id *seen* on the stream and the last id *delivered* are two numbers.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from ..codecs import Codec
from ..message import Message, decode_stored
from .base import Listener, StoreState

logger = logging.getLogger("messagebus.stores")


class Unreadable(NamedTuple):
    """In place of a message that another program wrote and nobody here can decode: its id is used, that is all."""

    global_id: int


Entry = Message | Unreadable


def decode_entry(stored: bytes, codec: Codec | None) -> Entry | None:
    """A stored message; ``None`` where it cannot be told which one it is. What cannot be decoded is logged."""
    try:
        return decode_stored(stored, codec)
    except ValueError as error:
        logger.warning("left out a message that cannot be decoded: %s", error)
    try:
        return Unreadable(int(stored.partition(b"|")[0]))
    except ValueError:
        return None


class Source(Protocol):
    """What the sequencer asks the store. Both may raise; the sequencer stays where it was, for a next ``catch_up``."""

    def named_state(self) -> StoreState:
        """The store's state; a store without an epoch is given one, so that listeners know it from the beginning."""

    def entries(self, after: int) -> Sequence[Entry]:
        """The global backlog after a global id, in order; without those that are gone."""


class Sequencer:
    """Calls the listener with every message once, in order, or says ``lost``. For one thread, the feed's.

    For each connection: ``prepare``, subscribe, ``catch_up``, then ``received`` with whatever comes."""

    def __init__(self, source: Source, listener: Listener) -> None:
        self._source = source
        self._listener = listener
        self._started = False
        self._delivered = 0
        self._seen = 0
        self._owed = 0
        self._epoch: str | None = None

    def prepare(self) -> None:
        """Before subscribing: every id that the coming stream brings is greater than the store's last one now.

        Without this floor, the first message after a reset could not be told from one that the backlog already gave."""
        self._seen = self._source.named_state().global_id
        self._owed = 0

    def hears(self) -> bool:
        """While nothing comes: whether that is because nothing was published. Delivers what the stream has kept back.

        ``False`` where the stream has not brought what an earlier call had to fetch: it is open, and dead."""
        if self._owed > self._seen:
            return False
        before = self._delivered
        self.catch_up()
        self._owed = self._delivered if self._delivered > before else 0
        return True

    def catch_up(self) -> None:
        """After subscribing: deliver what was missed since the last connection, or begin."""
        state = self._source.named_state()
        self._seen = min(self._seen, state.global_id)
        if not self._started:
            self._started = True
            self._go_on_after(state)
            self._listener.started(state)
        elif self._was_reset(state):
            self._go_on_after(state)
            self._listener.lost(state)
        else:
            self._epoch = state.epoch or self._epoch
            if state.global_id > self._delivered:
                self._recover(state.global_id)

    def received(self, entries: Sequence[Entry]) -> None:
        """The next entries of the live stream."""
        run: list[Entry] = []  # to deliver, without a hole behind self._delivered
        for entry in entries:
            global_id = entry.global_id
            if global_id <= self._seen:
                self._deliver(run)
                run = []
                self._begin_anew(global_id)
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

    def _was_reset(self, state: StoreState) -> bool:
        return state.global_id < self._delivered or (
            # A store that cannot be written to may have none, and then there is none to compare.
            state.epoch is not None and self._epoch is not None and state.epoch != self._epoch
        )

    def _begin_anew(self, global_id: int) -> None:
        """The store was reset, and this is the first message of its new life that came."""
        state = StoreState(global_id - 1, self._source.named_state().epoch)
        self._go_on_after(state)
        self._listener.lost(state)

    def _recover(self, through: int) -> None:
        """Deliver what came after the last delivered id, up to ``through`` at least; or say that it is lost."""
        run: list[Entry] = []
        for entry in self._source.entries(self._delivered):
            if entry.global_id != self._delivered + len(run) + 1:
                break
            run.append(entry)
        if self._delivered + len(run) >= through:
            self._deliver(run)
            return
        state = self._source.named_state()
        # Never before what the stream has shown, even if the store is reset right now: the stream will show that, too.
        state = StoreState(max(state.global_id, through), state.epoch)
        self._go_on_after(state)
        self._listener.lost(state)

    def _deliver(self, run: Sequence[Entry]) -> None:
        if not run:
            return
        # First, so that a listener that raises is not given the same again and again.
        self._delivered = run[-1].global_id
        messages = [entry for entry in run if isinstance(entry, Message)]
        if messages:
            self._listener.received(messages)

    def _go_on_after(self, state: StoreState) -> None:
        self._delivered = state.global_id
        self._epoch = state.epoch


class Gate:
    """A listener in front of another, which can be shut for good: no call begins after ``shut`` has returned."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        # Reentrant: a listener may close its own feed.
        self._lock = threading.RLock()
        self.is_shut = False

    def shut(self) -> None:
        with self._lock:
            self.is_shut = True

    def shut_after_fork(self) -> None:
        """As ``shut``, in a child process, where a thread that exists no more may have left the lock taken."""
        self._lock = threading.RLock()
        self.is_shut = True

    def started(self, state: StoreState) -> None:
        self._call(self._listener.started, state)

    def received(self, messages: Sequence[Message]) -> None:
        self._call(self._listener.received, messages)

    def lost(self, state: StoreState) -> None:
        self._call(self._listener.lost, state)

    def healthy(self, healthy: bool) -> None:
        self._call(self._listener.healthy, healthy)

    def _call(self, method: Callable[..., None], argument: object) -> None:
        with self._lock:
            if not self.is_shut:
                method(argument)
