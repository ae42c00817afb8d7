"""Whom the messages were for that a window no longer holds. Pure.

A client that comes back from before the window's beginning has missed something only if one of the forgotten messages
was for it. Of those that were not for everybody a few bytes are kept, for each user, group and client that they were
for.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Protocol

from ..message import Message, id_key

MOST_TARGETS = 1000
"""Users, groups and clients of one channel; where there are more, what was forgotten counts as for everybody."""


class Reader(Protocol):
    """Who comes back."""

    @property
    def client_id(self) -> str: ...
    @property
    def user_id(self) -> bytes | None: ...
    @property
    def group_ids(self) -> frozenset[bytes]: ...


class Forgotten(NamedTuple):
    """Every message with ``after < id <= through`` is accounted for. Never changes, but that what is said of targets
    may come to include later messages."""

    after: int
    through: int
    for_all: int
    """The last of them that was for everybody; 0: none was."""
    targets: dict[tuple[str, bytes | str], int]
    """The last of them for each user, group or client."""
    all_but: dict[frozenset[str], int]
    """The last of them that was for everybody but these clients."""

    def had_any_for(self, reader: Reader, position: int) -> bool:
        """Whether one of the messages after a position may have been for a reader."""
        if position < self.after or self.for_all > position:
            return True
        last = self.targets.get(("client", reader.client_id), 0)
        if reader.user_id is not None:
            last = max(last, self.targets.get(("user", reader.user_id), 0))
        for group in reader.group_ids:
            last = max(last, self.targets.get(("group", group), 0))
        if last > position:
            return True
        return any(last > position and reader.client_id not in excluded for excluded, last in self.all_but.items())


def forget(known: Forgotten | None, floor: int, messages: Sequence[Message]) -> Forgotten | None:
    """What is known after some more messages, all that there were above ``floor``, have been forgotten."""
    if not messages:
        return known
    if known is None or known.through < floor:
        known = Forgotten(floor, floor, 0, {}, {})
    for_all, targets, all_but = known.for_all, known.targets, known.all_but
    for message in messages:
        if message.kept is False:
            continue  # a filter has kept it from everybody
        if message.user_ids is message.group_ids is message.client_ids is None:
            if message.exclude_client_ids is None:
                for_all = message.message_id
            else:
                all_but[frozenset(message.exclude_client_ids)] = message.message_id
            continue
        for target in _targets(message):
            targets[target] = message.message_id
    for_all = max(for_all, known.for_all)
    through = max(known.through, messages[-1].message_id)
    if len(targets) + sum(map(len, all_but)) > MOST_TARGETS:
        return Forgotten(min(known.after, floor), through, through, {}, {})
    return Forgotten(min(known.after, floor), through, for_all, targets, all_but)


def _targets(message: Message) -> Iterable[tuple[str, Any]]:
    if message.client_ids is not None:  # for these at most, whatever else it says
        yield from (("client", client_id) for client_id in message.client_ids)
        return
    yield from (("user", id_key(user_id)) for user_id in message.user_ids or ())
    yield from (("group", id_key(group_id)) for group_id in message.group_ids or ())
