"""A bounded queue between a client's thread and a loop over its messages; when it is full, the client stops reading."""

from __future__ import annotations

import math
import threading
from collections import deque

from .types import ClientMessage


class Mailbox:
    """When it is full, :meth:`put` waits. Safe from any thread."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._messages: deque[ClientMessage] = deque()
        self._taken: ClientMessage | None = None  # by the loop, which may still be at it
        self._closed = False
        self._condition = threading.Condition()

    def put(self, message: ClientMessage) -> None:
        """Add a message as soon as there is room; after the end it is dropped."""
        with self._condition:
            while len(self._messages) >= self._size and not self._closed:
                self._condition.wait()
            if not self._closed:
                self._messages.append(message)
                self._condition.notify_all()

    def take(self, timeout: float) -> ClientMessage | None:
        """The next message; ``None`` if none comes for ``timeout`` seconds, or if it is empty and closed."""
        with self._condition:
            self._taken = None
            # An infinite timeout is none to a condition.
            there = self._condition.wait_for(
                lambda: self._messages or self._closed, None if math.isinf(timeout) else timeout
            )
            if not there or not self._messages:
                return None
            self._condition.notify_all()
            self._taken = self._messages.popleft()
            return self._taken

    def first_unread(self, channel: str) -> int | None:
        """The id of the oldest message of a channel that the loop has not dealt with; ``None`` where there is none. A
        message has been dealt with when the next one is asked for."""
        with self._condition:
            messages = [*([self._taken] if self._taken else []), *self._messages]
        return next((found for message in messages if (found := message.id_of(channel)) is not None), None)

    def close(self) -> None:
        with self._condition:
            self._closed = True
            self._condition.notify_all()
