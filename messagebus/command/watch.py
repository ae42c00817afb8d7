"""Which clients follow a channel, over all workers, as these tell it to a program that watches."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import msgspec

from ..errors import BackendUnavailable
from ..hub.node import Node
from ..hub.viewers import LASTS_SECONDS, RENEW_SECONDS, VIEWERS, WATCH
from ..hub.workers import tell


class _Told(msgspec.Struct):
    """What a worker tells."""

    worker: str
    number: int
    name: str
    clients: list[str]
    heard_at: float = 0.0


class Watch:
    """See the module."""

    def __init__(self, node: Node, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        """``name``: the channel, as the store names it."""
        self._node = node
        self._name = name
        self._clock = clock
        self._lock = threading.Lock()
        self._by_worker: dict[str, _Told] = {}
        self._ask_at = 0.0
        self._was_away = False
        node.workers.on(VIEWERS, self.hear)

    def clients(self) -> set[str]:
        """Those that follow it now; while the store is away, those that did. Call it often, in one thread."""
        now = self._clock()
        if now >= self._ask_at:
            self._ask_at = now + RENEW_SECONDS
            self._ask()
        with self._lock:
            if not self._was_away:
                # A worker that has fallen silent was killed: its clients are with another one by now.
                alive = [told for told in self._by_worker.values() if now < told.heard_at + LASTS_SECONDS]
                self._by_worker = {told.worker: told for told in alive}
            return {client for told in self._by_worker.values() for client in told.clients}

    def _ask(self) -> None:
        try:
            tell(self._node.store, WATCH, self._name)
            is_away = not self._node.is_healthy
        except BackendUnavailable:
            is_away = True
        with self._lock:
            if self._was_away and not is_away:
                for told in self._by_worker.values():
                    told.heard_at = self._clock()  # its silence was nobody's fault
            self._was_away = is_away

    def hear(self, value: Any) -> None:
        """A worker tells. From any thread."""
        try:
            told = msgspec.convert(value, _Told)
        except msgspec.ValidationError:
            return  # a newer version's
        if told.name != self._name:
            return
        told.heard_at = self._clock()
        with self._lock:
            before = self._by_worker.get(told.worker)
            if before is None or before.number < told.number:
                self._by_worker[told.worker] = told
