"""The processing of a request: the steps that all transports share. No Flask."""

from __future__ import annotations

import math
import time

from werkzeug.wrappers import Request

from ..errors import BusClosed
from ..hub.node import Node
from ..hub.revoking import ends, refusal_of
from ..hub.subscribe_request import SubscribeParams, SubscribeRequest, SubscriptionPlan
from ..hub.subscriber import Identity
from ..message import Message, before_status
from ..names import subscription_name
from ..presence.member import room_name
from . import parsing
from .addresses import client_address
from .authorization import Handshake, HookContext, asks_anybody, authorize
from .command import Caller
from .refusals import count_refused, unavailable

POLL_SECONDS = 60.0
"""The longest that our clients wait between two polls that are not held (``backgroundCallbackInterval``)."""


class RequestContext:
    """A request to the bus. Its methods are the steps, in their order."""

    def __init__(self, node: Node, request: Request, client_id: str, hook_context: HookContext) -> None:
        self.node = node
        self.options = node.options
        self.request = request
        self.client_id = client_id
        self._hook_context = hook_context

    def admit(self, params: SubscribeParams) -> SubscribeRequest:
        """Identify the client, and decide which of its channels it may have."""
        if self.node.access.off:
            raise unavailable("the bus is off")
        began = self.node.reactor.clock()
        identity, site_id = parsing.identify(self.request, self.client_id, self.options)
        count_refused(self.node.hub.refused, params.refused)
        if self.node.hub.orders:
            params = _meet_missed(self.node, identity, site_id, params)
        address = client_address(self.request.environ, self.options.trusted_proxies)
        return authorize(self.node, self.request, SubscribeRequest(identity, site_id, params, address, began))

    def caller(self) -> Caller:
        """The client, for a command that this request brings."""
        if self.node.access.off:
            raise unavailable("the bus is off")
        identity, site_id = parsing.identify(self.request, self.client_id, self.options)
        address = client_address(self.request.environ, self.options.trusted_proxies)
        handshake = Handshake.of(self.request, self._hook_context, ()) if self.node.guests else None
        return Caller(self.node, identity, site_id, address, handshake=handshake, request=self.request)

    def plan(self, subscribe: SubscribeRequest) -> SubscriptionPlan:
        """Read what is needed to know what is due."""
        try:
            return self.node.plan(subscribe)
        except BusClosed:
            raise unavailable("the server is shutting down, come back") from None

    def due_now(self, plan: SubscriptionPlan) -> list[Message]:
        """The answer of a poll that is not held."""
        hub, subscribe = self.node.hub, plan.request
        while True:
            names = [cursor.name for cursor in plan.cursors]
            tells_epoch = subscribe.lacks_epoch(hub.windows.epoch_for(names), unasked=False)
            batch = None
            if hub.windows.is_of_now(plan.epoch, names):
                batch = hub.due.at_once(plan.cursors, plan.pages, subscribe.identity, tells_epoch)
            if batch is not None:
                due = self.node.presence.due(plan.watches) if plan.watches else ()
                return before_status([*subscribe.notices(), *batch], due)
            plan = self.plan(subscribe)

    def answered(self, plan: SubscriptionPlan, may_be_held: bool) -> None:
        """A poll was answered at once: it replaces older ones, and its client is there until its next poll is
        overdue."""
        node, params = self.node, plan.request.params
        if params.sequence is not None:
            node.reactor.call_soon(node.hub.replace, self.client_id, params.sequence)
        grace = self.options.presence_grace
        seconds = grace if may_be_held else grace + POLL_SECONDS
        node.viewers.polled((cursor.name for cursor in plan.cursors), self.client_id, seconds)
        if params.members:
            site_id = plan.request.site_id
            members = {room_name(channel, site_id): member for channel, member in params.members.items()}
            node.presence.polled(members, self.client_id, seconds)

    def with_ask(self, plan: SubscriptionPlan, seconds: float) -> SubscriptionPlan:
        """The plan, and how its request is asked again, if something of it may end within so many seconds, for which
        the connection lasts."""
        options, subscribe = self.options, plan.request
        soonest = min([ends - time.time() for ends in subscribe.until.values()], default=math.inf)
        if options.recheck_interval:
            soonest = min(soonest, options.recheck_interval)
        if soonest >= seconds:
            return plan
        handshake = Handshake.of(self.request, self._hook_context, subscribe.params.grants)
        return plan._replace(request=handshake.with_ask(self.node, subscribe))

    def handshake(self, params: SubscribeParams) -> Handshake | None:
        """What the app's hooks are asked with for later commands of a WebSocket; ``None`` if there are none."""
        if not (asks_anybody(self.node) or self.node.access.asks_publishers or self.node.guests):
            return None
        return Handshake.of(self.request, self._hook_context, params.grants)


def _meet_missed(node: Node, identity: Identity, site_id: str | None, params: SubscribeParams) -> SubscribeParams:
    """Refuse a poll what the application has taken away since the same client's last one. Who is to be identified again
    has just been."""
    if not params.takes_refusals or params.sequence is None or params.sequence < 2:
        return params
    orders = [order for order in node.hub.orders.missed(identity, site_id) if not order.reconnect]
    return params.refuse(
        {
            channel: refusal_of(order)
            for order in orders
            for channel in params.positions
            if not order.channel or ends(order, subscription_name(channel, site_id))
        }
    )
