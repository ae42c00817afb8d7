"""A listener that writes down what it hears."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from messagebus.message import Message
from messagebus.stores import Listener, StoreState, Trace


class Recorder(Listener):
    """Everything a feed told, in order: ``("started", state)``, ``("message", message)``, ``("resync", state)``,
    ``("renewed", state)``, ``("healthy", bool)``."""

    def __init__(self) -> None:
        self.events: list[tuple[str, object]] = []
        self.threads: set[threading.Thread] = set()
        self.known: list[Trace] = []

    def _note(self, kind: str, value: object) -> None:
        self.threads.add(threading.current_thread())
        self.events.append((kind, value))

    def started(self, state: StoreState) -> None:
        self._note("started", state)

    def received(self, messages: Sequence[Message]) -> None:
        assert messages
        for message in messages:
            self._note("message", message)

    def resync(self, state: StoreState) -> None:
        self._note("resync", state)

    def renewed(self, state: StoreState) -> None:
        self._note("renewed", state)

    def healthy(self, healthy: bool, partition: int = 0) -> None:
        self._note("healthy", healthy)

    def announced(self, texts: Sequence[str]) -> None:
        for text in texts:
            self._note("announced", text)

    def newest(self) -> Sequence[Trace]:
        return self.known

    @property
    def messages(self) -> list[Message]:
        return [value for _, value in list(self.events) if isinstance(value, Message)]

    @property
    def ids(self) -> list[int]:
        """Global ids of the messages, as they came."""
        return [message.global_id for message in self.messages]

    @property
    def data(self) -> list[object]:
        return [message.data for message in self.messages]

    def told(self, kind: str) -> list[object]:
        """The values of all events of a kind."""
        return [value for event, value in list(self.events) if event == kind]
