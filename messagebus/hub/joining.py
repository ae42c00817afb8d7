"""How a subscriber becomes live on its channels, on every transport: wait for the feed if needed, join, catch up.

Runs in the reactor's loop. ``Node.plan`` has read from the store before; if that has to be repeated, it happens outside
of the loop, where it may block."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

from ..errors import RESYNC, BackendUnavailable, BusClosed
from .hub import Hub
from .revoking import meet
from .subscribe_request import ChannelRefusal, SubscribeRequest, SubscriptionPlan
from .subscriber import Phase, Subscriber
from .withdrawing import tell_refused

logger = logging.getLogger("messagebus.hub")

AGAIN_MS, STORE_AWAY_MS = 200, 2000
"""When a subscriber that is sent back may come again: after what passes by itself, and where the store is away."""
MAX_PLANS = 4
"""How many times a subscriber's backlog is read because its window moved, before the client is told to reconnect."""


class MakesPlans(Protocol):
    """The part of a node that subscriptions need."""

    @property
    def hub(self) -> Hub: ...

    def plan(self, request: SubscribeRequest) -> SubscriptionPlan:
        """Read what is needed to know what is due. May block. Raises ``BackendUnavailable``, or ``BusClosed`` if the
        hub is ending."""


class Join:
    """A subscriber that is joining the channels of a plan. It is told to reconnect if the feed does not come as far as
    it has seen, or if its window keeps moving."""

    __slots__ = ("_joined", "_node", "_plan", "_plans", "_subscriber")

    def __init__(
        self, node: MakesPlans, subscriber: Subscriber, plan: SubscriptionPlan, joined: Callable[[], None]
    ) -> None:
        """``joined``: called when the subscriber may catch up, to give it the first piece in the same turn."""
        self._node = node
        self._subscriber = subscriber
        self._plan = plan
        self._joined = joined
        self._plans = 1

    def start(self) -> None:
        self._node.hub.feed_wait.when_over(self._plan.seen, self._subscriber, self._reached)

    def _reached(self, _: Subscriber) -> None:
        hub = self._node.hub
        lost = self._meet_orders() if hub.orders else {}
        if lost is None:
            return
        plan = self._plan
        ahead = not hub.feed_wait.is_over(plan.seen)
        # What was planned for another epoch says nothing of where the client stands in this one.
        if (
            not ahead
            and hub.windows.is_of_now(plan.epoch, [cursor.name for cursor in plan.cursors])
            and hub.due.catch_up_on(self._subscriber, plan.cursors, plan.pages)
        ):
            if plan.watches or plan.request.params.members:
                hub.attend(self._subscriber, plan.watches, plan.request.params.members)
            if plan.request.ask is not None:
                hub.recheck(self._subscriber, plan.request)
            self._joined()
            tell_refused(self._subscriber, lost)
        elif ahead or self._plans == MAX_PLANS:
            hub.endings.end(self._subscriber, RESYNC, AGAIN_MS)
        else:
            self._plans += 1
            hub.reactor.spawn(self._plan_again)

    def _meet_orders(self) -> dict[str, ChannelRefusal] | None:
        """Carry out what the application has ordered since the request was allowed. The channels that it does not get;
        ``None``: its connection has been ended."""
        hub, subscriber, plan = self._node.hub, self._subscriber, self._plan
        orders = hub.orders.since(plan.request.began, subscriber.identity, subscriber.site_id)
        names = {*(cursor.name for cursor in plan.cursors), *plan.watches}
        lost = meet(hub, subscriber, orders, names)
        if lost:
            self._plan = plan.without(lost)
        return lost

    def _plan_again(self) -> None:
        hub = self._node.hub
        if self._subscriber not in hub.membership:
            return  # it has gone while others were read for
        try:
            hub.reactor.call_soon(self._start_again, self._node.plan(self._plan.request))
        except BaseException as error:  # gevent's timeouts are no Exception
            if not isinstance(error, (BackendUnavailable, BusClosed)):
                logger.exception("cannot read what a subscriber is due")
            hub.reactor.call_soon(hub.endings.end, self._subscriber, RESYNC, STORE_AWAY_MS)

    def _start_again(self, plan: SubscriptionPlan) -> None:
        if self._subscriber in self._node.hub.membership:
            self._plan = plan
            self.start()


def join_when_ready(node: MakesPlans, subscriber: Subscriber, plan: SubscriptionPlan) -> None:
    """Register a new subscriber, and make it live on the channels of its request."""
    hub = node.hub

    def begin() -> None:
        catch_up = subscriber.catch_up
        if catch_up is not None:
            catch_up.notices = plan.request.notices()
            epoch = hub.windows.epoch_for(catch_up.names)
            catch_up.say_epoch = plan.request.lacks_epoch(epoch, subscriber.transport.tells_epoch)
        subscriber.knows_epoch = subscriber.transport.tells_epoch or plan.request.params.epoch is not None
        hub.pacer.proceed(subscriber)
        if subscriber.state is Phase.OPENING:
            hub.hold_open(subscriber)
            subscriber.on_live()

    subscriber.transport = hub.spread(subscriber.transport, [cursor.name for cursor in plan.cursors])
    subscriber.outdated = hub.windows.epochs.outdated(plan.request.params.epoch)
    if hub.add(subscriber):
        Join(node, subscriber, plan, begin).start()
