"""Subscriptions to all channels that begin alike. No subscribers, no sockets.

A pattern is to the rest of the hub one more channel, whose messages are those of all that it matches, and whose ids are
their global ids. Its backlog is what the store's global backlog has of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from ..message import Message
from ..names import PATTERN_MARK, split_name
from ..stores import BacklogPage, BacklogQuery, StoreState
from .history import MIN_AGE


class Pattern(NamedTuple):
    """What a pattern's messages have in common."""

    prefix: str
    site_id: str | None

    @classmethod
    def of(cls, name: str) -> Pattern | None:
        """That of a subscription's name; ``None``: it is a channel's."""
        if not name.startswith(PATTERN_MARK):
            return None
        channel, site_id = split_name(name)
        return cls(channel[:-1], site_id)

    def has(self, name: str) -> bool:
        """Whether it matches a channel, as the store names it."""
        channel, site_id = split_name(name)
        return site_id == self.site_id and channel.startswith(self.prefix)

    def matches(self, message: Message) -> bool:
        return message.site_id == self.site_id and message.channel.startswith(self.prefix)


class PatternMessage(Message, gc=False):
    """A message as one of a pattern's: with its global id for its id. Subscribers get the original."""

    original: Message | None = None

    @classmethod
    def of(cls, message: Message) -> PatternMessage:
        return cls(
            message.global_id,
            message.global_id,
            message.channel,
            message.raw,
            message.site_id,
            message.user_ids,
            message.group_ids,
            message.client_ids,
            message.kept,
            message.exclude_client_ids,
            message.trace,
            message.sender,
            original=message,
        )

    @property
    def json(self) -> bytes:
        assert self.original is not None
        return self.original.json

    @property
    def parts(self) -> tuple[bytes, ...]:
        assert self.original is not None
        return self.original.parts


class Source(Protocol):
    """What is needed of a store."""

    def backlogs(self, queries: Sequence[BacklogQuery], max_bytes: int) -> list[BacklogPage]: ...

    def global_backlog(self, after: int = 0) -> list[Message]: ...

    def state(self) -> StoreState: ...


class PatternBacklogs:
    """Reads backlogs of channels and patterns. Safe from any thread; may block and raise as the store does."""

    def __init__(self, store: Source) -> None:
        self._store = store

    def backlogs(self, queries: Sequence[BacklogQuery], max_bytes: int) -> list[BacklogPage]:
        """See ``Store.backlogs``. All patterns together cost one reading of the global backlog, from where the first of
        them begins, and a second one where something is gone from there."""
        patterns = {query: pattern for query in queries if (pattern := Pattern.of(query.name)) is not None}
        if not patterns:
            return self._store.backlogs(queries, max_bytes)
        channels = [query for query in queries if query not in patterns]
        pages = dict(zip(channels, self._store.backlogs(channels, max_bytes), strict=True)) if channels else {}
        # The state first: of all up to it, what is kept is in what is read afterwards.
        last_id = self._store.state().global_id
        begins = {query: query.after if query.after >= 0 else max(last_id + query.after, 0) for query in patterns}
        first = min(begins.values())
        kept = self._store.global_backlog(first) if first < last_id else []
        last_id = max(last_id, kept[-1].global_id if kept else 0)
        first_id = 1  # no older one is asked for
        if first < last_id and (not kept or kept[0].global_id > first + 1):
            everything = self._store.global_backlog()
            first_id = everything[0].global_id if everything else last_id + 1
        for query, pattern in patterns.items():
            pages[query] = _page(pattern, kept, begins[query], last_id, first_id, max_bytes)
        return [pages[query] for query in queries]


def _page(
    pattern: Pattern, kept: Sequence[Message], after: int, last_id: int, first_id: int, max_bytes: int
) -> BacklogPage:
    messages: list[Message] = []
    size, through = 0, last_id
    for message in kept:
        if message.global_id <= after or not pattern.matches(message):
            continue
        messages.append(PatternMessage.of(message))
        size += len(message.raw)
        if size >= max_bytes:
            through = message.global_id
            break
    # How long they are kept is their channels' matter: this is not known for longer than for any message.
    return BacklogPage(messages, after, through, last_id, first_id, MIN_AGE)
