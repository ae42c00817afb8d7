"""Subscriptions without an HTTP request: what a client asks for, as cursors; and what was read for it, as it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from messagebus.channel_rules import ChannelRule
from messagebus.hub.epochs import Epochs
from messagebus.hub.history import Cursor
from messagebus.hub.hub import Hub
from messagebus.hub.subscribe_request import SubscribeParams, SubscribeRequest, SubscriptionPlan
from messagebus.hub.subscriber import Identity


class _CursorRequest(SubscribeRequest):
    wants: list[Cursor]

    def cursors(self, epochs: Epochs, rules: Sequence[ChannelRule] = ()) -> list[Cursor]:
        return self.wants


def request_for(*wants: Cursor, epoch: str | None = None) -> SubscribeRequest:
    """A request that asks for exactly these."""
    request = _CursorRequest(Identity("c"), None, SubscribeParams({}, epoch))
    request.wants = list(wants)
    return request


class StubPlanner:
    """In a node's place, where the plan is known."""

    def __init__(self, hub: Hub, plan: Callable[[], SubscriptionPlan]) -> None:
        self.hub = hub
        self._plan = plan

    def plan(self, request: SubscribeRequest) -> SubscriptionPlan:
        return self._plan()
