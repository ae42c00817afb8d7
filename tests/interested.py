"""A listener that wants some names only, and writes down what it hears."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from messagebus.stores import Feed, Interest, Store
from tests.eventually import eventually
from tests.recorder import Recorder


class Interested(Recorder):
    def __init__(self, store: Store, *names: str) -> None:
        super().__init__()
        self.wanted: dict[str, object] = {name: object() for name in names}
        self.heard: set[object] = set()
        """For what the feed said that it brings a name."""
        self.reached = 0
        self.interest = Interest(self.wanted.get, lambda: list(self.wanted), store.partitions)
        self._is_selective = store.by_channel
        self.feed: Feed = store.listen(self, self.interest)
        eventually(lambda: len(self.told("started")) == store.partitions and self._hears_all(names))

    def caught_up(self, global_id: int, wanted: Sequence[tuple[str, object]]) -> None:
        self.reached = global_id
        self.heard |= {why for _, why in wanted}

    def want(self, *names: str) -> None:
        """From the return on their messages come."""
        for name in names:
            self.wanted[name] = object()
            self.interest.changed(name)
        eventually(lambda: self._hears_all(names))

    def let_go(self, name: str) -> None:
        self.wanted.pop(name)
        self.interest.changed(name)
        self.catch_up()

    def catch_up(self) -> None:
        """Wait for all that was published before."""
        for partition, part in enumerate(self.interest.parts):
            if self._is_selective and not part.everything:
                done = threading.Event()
                self.interest.ask(done.set, partition)
                assert done.wait(10)

    def _hears_all(self, names: Sequence[str]) -> bool:
        if not self._is_selective or self.interest.everything:
            return True
        return all(self.wanted[name] in self.heard for name in names)

    def of(self, name: str) -> list[object]:
        return [message.data for message in self.messages if message.name == name]
