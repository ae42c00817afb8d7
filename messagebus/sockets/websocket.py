"""One client's WebSocket, as the application's code has it. The loop's end of it is in ``session``."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from typing import Protocol

from ..errors import SLOW, Close, ConnectionClosed
from ..loop.reactor import Reactor
from ..transports.websocket import binary_frame, text_frame

MAX_INBOX = 100
"""Messages that may wait to be received. With so many, or ``max_frame_size`` bytes, no more is read of the client."""
MAX_REASON = 123
"""Bytes of a close's reason (RFC 6455, section 5.5)."""
ABNORMAL = Close(1006, "")
"""The connection broke; no close frame says so."""
_CODES = {1000, 1001, 1002, 1003, *range(1007, 1015)}


class Peer(Protocol):
    """The connection itself. In the loop only."""

    def put_message(self, frame: bytes) -> None:
        """Send a frame."""

    def end(self, close: Close) -> None:
        """Close the connection when everything that was put has been sent."""

    def on_slow(self) -> None:
        """Close it, because too much waits for its client."""

    def pause(self) -> None:
        """Read of the client, or not, as ``WebSocket._is_paused`` says when this is called."""


class WebSocket:
    """One client's connection. Safe from any thread and greenlet: several may send; of several that receive, each
    message reaches one.

    ``subprotocol`` is what was agreed on, if anything was."""

    def __init__(
        self, peer: Peer, reactor: Reactor, room: int, inbox: int, *, waits: bool, subprotocol: str | None
    ) -> None:
        """Made by the bus alone. ``room``: bytes that may wait for the client; ``inbox``: for the application.
        ``waits``: whether ``send`` waits for room; otherwise it ends the connection."""
        self.subprotocol = subprotocol
        self._peer = peer
        self._reactor = reactor
        self._room = room
        self._most = inbox
        self._waits = waits
        self._changed = threading.Condition()
        self._inbox: deque[str | bytes] = deque()
        self._inbox_size = 0
        self._is_paused = False
        self._waiting = 0  # bytes that were sent here, and have not left yet
        self._close: Close | None = None

    @property
    def closed(self) -> bool:
        """Whether the connection has ended, or is about to."""
        return self._close is not None

    @property
    def close_code(self) -> int | None:
        """The close code; 1005 where the client gave none, 1006 where the connection broke, ``None`` while it is
        open."""
        return None if self._close is None else self._close.code

    @property
    def close_reason(self) -> str:
        """The reason that came with the close code; empty while it is open."""
        return "" if self._close is None else self._close.reason

    def receive(self, timeout: float | None = None) -> str | bytes | None:
        """The next message: text as ``str``, binary as ``bytes``. ``timeout``: seconds to wait; 0 does not wait.
        ``None``, which is returned then, is no message.

        Raises:
            ConnectionClosed: It has ended, and everything that the client had sent has been received.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._changed:
            while not self._inbox:
                self._check_open()
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    return None
                self._changed.wait(left)
            return self._pop()

    def __iter__(self) -> Iterator[str | bytes]:
        """The messages, until the connection has ended."""
        while True:
            try:
                message = self.receive()
            except ConnectionClosed:
                return
            if message is not None:
                yield message

    def send(self, data: str | bytes) -> None:
        """Send a message: ``str`` as text, ``bytes`` as binary.

        Where ``max_outbox`` bytes wait for the client, a ``talk`` waits until it has read them; a client that reads
        nothing is cut off after ``write_timeout``. In the functions of a socket without a thread it does not wait: such
        a client is cut off at once (1013).

        Raises:
            ConnectionClosed: It has ended. That a message was sent does not mean that it arrived.
            TypeError: ``data`` is neither.
        """
        if isinstance(data, str):
            frame = text_frame(data.encode())
        elif isinstance(data, (bytes, bytearray, memoryview)):
            frame = binary_frame(bytes(data))
        else:
            raise TypeError(f"send: expected str or bytes, not {type(data).__name__}; json.dumps makes text of values")
        with self._changed:
            self._check_open()
            while self._waiting and self._waiting + len(frame) > self._room:
                if not self._waits:
                    self._reactor.call_soon(self._peer.on_slow)
                    self._end(SLOW)
                else:
                    self._changed.wait()
                self._check_open()
            self._waiting += len(frame)
            self._reactor.call_soon(self._peer.put_message, frame)

    def close(self, code: int = 1000, reason: str = "") -> None:
        """End the connection when everything that was sent has left. Does not wait; may be repeated.

        Raises:
            ValueError: ``code`` may not be sent (RFC 6455, section 7.4: 1000 to 1003, 1007 to 1014, 3000 to 4999), or
                ``reason`` has more than 123 bytes.
        """
        if code not in _CODES and not 3000 <= code <= 4999:
            raise ValueError(f"code: expected a close code that may be sent, 1000 or 3000 to 4999, not {code!r}")
        if len(reason.encode()) > MAX_REASON:
            raise ValueError(f"reason: expected up to {MAX_REASON} bytes, not {len(reason.encode())}")
        self._close_with(Close(code, reason))

    def _close_with(self, close: Close) -> None:
        with self._changed:
            if self._close is None:
                self._reactor.call_soon(self._peer.end, close)
                self._end(close)

    # --- the connection's side ---

    def _arrived(self, message: str | bytes) -> None:
        """In the loop: the client has sent a message."""
        with self._changed:
            self._inbox.append(message)
            self._inbox_size += len(message)
            if not self._is_paused and (len(self._inbox) >= MAX_INBOX or self._inbox_size >= self._most):
                self._is_paused = True
                self._peer.pause()
            self._changed.notify_all()

    def _take(self) -> str | bytes | None:
        """The next message, if there is one."""
        with self._changed:
            return self._pop() if self._inbox else None

    def _left(self, size: int) -> None:
        """So many bytes have left."""
        with self._changed:
            self._waiting -= size
            self._changed.notify_all()

    def _has_ended(self, close: Close) -> None:
        """It is over. What has arrived can still be received."""
        with self._changed:
            if self._close is None:
                self._close = close
                self._changed.notify_all()

    # --- with the lock held ---

    def _end(self, close: Close) -> None:
        self._close = close
        self._inbox.clear()
        self._inbox_size = 0
        self._changed.notify_all()

    def _pop(self) -> str | bytes:
        message = self._inbox.popleft()
        self._inbox_size -= len(message)
        if self._is_paused and len(self._inbox) <= MAX_INBOX // 2 and self._inbox_size <= self._most // 2:
            self._is_paused = False
            self._reactor.call_soon(self._peer.pause)
        return message

    def _check_open(self) -> None:
        if self._close is not None:
            raise ConnectionClosed(self._close.code, self._close.reason)
