"""A subscription on its way: what a client asks for, and what was read to answer it. Values; they keep nothing of the
HTTP request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ..message import store_name
from ..wire import Position
from .recovery import Cursor
from .subscriber import Identity
from .window import BacklogSnapshot


class SubscribeParams(NamedTuple):
    """What a well-formed request says."""

    positions: Mapping[str, Position]
    """By channel, as the client names it."""
    epoch: str | None = None
    """The one that the client's positions are of; empty where it has none yet, ``None`` where it knows of none."""
    sequence: int | None = None
    """The ``__seq`` of a poll."""
    grants: tuple[str, ...] = ()


class SubscribeRequest(NamedTuple):
    """What one client asks for: who it is, on which site, and what it says."""

    identity: Identity
    site_id: str | None
    params: SubscribeParams

    def cursors(self, store_epoch: str | None) -> list[Cursor]:
        """What it asks for, channel by channel, in the present life of the store."""
        epoch = self.params.epoch
        stale = bool(epoch and store_epoch and epoch != store_epoch)
        strict = bool(epoch) and not stale
        cursors = []
        for channel, (message_id, global_id) in self.params.positions.items():
            knows_something = message_id >= 0 or global_id is not None
            name = store_name(channel, self.site_id)
            cursors.append(Cursor(channel, name, message_id, global_id, stale and knows_something, strict))
        return cursors

    def lacks_epoch(self, store_epoch: str | None, unasked: bool) -> bool:
        """Whether the client has to be told the store's epoch: it named another one, or none and is told
        ``unasked``."""
        known = self.params.epoch
        return (unasked or known is not None) and store_epoch is not None and known != store_epoch


class SubscriptionPlan(NamedTuple):
    """What had to be read before a subscriber can be told what it is due."""

    request: SubscribeRequest
    cursors: Sequence[Cursor]
    snapshots: dict[str, BacklogSnapshot]
    """Channel, as the store names it -> what was read of it."""
    global_id: int
    """The subscriber has seen messages up to this one elsewhere: this process has to get there first."""
