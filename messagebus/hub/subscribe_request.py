"""A subscription in progress: what a client asks for, and what was read to answer it. Values; they keep no part of the
HTTP request."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

from ..channel_rules import ChannelRule, is_stored
from ..message import Message, refused_message
from ..names import is_presence, split_name, subscription_name
from ..presence.member import Member
from ..stores.partitions import partition_of
from ..wire import NEW_ONLY, Position
from .epochs import Epochs
from .history import Cursor, HistoryView
from .lineage import in_lineage
from .subscriber import Identity


class ChannelRefusal(NamedTuple):
    """Why a client does not get a channel that it has asked for."""

    code: str
    """For programs; see docs/protocol.md."""
    message: str
    retry: bool = False
    """Whether waiting helps; otherwise a person has to act."""
    retry_after: float | None = None
    """Seconds, where that is known."""

    def to_json(self) -> dict[str, Any]:
        told = {"code": self.code, "message": self.message, "retry": self.retry}
        return told if self.retry_after is None else {**told, "retry_after": self.retry_after}


class SubscribeParams(NamedTuple):
    """The content of a well-formed request."""

    positions: Mapping[str, Position]
    """By channel, as the client names it."""
    epoch: str | None = None
    """The epoch of the client's positions; empty if it has none yet, ``None`` if the client does not know epochs."""
    sequence: int | None = None
    """The ``__seq`` of a poll."""
    grants: tuple[str, ...] = ()
    takes_refusals: bool = False
    """Whether the client is told of channels that are refused one by one; otherwise one fails the request."""
    refused: Mapping[str, ChannelRefusal] = {}
    """By channel, and so not among ``positions``."""
    members: Mapping[str, Member] = {}
    """Who the client is in the rooms of these channels."""
    resumed_at: Sequence[int] | None = ()
    """Global ids up to which it has everything, each in its partition (``Last-Event-ID``). ``None``: there were too
    many of them, and nothing is known of what it has."""
    outdated: Collection[int] = ()
    """Partitions of which the client's positions are of another life, whatever epoch it has been told since."""

    def refuse(self, refused: Mapping[str, ChannelRefusal]) -> SubscribeParams:
        """The same without these channels."""
        if not refused:
            return self
        positions = {channel: position for channel, position in self.positions.items() if channel not in refused}
        return self._replace(positions=positions, refused={**self.refused, **refused})


class Verdict(NamedTuple):
    """What comes out where a client is looked at again."""

    refused: Mapping[str, ChannelRefusal]
    """The channels that it may not have any more, by the names that it has for them."""
    until: Mapping[str, float]
    """See ``SubscribeRequest.until``."""
    is_same: bool = True
    """Whether it still is who it was: the same user, groups and site."""


class SubscribeRequest(NamedTuple):
    """What one client asks for: its identity, its site, the content of its request, and where it comes from."""

    identity: Identity
    site_id: str | None
    params: SubscribeParams
    address: str = ""
    began: float = math.inf
    """When it was asked for, by the reactor's clock: what was allowed then may have been taken away since. Infinite: it
    is nobody's request, and the server itself has just decided."""
    until: Mapping[str, float] = {}
    """When the grant of a channel ends, in Unix time; channels that no grant allows are not there."""
    ask: Callable[[SubscribeRequest], Verdict] | None = None
    """Asks again who the client is and what it may have. Blocks. ``None``: what it was allowed holds."""

    def cursors(self, epochs: Epochs, rules: Sequence[ChannelRule] = ()) -> list[Cursor]:
        """What it asks for, channel by channel, in the present life of the store.

        A position of an epoch in the lineage of the present one may still hold: ``hub.lineage`` finds out.
        ``rules``: those that may say of a channel that it is not stored. Nobody is given what was there before, but who
        comes back with a position is given what it has missed."""
        known, partitions = epochs.named(self.params.epoch), len(epochs)
        resumed_at, is_lost = self.params.resumed_at or (), self.params.resumed_at is None
        cursors = []
        for channel, position in self.params.positions.items():
            if is_presence(channel):
                continue
            name = subscription_name(channel, self.site_id)
            partition = partition_of(name, partitions)
            for seen in resumed_at:
                if seen % partitions == partition:
                    position = position.resumed_at(seen)
            message_id, global_id = position
            knows_something = is_lost or message_id >= 0 or global_id is not None
            epoch = known[partition]
            stale = known.is_over(partition) or partition in self.params.outdated
            shared = known.shared(partition) if stale and partition not in self.params.outdated else None
            if global_id is not None and global_id >= partitions and global_id % partitions != partition:
                stale, shared = True, None  # an id of elsewhere, which says nothing of this channel
            if is_lost:
                stale, shared = True, None
            strict = bool(epoch) and not stale
            least = 0 if epoch else 1  # who knows the epoch may have come before the first message
            if rules and not stale and message_id < least and not is_stored(rules, channel):
                message_id = NEW_ONLY
            if channel.endswith("*") and knows_something:  # its ids are global ids
                message_id = global_id = max(message_id, global_id or 0)
            want = Cursor(channel, name, message_id, global_id, stale and knows_something, strict)
            cursors.append(want if shared is None else in_lineage(want, shared))
        return cursors

    def watches(self) -> dict[str, int]:
        """The rooms that it watches, by their names, and the versions of them that it knows."""
        return {
            subscription_name(channel, self.site_id): position.message_id
            for channel, position in self.params.positions.items()
            if is_presence(channel)
        }

    def notices(self) -> list[Message]:
        """What the client is told of the request itself, in the first batch."""
        refused = self.params.refused
        return [refused_message({name: why.to_json() for name, why in refused.items()})] if refused else []

    def lacks_epoch(self, epoch: str | None, unasked: bool) -> bool:
        """Whether the client has to be told the epoch of its channels: it named another one, or none and is told
        ``unasked``."""
        known = self.params.epoch
        return (unasked or known is not None) and epoch is not None and known != epoch


class SubscriptionPlan(NamedTuple):
    """What had to be read before a subscriber can be told what it is due."""

    request: SubscribeRequest
    cursors: Sequence[Cursor]
    pages: Mapping[str, HistoryView]
    """Channel, as the store names it -> what was read of its backlog."""
    seen: Sequence[int]
    """The subscriber has seen messages up to these global ids elsewhere: this process has to get there first."""
    watches: Mapping[str, int] = {}
    """Rooms that it watches -> versions of them that it knows."""
    epoch: str | None = None
    """The epoch of the store that the cursors were made for."""

    def without(self, names: Collection[str]) -> SubscriptionPlan:
        """The same without these channels, as the store names them."""
        request = self.request
        gone = {split_name(name)[0] for name in names}
        members = {channel: member for channel, member in request.params.members.items() if channel not in gone}
        return self._replace(
            request=request._replace(params=request.params._replace(members=members)),
            cursors=[cursor for cursor in self.cursors if cursor.name not in names],
            watches={name: version for name, version in self.watches.items() if name not in names},
        )
