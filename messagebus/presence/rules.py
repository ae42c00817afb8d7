"""What a program says of rooms: who is a member, and what is called when one comes or goes. One for each bus."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..names import of_channel, split_name
from ..option_kinds import matches
from .member import Member

if TYPE_CHECKING:
    from werkzeug.wrappers import Request

Rule = Callable[["Request", str], Any]
"""Request and channel -> the member that its client is; ``None``: none."""
Hook = Callable[[str, Member], object]
"""Called with the channel and the member."""
Noticed = tuple[str, Hook]
"""A pattern of channels, and what is called."""


class PresenceRules:
    """See the module. Register all before serving."""

    def __init__(self) -> None:
        self._rules: list[tuple[str, Rule]] = []
        self.on_join: list[Noticed] = []
        self.on_leave: list[Noticed] = []

    def __bool__(self) -> bool:
        return bool(self._rules)

    def add(self, pattern: str, rule: Rule) -> None:
        self._rules.append((pattern, rule))

    def find(self, channel: str) -> Rule | None:
        """The rule of a channel: the first whose pattern matches."""
        return next((rule for pattern, rule in self._rules if matches(pattern, channel)), None)

    @property
    def hooked(self) -> list[str]:
        """The patterns of the channels whose members somebody wants to hear of."""
        return [pattern for pattern, _ in (*self.on_join, *self.on_leave)]

    def is_hooked(self, room: str) -> bool:
        """Whether somebody wants to hear of a room's members."""
        return is_among(self.hooked, room) if self.on_join or self.on_leave else False

    def hooks(self, room: str, joined: bool) -> list[Hook]:
        """What is to be called when a member of a room comes or goes."""
        channel = channel_of(room)
        return [hook for pattern, hook in (self.on_join if joined else self.on_leave) if matches(pattern, channel)]


def is_among(patterns: list[str], room: str) -> bool:
    """Whether one of the patterns matches a room's channel."""
    channel = channel_of(room)
    return any(matches(pattern, channel) for pattern in patterns)


def channel_of(room: str) -> str:
    return of_channel(split_name(room)[0])
