"""A channel in this process: its subscribers, and a window of its newest messages without a hole. No sockets, no
store."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..message import Message
from ..stores import Backlog
from ..transports import Transport
from .recovery import HistoryView

if TYPE_CHECKING:
    from .subscriber import Subscriber


class BacklogSnapshot:
    """What was read of a channel's backlog, by one request for all that ask at the same time."""

    __slots__ = ("after", "backlog", "channel")

    def __init__(self, channel: ChannelWindow, after: int, backlog: Backlog) -> None:
        """``channel``: where everything is that was dispatched since. ``after``: the message id that was given to the
        store."""
        self.channel = channel
        self.after = after
        self.backlog = backlog

    def view(self) -> HistoryView:
        return HistoryView.of(self.backlog, self.after)


class ChannelWindow:
    """A channel with subscribers, or that had some a moment ago. Changed in the reactor's loop only."""

    __slots__ = (
        "after",
        "floor",
        "last_id",
        "name",
        "reading",
        "reading_lock",
        "size",
        "subscribers",
        "touched",
        "whole",
        "window",
    )

    def __init__(self, name: str, global_id: int) -> None:
        """``global_id``: what has been dispatched so far; from now on the window has everything."""
        self.name = name
        self.subscribers: dict[Transport, dict[Subscriber, None]] = {}
        """By transport; not sets, which would mix up the order in which they came. In it they lie in memory, here and
        in the kernel, and to write to ten thousand sockets costs about a tenth less."""
        self.window: list[Message] = []
        self.size = 0
        """Bytes in the window."""
        self.floor: int | None = None
        """The window has every kept message above this id; ``None`` until something is known."""
        self.last_id: int | None = None
        """The newest message that was dispatched."""
        self.after = global_id
        """The window has every message above this global id."""
        self.whole = False
        """Whether the window is all that the store keeps."""
        self.touched = 0.0
        """When it was last asked for, in the reactor's seconds."""
        self.reading: BacklogSnapshot | None = None
        self.reading_lock: threading.Lock | None = None

    def view(self) -> HistoryView | None:
        """What this process knows of it; ``None`` where neither a message nor a reading has told yet. From any
        thread."""
        # The window last: whoever changes them does it in such an order that what is read before it says too little,
        # never too much.
        floor, last_id, after, whole = self.floor, self.last_id, self.after, self.whole
        if floor is None or last_id is None:
            return None
        window = self.window[:]
        if window:
            last_id = max(last_id, window[-1].message_id)  # appended to between the two lines above
            if window[0].message_id > floor + 1:  # trimmed there
                floor, after, whole = window[0].message_id - 1, window[0].global_id - 1, False
        # From the channel's first message on nothing is older, whatever was known when the window was begun.
        return HistoryView(window, floor, last_id, after if floor else 0, whole)

    def append(self, messages: Sequence[Message], max_messages: int, max_bytes: int) -> None:
        """Remember what is being dispatched, within the bounds of :meth:`trim`."""
        if self.floor is None:
            self.floor = messages[0].message_id - 1
        window = self.window
        window += messages
        self.last_id = messages[-1].message_id
        for message in messages:
            self.size += len(message.raw)
        if len(window) > max_messages or self.size > max_bytes:
            self.trim(max_messages, max_bytes)

    def merge(self, reading: BacklogSnapshot, global_id: int) -> None:
        """Put what was read from the store before the window, as far as it has been dispatched (up to
        ``global_id``)."""
        backlog = reading.backlog
        passed = [message for message in backlog.messages if message.global_id <= global_id]
        if self.floor is None or self.last_id is None:
            older = passed
            self.last_id = backlog.last_id
            if len(passed) < len(backlog.messages):
                self.last_id = backlog.messages[len(passed)].message_id - 1
        elif reading.after < self.floor:
            older = [message for message in passed if message.message_id <= self.floor]
            reached = older[-1].message_id if older else backlog.first_id - 1
            if reached < self.floor:
                return  # the window has moved on since, and no longer meets what was read
        else:
            return
        view = HistoryView.of(backlog._replace(messages=older), reading.after)
        self.window = older + self.window
        self.size += sum([len(message.raw) for message in older])
        self.after = min(self.after, view.after) if older or backlog.first_id > backlog.last_id else self.after
        self.floor = view.floor if self.floor is None else min(self.floor, view.floor)
        self.whole = view.whole

    def trim(self, max_messages: int, max_bytes: int) -> None:
        """Forget the oldest messages past either bound, but never the newest message."""
        window = self.window
        excess = len(window) - max_messages
        if excess <= 0 and self.size <= max_bytes:
            return
        # A quarter more than needed: to take from the front of a list costs as much for one as for many.
        drop = min(excess + max_messages // 4, len(window) - 1) if excess > 0 else 0
        size = self.size - sum([len(message.raw) for message in window[:drop]])
        while size > max_bytes and drop < len(window) - 1:
            size -= len(window[drop].raw)
            drop += 1
        if drop:
            last = window[drop - 1]
            self.floor, self.after, self.whole, self.size = last.message_id, last.global_id, False, size
            self.window = window[drop:]
