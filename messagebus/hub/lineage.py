"""Whether a position of a former epoch still holds in the present one, which has a part of it. Pure.

The store says up to which global id the two have the same messages. For a position that is a global id that is all. For
a message id one has to know the global id of that message, or that it is not one of those that came later.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ..stores import BacklogQuery
from .history import Cursor, HistoryView

NO_LINEAGE: Mapping[str, int] = {}


def in_lineage(want: Cursor, shared: int) -> Cursor:
    """A cursor of an epoch of which the present one has everything up to ``shared``. What it alone does not tell is
    left to :func:`judged`."""
    if not want.stale or (want.after is not None and want.after > shared):
        return want
    if want.position <= 0:
        return _valid(want)
    if want.channel.endswith("*"):  # its ids are global ids
        return want if want.position > shared else _valid(want)
    return want._replace(shared=shared)


def judged(
    wants: Sequence[Cursor],
    known: Callable[[str], HistoryView | None],
    read: Callable[[list[BacklogQuery]], Mapping[str, HistoryView]],
) -> list[Cursor]:
    """The same cursors, each of them valid or stale. ``known``: what this process remembers of a channel. ``read``:
    reads from the store."""
    decided = [_by_view(want, known(want.name)) for want in wants]
    # The message itself, where it is kept.
    queries = [BacklogQuery(want.name, want.position - 1) for want in decided if want.shared is not None]
    if not queries:
        return decided
    pages = read(queries)
    decided = [_by_view(want, pages.get(want.name)) for want in decided]
    return [want._replace(shared=None) for want in decided]  # nobody can say any more: stale


def _by_view(want: Cursor, view: HistoryView | None) -> Cursor:
    if want.shared is None or view is None:
        return want
    holds = is_shared(view, want.position, want.shared)
    if holds is None:
        return want
    return _valid(want) if holds else want._replace(shared=None)


def is_shared(view: HistoryView, position: int, shared: int) -> bool | None:
    """Whether a channel's message has a global id up to ``shared``. ``None``: the view does not tell."""
    if position > view.last_id:
        return None
    index = view.index_after(position - 1)
    if index < view.end:
        found = view.log[index]
        if found.global_id <= shared:
            return True
        if found.message_id == position:
            return False
    return True if view.since <= shared else None


def _valid(want: Cursor) -> Cursor:
    return want._replace(stale=False, strict=True, shared=None)
