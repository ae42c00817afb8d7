"""Turns a live stream of only some channels into calls of a listener that misses nothing of them. No own I/O.

Global ids have holes here: the messages of channels that nobody follows. But message ids have none, so each channel
has its own last id. And the stream is in the order of publishing over all its channels, so global ids grow on it. A
*snapshot*, the store's last ids as they were at one place in the stream, tells whether something is missing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from operator import attrgetter
from typing import NamedTuple, Protocol

from ..message import Message
from .base import BacklogPage, Listener, StoreState, Trace
from .sequencer import EPOCHS, RECENT, SMALL


class Snapshot(NamedTuple):
    """The store at one place of the stream: the messages before it are those that the ids count."""

    global_id: int
    epoch: str | None
    last_ids: Mapping[bytes, int | None]
    """Of channels: the last message id. ``None``: the store has no count of them, as the channel is new or was
    forgotten."""


class Item(NamedTuple):
    """What the stream brings of a channel."""

    channel: bytes
    global_id: int
    """-1: not a message; the store's epoch may have changed."""
    message_id: int
    message: Message | None
    """``None``: it cannot be decoded, and only its ids count."""


class ChannelSource(Protocol):
    """What the sequencer asks the store. Every method may raise; then the stream has to begin again."""

    def named_state(self) -> StoreState: ...

    def renew_epoch(self, epoch: str | None) -> StoreState: ...

    def contradicts(self, traces: Sequence[Trace]) -> bool: ...

    def pages(self, after: Mapping[bytes, int]) -> Mapping[bytes, BacklogPage]:
        """The backlogs of channels after a message id, each as far as it goes."""


class ChannelSequencer:
    """See the module. For one thread, the feed's.

    For each connection: subscribe to all that is followed, ``resume`` with a snapshot that was taken behind that, then
    ``received`` and ``checked`` in the order of the stream."""

    def __init__(self, source: ChannelSource, listener: Listener) -> None:
        self._source = source
        self._listener = listener
        self._started = False
        self._last: dict[bytes, int | None] = {}
        """The last message id of each channel that is followed. ``None``: not known; 0: none, or none that counts."""
        self._alone: set[bytes] = set()
        """Those of the channels that may have all the messages of the store: their message ids are global ids."""
        self._left_out = False
        self._reached = 0
        """Everything up to this global id has been delivered, of what is followed."""
        self._epoch: str | None = None
        self._past: deque[str] = deque(maxlen=EPOCHS)
        self._recent: deque[Message | Trace] = deque(maxlen=RECENT)

    @property
    def reached(self) -> int:
        return self._reached

    def resume(self, snapshot: Snapshot) -> None:
        """The stream has begun: deliver what was missed since the last one. The snapshot has all that is followed."""
        last, now = self._last, snapshot.last_ids
        if not self._started:
            self._go_on(now)
            self._note_alone(snapshot)
            self._started = True
            state = self._source.named_state()
            self._epoch = snapshot.epoch or state.epoch
            self._reached = snapshot.global_id
            self._listener.started(state._replace(global_id=snapshot.global_id, epoch=self._epoch))
            return
        self._last = {channel: last[channel] for channel in now if channel in last}
        unknown = [channel for channel, known in self._last.items() if known is None]
        if self._is_other_life(snapshot.epoch) and not self._is_renamed():
            self._begin_life(snapshot)
        elif snapshot.global_id < self._reached or self._source.contradicts(self._traces()):
            self._renew(snapshot)
        elif unknown:
            self._lost(snapshot)
        else:
            self._compare(snapshot)

    def checked(self, snapshot: Snapshot) -> bool:
        """A snapshot that was taken within the stream. From here on its channels are followed. Returns whether the
        stream had left something out."""
        if self._is_other_life(snapshot.epoch) and not self._is_renamed():
            self._begin_life(snapshot)
        elif snapshot.global_id < self._reached:
            self._renew(snapshot)
        else:
            return self._compare(snapshot)
        return False

    def looked(self, snapshot: Snapshot) -> bool:
        """The same, for the snapshots that are taken every few seconds. Returns whether the stream had left something
        out twice in a row: what was only late is there the second time."""
        before, self._left_out = self._left_out, self.checked(snapshot)
        return before and self._left_out

    def give_up(self) -> bool:
        """Another sequencer goes on in the place of this one. Where the store has gone back, it is given another epoch
        now: later nobody could see that. Returns whether the listener has been told ``started``."""
        if self._started and self._source.contradicts([*self._traces(), *self._listener.newest()]):
            self._source.renew_epoch(self._epoch)
        return self._started

    def unfollow(self, channels: Iterable[bytes]) -> None:
        """Drop what comes of these channels."""
        for channel in channels:
            self._last.pop(channel, None)
            self._alone.discard(channel)

    def last_id(self, channel: bytes) -> int | None:
        """The last message id of a channel, as far as it is followed and known."""
        return self._last.get(channel)

    def forgotten(self, channels: Iterable[bytes]) -> None:
        """The store has forgotten these channels: they go on at another message id."""
        self._last.update((channel, 0) for channel in channels if channel in self._last)

    def is_in(self, epoch: str) -> bool:
        """Whether it follows this epoch, as far as it knows."""
        return self._epoch in (None, epoch)

    def received(self, items: Sequence[Item]) -> None:
        """The next items of the stream."""
        run: list[Message] = []
        last, reached = self._last, self._reached
        for item in items:
            channel, global_id, message_id, message = item
            if global_id <= reached:
                self._deliver(run)
                run = []
                if global_id < 0:
                    self.check_epoch()
                    last, reached = self._last, self._reached
                    continue
                self._went_back(global_id)
                last = self._last
            self._reached = reached = global_id
            if channel not in last:
                continue  # it is not followed yet, or no longer
            known = last[channel]
            if known and message_id <= known:
                self._deliver(run)
                run = []
                self._went_back(global_id)
                last, self._reached = self._last, global_id
            elif known and message_id > known + 1:
                self._deliver(run)
                run = []
                self._recover(channel, known, message_id, global_id)
                last, self._reached = self._last, global_id
            last[channel] = message_id
            if message is not None:
                run.append(message)
        self._deliver(run)

    # --- what a snapshot shows ---

    def _compare(self, snapshot: Snapshot) -> bool:
        """Deliver what a snapshot has and the stream has not brought. Returns whether there was anything."""
        found: list[Message] = []
        self._epoch = snapshot.epoch or self._epoch
        self._note_alone(snapshot)
        last = self._last
        behind: dict[bytes, int] = {}
        for channel, last_id in snapshot.last_ids.items():
            known = last.get(channel)
            if known is None:
                last[channel] = last_id or 0
            elif last_id != known and (last_id is not None or known):
                behind[channel] = known
        if behind:
            for channel, page in self._source.pages(behind).items():
                known, last_id = behind[channel], snapshot.last_ids[channel]
                if page.last_id < known:
                    if last_id is None and not page.messages:
                        last[channel] = 0  # forgotten: its next id is higher
                        continue
                    self._renew(snapshot)
                    return False
                if page.last_id > known and page.first_id > known + 1:
                    self._lost(snapshot)
                    return False
                found += [message for message in page.messages if message.global_id <= snapshot.global_id]
                last[channel] = last_id if last_id is not None else known
            self._deliver(sorted(found, key=attrgetter("global_id")))
        self._reached = snapshot.global_id
        return bool(found)

    def _recover(self, channel: bytes, known: int, message_id: int, global_id: int) -> None:
        """The stream has left out messages of a channel before this one: read them."""
        page = self._source.pages({channel: known})[channel]
        if page.first_id <= known + 1:
            self._deliver([message for message in page.messages if message.message_id < message_id])
            return
        if message_id == global_id and page.first_id >= message_id and channel not in self._alone:
            return  # the store had forgotten the channel, and so it went on at the global id
        self._resync_after_loss(self._source.named_state()._replace(global_id=global_id - 1))
        self._go_on({})

    def _lost(self, snapshot: Snapshot) -> None:
        self._resync_after_loss(self._source.named_state()._replace(global_id=snapshot.global_id))
        self._go_on(snapshot.last_ids)

    def _resync_after_loss(self, state: StoreState) -> None:
        # The messages that would have shown that the store went back are lost, too.
        if not self._is_other_life(state.epoch) and self._source.contradicts([*self._listener.newest()]):
            state = self._source.renew_epoch(state.epoch)._replace(global_id=state.global_id)
        self._resync(state)

    # --- lives of the store ---

    def _is_other_life(self, epoch: str | None) -> bool:
        return epoch is not None and self._epoch is not None and epoch != self._epoch

    def _is_renamed(self) -> bool:
        """Whether the store's other epoch has all that was delivered. Then only its name is new."""
        state = self._source.named_state()
        if self._epoch is None or self._reached > state.lineage.get(self._epoch, -1):
            return False
        self._past.append(self._epoch)
        self._epoch = state.epoch
        self._listener.renewed(state)
        return True

    def _begin_life(self, snapshot: Snapshot) -> None:
        """The store has another epoch."""
        if snapshot.epoch in self._past:  # as it was in one that is over
            self._renew(snapshot)
            return
        self._resync(self._source.named_state()._replace(global_id=snapshot.global_id, epoch=snapshot.epoch))
        self._go_on(snapshot.last_ids)

    def _renew(self, snapshot: Snapshot) -> None:
        """The store has gone back."""
        self._resync(self._source.renew_epoch(snapshot.epoch)._replace(global_id=snapshot.global_id))
        self._go_on(snapshot.last_ids)

    def check_epoch(self) -> None:
        """The stream says that the epoch may have changed."""
        state = self._source.named_state()
        if not self._is_other_life(state.epoch) or self._is_renamed():
            return
        if state.epoch in self._past:
            state = self._source.renew_epoch(state.epoch)
        # If ids begin again, all that come are of the new life, however far the store is by now.
        global_id = self._reached if state.global_id >= self._reached else 0
        self._resync(state._replace(global_id=global_id))
        self._go_on({})

    def _went_back(self, global_id: int) -> None:
        """Ids went back on the stream; this is the first message of the new epoch."""
        state = self._source.named_state()
        if not self._is_other_life(state.epoch) or state.epoch in self._past:
            state = self._source.renew_epoch(state.epoch)
        self._resync(state._replace(global_id=global_id - 1))
        self._go_on({})

    def _resync(self, state: StoreState) -> None:
        if self._epoch not in (None, state.epoch):
            self._past.append(self._epoch)
        self._epoch = state.epoch
        self._reached = state.global_id
        self._recent.clear()
        self._listener.resync(state)

    def _go_on(self, last_ids: Mapping[bytes, int | None]) -> None:
        # A snapshot within the stream has only some of the channels.
        last = dict.fromkeys(self._last)
        last.update({channel: last_id or 0 for channel, last_id in last_ids.items()})
        self._last = last
        self._alone = set(last)

    def _note_alone(self, snapshot: Snapshot) -> None:
        for channel, last_id in snapshot.last_ids.items():
            if (last_id or 0) == snapshot.global_id:
                self._alone.add(channel)
            else:
                self._alone.discard(channel)

    def _traces(self) -> list[Trace]:
        return [each if isinstance(each, Trace) else Trace.of(each) for each in self._recent]

    def _deliver(self, run: Sequence[Message]) -> None:
        if not run:
            return
        newest = run[-1]
        self._recent.append(newest if len(newest.raw) <= SMALL else Trace.of(newest))
        self._listener.received(run)
