"""A window of a channel's newest messages, without a hole, in this process. No subscribers, no sockets, no store.

What is known is one immutable value, which the reactor's loop replaces as a whole: other threads look at it without a
lock, and never see a half of a change.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

import msgspec

from ..message import Message, memory_of
from .history import NOTHING, HistoryView, appended, merged, trimmed


class ChannelWindow:
    """The window of a channel that somebody follows, or asked for a moment ago. Changed in the reactor's loop only."""

    __slots__ = (
        *("created", "entered", "heard", "is_over", "name"),
        *("old", "partition", "passed", "size", "state", "touched"),
    )

    def __init__(self, name: str, now: float, partition: int = 0) -> None:
        self.name = name
        self.partition = partition
        """Of the store, to which the channel belongs."""
        self.created = now
        """When it was, in the reactor's seconds. What was read before may lack messages that it lacks as well."""
        self.entered = NOTHING
        """From when it is found by the dispatcher: it has every message above this global id."""
        self.state: HistoryView | None = None
        """What is known; ``None`` where neither a message nor a reading has told yet. May be read from any thread."""
        self.heard: threading.Event | None = None
        """What is waited with until the feed brings the channel's messages; ``None``: it does."""
        self.size = 0
        """Bytes of memory that the messages take."""
        self.old = 0
        """Of a pattern: messages up to this id were there when it was last aged."""
        self.touched = now
        """When somebody last asked for the channel."""
        self.is_over = False
        """Whether the channel's ids have begun again: what comes is of another life of the store, of which nobody has
        been told yet."""
        self.passed = -1
        """The newest message before the store forgot the channel's; -1: it did not, or that is not known."""

    @property
    def last_id(self) -> int:
        """The channel's newest message that was dispatched, kept or not; -1: not known."""
        return self.passed if self.state is None else self.state.last_id

    def append(self, messages: Sequence[Message], now: float, max_messages: int, max_bytes: int) -> int:
        """Add dispatched messages, within the bounds of :meth:`trim`. Returns by how many bytes it has grown."""
        before = self.size
        state = self.state = appended(self.state, messages, now, self.entered)
        self.size += memory_of(messages)
        # Not for each message: to take from the front of a list costs as much for one as for many.
        if state.end > max_messages + max_messages // 4 or self.size > max_bytes:
            self.trim(max_messages, max_bytes)
        return self.size - before

    def pass_by(self, global_id: int) -> None:
        """Of a pattern: what was dispatched up to a global id is none of its messages."""
        state = self.state
        if state is not None and global_id > state.last_id:
            self.state = msgspec.structs.replace(state, last_id=global_id, through=global_id)

    def age(self) -> None:
        """Of a pattern: forget what was there the last time. Its channels may not keep that any more, and say nothing
        of it here."""
        state = self.state
        if state is not None:
            drop = state.index_after(self.old)
            if drop:
                self.size -= memory_of(state.log[:drop])
                self.state = trimmed(state, drop)
            self.old = state.last_id

    def merge(self, page: HistoryView) -> bool:
        """Add messages that were read from the store and have been dispatched. ``False``: there would be a hole."""
        state = merged(self.state, page, self.entered)
        if state is None:
            return False
        self.state = state
        self.size = memory_of(state.log)
        return True

    def trim(self, max_messages: int, max_bytes: int) -> None:
        """Forget the oldest messages beyond either bound, but never the newest message."""
        state = self.state
        if state is None or (state.end <= max_messages and self.size <= max_bytes):
            return
        drop = max(state.end - max_messages, 0)
        size = self.size - memory_of(state.log[:drop])
        while size > max_bytes and drop < state.end - 1:
            size -= memory_of((state.log[drop],))
            drop += 1
        if drop:
            self.state, self.size = trimmed(state, drop), size
