"""Ends connections and subscriptions of certain clients before their time, because the application says so. On every
worker: the order is told to all of them. No HTTP.

A client is told with a refusal of each channel concerned, which clients that know refusals do not ask for again. Others
come back, and whoever authorizes subscriptions decides.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from ..names import of_channel, split_name
from ..option_kinds import overlaps
from .hub import Hub
from .orders import Order, read_order
from .subscribe_request import ChannelRefusal
from .subscriber import Phase, Subscriber
from .withdrawing import disconnect_all, refuse_all, withdraw


class Revoking:
    """Carries the orders out in one worker. In the reactor's loop only."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    def disconnect(self, told: Any) -> None:
        """End the connections of an order's clients."""
        order = read_order(told)
        if order is not None:
            found = self._find(order)
            self._remember(order, found)
            disconnect_all(self._hub, found, order.reason, order.reconnect)

    def unsubscribe(self, told: Any) -> None:
        """End the subscriptions of an order's clients to its channel. The others of the same connection go on."""
        order = read_order(told)
        if order is None:
            return
        found = self._find(order)
        self._remember(order, found)
        refusal = refusal_of(order)
        for subscriber in found:
            if subscriber.state is Phase.OPEN:  # who has yet to join is met when it does
                names = [name for name in subscriber.followed if ends(order, name)]
                withdraw(self._hub, subscriber, dict.fromkeys(names, refusal))

    def _remember(self, order: Order, found: set[Subscriber]) -> None:
        met = {subscriber.identity.client_id for subscriber in found if subscriber.state is not Phase.OPENING}
        self._hub.orders.remember(order, met)

    def _find(self, order: Order) -> set[Subscriber]:
        membership = self._hub.membership
        found = set[Subscriber]().union(
            *[membership.of_user(user_id) for user_id in order.user_ids],
            *[membership.of_client(client_id) for client_id in order.client_ids],
        )
        return {subscriber for subscriber in found if order.is_for(subscriber.site_id)}


def meet(
    hub: Hub, subscriber: Subscriber, orders: Sequence[Order], names: Collection[str]
) -> dict[str, ChannelRefusal] | None:
    """Carry out orders that were heard between a client's authorization and now, when it is about to join channels.
    Which of them it must not join, and is to be told of once it has joined the others; ``None``: it has been ended."""
    for order in orders:
        if not order.channel:
            if order.reconnect or subscriber.state is Phase.OPEN:
                disconnect_all(hub, [subscriber], order.reason, order.reconnect)
            else:
                refuse_all(hub, subscriber, names, refusal_of(order))
            return None
    return {name: refusal_of(order) for order in orders for name in names if ends(order, name)}


def ends(order: Order, name: str) -> bool:
    """Whether an order ends subscriptions to a channel, as the store names it."""
    return overlaps(order.channel, of_channel(split_name(name)[0]))


def refusal_of(order: Order) -> ChannelRefusal:
    """What a client is told of each channel that an order takes away."""
    if order.channel:
        return ChannelRefusal("unsubscribed", order.reason or "unsubscribed by the application")
    return ChannelRefusal("disconnected", order.reason or "disconnected by the application")
