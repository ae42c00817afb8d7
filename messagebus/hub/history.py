"""What a subscriber has missed on a channel. Pure: positions and pieces of history in, positions and gaps out.

A :class:`HistoryView` is a part of a channel's backlog without a hole, a :class:`Cursor` is what a subscriber asks for.
:func:`covers` says whether the one suffices for the other, :func:`start` where the subscriber begins in it, and
:func:`query_for` what to ask the store where it does not.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from operator import attrgetter
from typing import NamedTuple

import msgspec

from ..message import Message
from ..stores import BacklogPage, BacklogQuery
from ..wire import NEW_ONLY
from .forgotten import Forgotten, Reader, forget

NOTHING = 1 << 62
"""A global id that no message will ever have."""
MIN_AGE = 1.0
"""Seconds that every message is certainly kept: ``max_backlog_age`` is at least 1."""

_by_message_id = attrgetter("message_id")
_by_global_id = attrgetter("global_id")


class Cursor(NamedTuple):
    """A channel that a subscriber asks for, and its position there."""

    channel: str
    """The subscriber's name for it."""
    name: str
    """The store's name for it."""
    position: int = NEW_ONLY
    """``n >= 0``: after message n. ``-1``: new messages only. ``-k``: the last k-1 messages, then new ones."""
    after: int | None = None
    """Also, or with a negative position only: after this global id."""
    stale: bool = False
    """The position is of another epoch of the store, and so invalid."""
    strict: bool = False
    """The client knows the current epoch, so a position beyond the channel's last id is invalid as well."""
    shared: int | None = None
    """Stale, unless the position is that of a message with a global id up to this one. See ``lineage``."""


class HistoryView(msgspec.Struct, frozen=True, gc=False):
    """What is known of a channel at one moment. Immutable, and safe to read from any thread: the list only grows,
    beyond ``end``."""

    log: list[Message]
    end: int
    """Only this many messages at the beginning of ``log`` count."""
    floor: int
    through: int
    """Every kept message with ``floor < id <= through`` is there."""
    last_id: int
    """The channel's newest message. A window reaches as far; a page may not."""
    after: int
    """Every message ever published on it with a global id above this one, up to ``through``, is there."""
    first_id: int
    """No older message is kept, as far as is known."""
    until: float
    """Until then, on the reactor's clock, what is there is certainly still kept. Later the store may have dropped all
    of it."""
    sure_from: int = 0
    """Messages from this id on are certainly kept until then, unless newer ones have pushed them out."""
    read_at: float = 0.0
    """When the newest message came, or the page was read."""
    forgotten: Forgotten | None = None
    """What is known of messages that were there, and are no longer."""
    kept: bool = False
    """A page that was read a while ago: the channel has gone on since."""
    since: int = NOTHING
    """Of a window: it has had every message with a global id above this one, and none has left it. (``after`` says
    less: where nothing is kept any more, nobody knows what there was.)"""

    @property
    def messages(self) -> Sequence[Message]:
        return self.log[: self.end]

    @property
    def whole(self) -> bool:
        """Whether nothing is kept that is older than what is there."""
        return self.first_id > self.floor

    @property
    def ends(self) -> bool:
        """Whether nothing comes behind it."""
        return self.through >= self.last_id and not self.kept

    def index_after(self, position: int) -> int:
        """Where in ``log`` the messages after a position begin."""
        return bisect_right(self.log, position, 0, self.end, key=_by_message_id)


def view_of_page(page: BacklogPage, read_at: float) -> HistoryView:
    """What was read from a store, the question having been sent at ``read_at``."""
    floor = min(max(page.after, page.first_id - 1), page.last_id)
    messages = page.messages
    if floor and messages:
        # Without the ids' times, all that is known of a message before the first is that it is older.
        after = messages[0].global_id - 1
    else:
        after = 0 if not floor or page.first_id > page.last_id else NOTHING
    return HistoryView(
        messages,
        len(messages),
        floor,
        min(page.through, page.last_id),
        page.last_id,
        after,
        page.first_id,
        read_at + page.expires_in,
        floor + 1,
        read_at,
    )


class Start(NamedTuple):
    """Where a subscriber starts on a channel."""

    position: int
    """It gets everything after this message."""
    gap: tuple[int | None, int] | None = None
    """(after, before): the ids in between are gone. ``after`` is ``None``: the store was reset."""
    tell: bool = False
    """Whether to send it the position to continue from."""


def covers(view: HistoryView, want: Cursor) -> bool:
    """Whether the view suffices to tell where ``want`` begins, and its next messages."""
    if want.stale:
        return view.whole
    if want.position > view.last_id:
        return False  # the store may know more than this process
    if want.position >= 0:
        known = view.whole or view.floor <= want.position or (want.after is not None and view.after <= want.after)
        return known and (want.position < view.through or view.ends)
    if want.after is not None:
        return view.whole or view.after <= want.after
    begin = max(view.last_id - _lookback(want.position), 0)
    return (view.whole or view.floor <= begin) and (begin < view.through or view.ends)


def start(view: HistoryView, want: Cursor, reader: Reader) -> Start:
    """Where ``want`` begins. Works for any view; what it lacks, where :func:`covers` says no, is taken for gone, unless
    it is known that it was not for the reader."""
    last_id, position, floor = view.last_id, want.position, view.floor
    if want.stale or (want.strict and position > last_id):
        return Start(floor, (None, floor + 1), True)
    if position > last_id:
        return Start(last_id, tell=True)
    if position >= 0:
        by_global_id = _position_at(view, want.after) if want.after is not None else 0
        if floor <= position or (want.after is not None and view.after <= want.after):
            return Start(max(position, by_global_id))
        if is_none_of(view, position, reader):
            return Start(max(floor, by_global_id), tell=True)
        return Start(max(floor, by_global_id), (position, floor + 1))
    if want.after is not None:
        gap = (None, floor + 1) if view.after > want.after else None
        return Start(_position_at(view, want.after), gap, True)
    return Start(max(last_id - _lookback(position), floor), tell=position == NEW_ONLY)


def is_none_of(view: HistoryView, position: int, reader: Reader) -> bool:
    """Whether nothing of what is gone between a position and the view was for a reader."""
    forgotten = view.forgotten
    return forgotten is not None and view.floor <= forgotten.through and not forgotten.had_any_for(reader, position)


def query_for(want: Cursor) -> BacklogQuery:
    """What to ask the store for ``want``.

    One message more than is due, where there is one: its global id tells how far the store is ahead of this process."""
    if want.stale or (want.after is not None and want.position < 0):
        return BacklogQuery(want.name, 0)
    if want.position >= 0:
        return BacklogQuery(want.name, max(want.position - 1, 0))
    return BacklogQuery(want.name, -_lookback(want.position) - 1)


def answers(page: BacklogPage, query: BacklogQuery) -> bool:
    """Whether a page that was read for another query has what this one asks for."""
    after = query.after if query.after >= 0 else max(page.last_id + query.after, 0)
    return page.after <= after and (after < page.through or page.through >= page.last_id)


def _position_at(view: HistoryView, global_id: int) -> int:
    """The newest message that a subscriber has seen which has seen everything up to a global id."""
    index = bisect_right(view.log, global_id, 0, view.end, key=_by_global_id)
    return view.log[index - 1].message_id if index else view.floor


def _lookback(position: int) -> int:
    """How many messages a negative position asks for: -1 none, -2 the last one."""
    return -position - 1


# --- how views grow ---


def appended(view: HistoryView | None, messages: Sequence[Message], now: float, entered: int = NOTHING) -> HistoryView:
    """A window's view with the channel's next messages, which have just been dispatched. ``entered``: the window has
    every message above this global id."""
    first, last = messages[0], messages[-1].message_id
    if view is None:
        floor = first.message_id - 1
        # From the channel's first message on nothing is older.
        after, first_id = (min(first.global_id - 1, entered), 0) if floor else (0, 1)
        log = [*messages]
        return HistoryView(
            log, len(log), floor, last, last, after, first_id, now + MIN_AGE, floor + 1, now, since=entered
        )
    log = view.log
    log += messages
    # Where nothing came for longer than is certain, all that was there before may have expired meanwhile.
    sure_from = view.sure_from if view.until > now else first.message_id
    until, forgotten = now + MIN_AGE, view.forgotten
    # What the store had dropped already when it was read may still come with the feed, which is behind it.
    floor = min(view.floor, first.message_id - 1)
    return HistoryView(
        log,
        len(log),
        floor,
        last,
        last,
        view.after,
        view.first_id,
        until,
        sure_from,
        now,
        forgotten,
        since=view.since,
    )


def dispatched(page: HistoryView, global_id: int) -> HistoryView:
    """As much of a page as has been dispatched: the rest is left to the live feed."""
    if not page.end or page.log[page.end - 1].global_id <= global_id:
        return page
    end = bisect_right(page.log, global_id, 0, page.end, key=_by_global_id)
    last_id = page.log[end].message_id - 1
    return msgspec.structs.replace(page, log=page.log[:end], end=end, through=last_id, last_id=last_id)


def merged(view: HistoryView | None, page: HistoryView, entered: int = NOTHING) -> HistoryView | None:
    """A window's view together with what was read from the store and has been dispatched; ``None`` where the two do not
    touch, so that there would be a hole."""
    if view is None:
        if not page.ends:
            return None
        log = page.log[: page.end]
        return msgspec.structs.replace(page, log=log, after=min(page.after, entered), since=entered)
    if page.through < view.floor or page.last_id < view.floor or page.floor > view.last_id:
        return None
    floor, log, after, since = view.floor, view.log[: view.end], min(view.after, page.after), view.since
    forgotten = view.forgotten
    if page.floor < floor:
        log = page.log[: page.index_after(floor)] + log
        floor = page.floor
    # What the store has no more, though newer messages have not pushed it out, has expired.
    sure_from = view.sure_from if view.until > page.read_at else view.last_id + 1
    expired = min(page.first_id, sure_from) - 1
    if expired > floor:
        drop = bisect_right(log, expired, key=_by_message_id)
        after = log[drop - 1].global_id if drop else after
        since = max(since, after) if drop else since
        forgotten = forget(forgotten, floor, log[:drop])
        floor, log = expired, log[drop:]
    until, sure_from = page.until, floor + 1
    if view.last_id > page.last_id:
        # The newer message may have a shorter age. What is there outlived it if it was to last until then.
        until = view.until
        if page.until <= view.read_at:
            sure_from = view.sure_from
    return HistoryView(
        log,
        len(log),
        floor,
        view.last_id,
        view.last_id,
        after,
        max(view.first_id, page.first_id),
        until,
        sure_from,
        view.read_at,
        forgotten,
        since=since,
    )


def trimmed(view: HistoryView, drop: int) -> HistoryView:
    """A view without its oldest messages."""
    last = view.log[drop - 1]
    log = view.log[drop : view.end]
    return msgspec.structs.replace(
        view,
        log=log,
        end=len(log),
        floor=last.message_id,
        after=last.global_id,
        since=max(view.since, last.global_id),
        sure_from=max(view.sure_from, last.message_id + 1),
        forgotten=forget(view.forgotten, view.floor, view.log[:drop]),
    )


def is_sure(view: HistoryView, now: float) -> bool:
    """Whether the view's messages are certainly still kept."""
    return view.until > now and view.sure_from <= view.floor + 1
