"""ActionCable's pings: one timer, and the same bytes for all connections of a process."""

from __future__ import annotations

import time
from typing import Protocol

from ..loop.reactor import Reactor
from ..transports.websocket import text_frame

INTERVAL = 3.0
"""Seconds. Clients take a connection for dead after two pings that do not come."""
SLICES = 30
"""Connections are pinged in so many turns of the loop, so that none of them is long."""


class Pinged(Protocol):
    def put(self, data: bytes) -> None: ...


class Pings:
    """See the module. In the reactor's loop only."""

    def __init__(self, reactor: Reactor) -> None:
        self._reactor = reactor
        self._slices: list[dict[Pinged, None]] = [{} for _ in range(SLICES)]
        self._next = 0
        self._number = 0
        self.tick = 0

    def add(self, connection: Pinged) -> None:
        min(self._slices, key=len)[connection] = None
        self._number += 1
        if not self.tick:
            self._reactor.set_deadline(self, INTERVAL / SLICES)

    def remove(self, connection: Pinged) -> None:
        """May be repeated."""
        for members in self._slices:
            if connection in members:
                del members[connection]
                self._number -= 1

    def on_deadline(self) -> None:
        members = self._slices[self._next]
        self._next = (self._next + 1) % SLICES
        if members:
            ping = text_frame(b'{"type":"ping","message":%d}' % time.time())
            for connection in (*members,):
                connection.put(ping)
        if self._number:
            self._reactor.set_deadline(self, INTERVAL / SLICES)
