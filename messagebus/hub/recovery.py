"""What a subscriber is due on a channel before it goes live. Pure: positions and backlogs in, messages and notices
out."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import NamedTuple

from ..message import Message, gap_message, status_message
from ..stores import Backlog
from ..wire import NEW_ONLY

_by_message_id = attrgetter("message_id")


class Cursor(NamedTuple):
    """A channel that a subscriber asks for, and where it stands on it."""

    channel: str
    """As the subscriber names it."""
    name: str
    """As the store names it."""
    position: int = NEW_ONLY
    """``n >= 0``: after message n. ``-1``: new messages only. ``-k``: the last k-1 messages, then new ones."""
    after: int | None = None
    """Also, or with a negative position only: after this global id."""
    stale: bool = False
    """The position is of another epoch of the store: it means nothing any more."""
    strict: bool = False
    """The client knows this store's epoch, so a position beyond the channel's last id means nothing either."""


class HistoryView(NamedTuple):
    """What is known of a channel: a part of its backlog without a hole."""

    messages: Sequence[Message]
    """Every kept message with an id above ``floor``, up to ``last_id``."""
    floor: int
    last_id: int
    after: int
    """Every message ever published on it with a global id above this one is in ``messages``."""
    whole: bool
    """Whether ``messages`` is all that the store keeps."""

    @classmethod
    def of(cls, backlog: Backlog, after: int) -> HistoryView:
        """What was read from a store, having asked for messages after ``after``."""
        floor = max(after, backlog.first_id - 1)
        # Without the ids' times, all that is known of a message before the first is that it is older.
        older = floor > 0 and backlog.messages
        return cls(
            backlog.messages,
            floor,
            backlog.last_id,
            backlog.messages[0].global_id - 1 if older else 0,
            floor == backlog.first_id - 1,
        )


@dataclass(slots=True)
class CatchUp:
    """What a subscriber is due over all its channels."""

    messages: list[Message] = field(default_factory=list)
    gaps: dict[str, tuple[int | None, int]] = field(default_factory=dict)
    """Channel -> (after, before): the ids in between are gone; after ``None``: so is all that it knew."""
    positions: dict[str, int] = field(default_factory=dict)
    """What the status says: channel -> the position to continue from."""

    def batch(self, epoch: str | None, say_epoch: bool) -> list[Message]:
        """Gaps first, then the messages by global id, the status last."""
        self.messages.sort(key=attrgetter("global_id"))
        batch = self.messages
        if self.gaps:
            batch = [gap_message(self.gaps), *batch]
        if self.positions or say_epoch:
            batch = [*batch, status_message(self.positions, epoch)]
        return batch


def covers(view: HistoryView, want: Cursor) -> bool:
    """Whether the view suffices to tell what is due to ``want``."""
    if want.stale:
        return view.whole
    if want.position >= 0:
        known = view.floor <= want.position or (want.after is not None and view.after <= want.after)
        return known and want.position <= view.last_id
    if want.after is not None:
        return view.after <= want.after
    return view.floor <= max(view.last_id - _lookback(want.position), 0)


def add_due(due: CatchUp, view: HistoryView, want: Cursor) -> list[Message]:
    """Adds what is due on one channel, but for the messages: they are returned, to be withheld or not.

    Works for any view; where :func:`covers` says no, the ids that the view lacks are taken for gone."""
    last_id, position = view.last_id, want.position
    if want.stale or (want.strict and position > last_id):
        due.gaps[want.channel] = (None, view.floor + 1)
        due.positions[want.channel] = last_id
        return list(view.messages)
    if position > last_id:
        due.positions[want.channel] = last_id
        return []
    if position >= 0:
        if not covers(view, want):
            due.gaps[want.channel] = (position, view.floor + 1)
        messages = view.messages[bisect_right(view.messages, position, key=_by_message_id) :]
        return [m for m in messages if want.after is None or m.global_id > want.after]
    if want.after is not None:
        due.positions[want.channel] = last_id
        if view.after > want.after:
            due.gaps[want.channel] = (None, view.floor + 1)
        return [m for m in view.messages if m.global_id > want.after]
    if position == NEW_ONLY:
        due.positions[want.channel] = last_id
    start = max(last_id - _lookback(position), 0)
    return list(view.messages[bisect_right(view.messages, start, key=_by_message_id) :])


def read_after(want: Cursor, last_id: int) -> int:
    """From where to read the store for ``want``, on a channel whose last id is ``last_id``.

    One message more than is due, where there is one: its global id tells how far the store is ahead of this process."""
    if want.stale or (want.after is not None and want.position < 0) or want.position > last_id:
        return 0
    if want.position >= 0:
        return max(want.position - 1, 0)
    return max(last_id - _lookback(want.position) - 1, 0)


def _lookback(position: int) -> int:
    """How many messages a negative position asks for: -1 none, -2 the last one."""
    return -position - 1
