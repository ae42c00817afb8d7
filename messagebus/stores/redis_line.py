"""A connection to Redis that is subscribed and asks at the same time, in RESP3. Knows commands, no messages.

Redis answers in the order in which things happen on a connection: the answer to a question says what holds at just that
place of the stream.
"""

from __future__ import annotations

import select
import time
from collections.abc import Sequence
from typing import Any

import hiredis

from ..loop.poller import Waker

BULK = 64 * 1024
"""Bytes read at once, see ``redis_feed``."""
AT_ONCE = 1000
"""Channels of one command."""
_NOTHING = object()


class Line:
    """See the module. For one thread; the waker is for any."""

    def __init__(self, sock: Any, waker: Waker, timeout: float) -> None:
        """``timeout``: seconds that an answer may take."""
        self._sock = sock
        self._waker = waker
        self._timeout = timeout
        self._buffer: Any = bytearray(BULK)
        self._reader = hiredis.Reader(notEnoughData=_NOTHING)
        self._poll = select.poll()
        self._poll.register(sock.fileno(), select.POLLIN)
        self._poll.register(waker.fileno(), select.POLLIN)
        self._asked: list[float] = []
        sock.settimeout(timeout)

    def send(self, *command: bytes) -> None:
        """Have the server do something that it answers with nothing but pushes."""
        self._sock.sendall(hiredis.pack_command(command))  # type: ignore[arg-type]

    def ask(self, *command: bytes) -> None:
        """Have the server do something that it answers with one reply, in the order of what was asked."""
        self._asked.append(time.monotonic() + self._timeout)
        self.send(*command)

    def subscribe(self, channels: Sequence[bytes], *, undo: bool = False) -> None:
        self.send_all(b"UNSUBSCRIBE" if undo else b"SUBSCRIBE", channels)

    def send_all(self, command: bytes, channels: Sequence[bytes]) -> None:
        """A command of any number of channels."""
        for begin in range(0, len(channels), AT_ONCE):
            self.send(command, *channels[begin : begin + AT_ONCE])

    def receive(self, wait: float) -> list[Any]:
        """What the server says next: pushes, answers, and errors, which are exceptions. Nothing, where so many seconds
        pass, or somebody wakes this thread.

        Raises:
            OSError: The connection is gone, or an answer took too long.
        """
        if self._asked:
            wait = min(wait, self._asked[0] - time.monotonic())
        if not self._is_readable(max(wait, 0.0)):
            if self._asked and time.monotonic() >= self._asked[0]:
                raise TimeoutError("no answer came in time")
            return []
        size = self._sock.recv_into(self._buffer)
        if not size:
            raise ConnectionResetError("connection closed by the server")
        self._reader.feed(self._buffer, 0, size)
        replies = []
        while (reply := self._reader.gets()) is not _NOTHING:
            replies.append(reply)
            if type(reply) is not hiredis.PushNotification and self._asked:
                del self._asked[0]
        return replies

    def _is_readable(self, wait: float) -> bool:
        if getattr(self._sock, "pending", int)():  # of TLS: read from the socket already
            return True
        ready = [fd for fd, _ in self._poll.poll(wait * 1000)]
        if self._waker.fileno() in ready:
            self._waker.clear()
        return self._sock.fileno() in ready
