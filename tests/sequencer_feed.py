"""A sequencer's store in a list, and a feed of it whose stream a test drives."""

from __future__ import annotations

from collections.abc import Sequence

from messagebus.errors import BackendUnavailable
from messagebus.message import Message
from messagebus.stores import StoreState, Trace
from messagebus.stores.sequencer import Entry, Sequencer

from .recorder import Recorder


class Store:
    """A store in a list. ``live`` holds what the current connection's stream has not brought yet."""

    def __init__(self) -> None:
        self.life = 1
        self.global_id = 0
        self.kept: list[Entry] = []
        self.live: list[Entry] = []
        self.available = True
        self.epochs = True
        self.epoch = "epoch 1"
        self.lineage: dict[str, int] = {}
        self.renewed: list[str | None] = []
        """The epochs that somebody wanted to be over."""

    def named_state(self) -> StoreState:
        if not self.available:
            raise BackendUnavailable("gone")
        return StoreState(self.global_id, self.epoch if self.epochs else None, self.lineage)

    def renew_epoch(self, epoch: str | None) -> StoreState:
        if not self.available:
            raise BackendUnavailable("gone")
        self.renewed.append(epoch)
        if epoch == self.epoch:
            self.epoch = f"renewed {len(self.renewed)}"
        return self.named_state()

    def contradicts(self, traces: Sequence[Trace]) -> bool:
        if not self.available:
            raise BackendUnavailable("gone")
        places = {(trace.name, trace.message_id): trace for trace in traces}
        by_id = {trace.global_id: trace for trace in traces}
        return any(
            found not in (None, Trace.of(entry))
            for entry in self.kept
            if isinstance(entry, Message)
            for found in (places.get((entry.name, entry.message_id)), by_id.get(entry.global_id))
        )

    def entries(self, after: int) -> Sequence[Entry]:
        if not self.available:
            raise BackendUnavailable("gone")
        return [entry for entry in self.kept if entry.global_id > after]

    def publish(self, count: int = 1) -> None:
        for _ in range(count):
            self.global_id += 1
            new = Message(self.global_id, self.global_id, "/a", b"%d" % self.life)
            self.kept.append(new)
            self.live.append(new)

    def reset(self) -> None:
        self.life += 1
        self.global_id = 0
        self.kept = []
        self.epoch = f"epoch {self.life}"

    def go_back(self, count: int) -> None:
        """An older copy of the data takes its place, without the last ``count`` messages."""
        self.life += 1
        self.global_id -= count
        self.kept = [entry for entry in self.kept if entry.global_id <= self.global_id]


class Feed:
    def __init__(self, store: Store) -> None:
        self.store = store
        self.recorder = Recorder()
        self.sequencer = Sequencer(store, self.recorder)

    def connect(self, between: int = 0) -> None:
        """``between``: messages published after subscribing, before the store's state is read."""
        self.sequencer.prepare()
        self.store.live = []
        self.store.publish(between)
        self.sequencer.resume()

    def read(self, count: int | None = None) -> None:
        entries = self.store.live[:count]
        del self.store.live[:count]
        self.sequencer.received(entries)
