"""The writer of a taken socket that can stop to read: the peer then has to wait, as the kernel takes no more of it."""

from __future__ import annotations

from typing import Any

from .socket_writer import SocketWriter


class PausableWriter(SocketWriter):
    """See the module. What was read before still comes; so does what a peer has sent that then goes away."""

    __slots__ = ("_awaits_room", "_paused")

    def __init__(self, *args: Any) -> None:
        self._awaits_room = self._paused = False
        super().__init__(*args)

    def pause_reading(self, pause: bool) -> None:
        if pause is not self._paused and not self.closed:
            self._paused = pause
            self._watch()

    def finish(self) -> None:
        self.pause_reading(False)  # the farewell is over when the peer has gone, which reading tells
        super().finish()

    def _watch_writable(self, watch: bool) -> None:
        self._awaits_room = watch
        self._watch()

    def _watch(self) -> None:
        self._reactor.watch(self._sock.fileno(), readable=not self._paused, writable=self._awaits_room)
