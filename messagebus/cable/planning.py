"""Reads what a subscription's streams are due, from where AnyCable's clients say that they stand. No wire."""

from __future__ import annotations

from typing import NamedTuple

from ..http.authorization import Handshake, with_members
from ..hub.subscribe_request import SubscribeParams, SubscribeRequest, SubscriptionPlan
from ..hub.subscriber import Identity
from ..names import subscription_name
from ..wire import Position
from .cable import Cable
from .commands import History
from .subscription import Positions


class Plans(NamedTuple):
    """What was read for the streams of a subscription."""

    plans: list[SubscriptionPlan]
    """One for each life of the store that the client's positions are of."""
    is_whole: bool
    """Whether it is known for all of them where the client stands."""


class Planner(NamedTuple):
    """For one connection. From the thread of a call; may block and raise."""

    cable: Cable
    handshake: Handshake
    identity: Identity
    site_id: str | None

    def plan(self, positions: Positions, history: History) -> Plans:
        """``positions``: where the class begins; ``history`` comes first."""
        by_epoch: dict[str | None, dict[str, Position]] = {}
        is_whole = True
        for channel, position in positions.items():
            # None: that which is in force.
            epoch, message_id = history.positions.get(channel, (None, None))
            if message_id is not None:
                position = Position(message_id)
            elif history.since is not None and position == Position():
                global_id = self.cable.global_id_at(history.since, subscription_name(channel, self.site_id))
                position = Position(global_id=global_id)
                is_whole = is_whole and global_id is not None
            by_epoch.setdefault(epoch, {})[channel] = position
        return Plans([self._plan(asked, epoch) for epoch, asked in by_epoch.items()], is_whole)

    def watch(self, room: str) -> Plans:
        """Who is in a room, and who comes and goes from then on."""
        return Plans([self._plan({room: Position()}, None)], True)

    def _plan(self, asked: dict[str, Position], epoch: str | None) -> SubscriptionPlan:
        node = self.cable.node
        if epoch is None:
            epoch = node.hub.windows.epoch_for([subscription_name(channel, self.site_id) for channel in asked])
        request = SubscribeRequest(self.identity, self.site_id, SubscribeParams(asked, epoch))
        if node.access.presence:
            with self.handshake.entered() as shown:
                request = with_members(node, shown, request)
        return node.plan(request)
