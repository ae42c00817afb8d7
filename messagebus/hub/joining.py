"""How a subscriber comes to be live on channels, on every transport: wait for the feed where needed, join, be given
what is due.

In the reactor's loop; what has to be read from the store was read before (``Node.plan``), and is read again where that
may block."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

from ..errors import FEED_LOST, BackendUnavailable, BusClosed
from .hub import Hub
from .subscribe_request import SubscribeRequest, SubscriptionPlan
from .subscriber import Phase, Subscriber

logger = logging.getLogger("messagebus.hub")

AGAIN_MS, STORE_AWAY_MS = 200, 2000
"""When a subscriber that is sent back may come again: after what passes by itself, and where the store is away."""
MAX_PLANS = 4
"""Plans of one subscription, where the window has moved on each time before it was carried out; then the subscriber is
sent back."""


class Planner(Protocol):
    """A node, as far as subscriptions need one."""

    @property
    def hub(self) -> Hub: ...

    def plan(self, request: SubscribeRequest) -> SubscriptionPlan:
        """Read what it takes to tell what is due now. May block; raises ``BackendUnavailable``, or ``BusClosed`` where
        the hub is ending."""


class Join:
    """A subscriber on its way into the channels of a plan. It is sent back where the feed does not come as far as it
    has seen, or too much happens meanwhile."""

    __slots__ = ("_joined", "_node", "_plan", "_plans", "_subscriber")

    def __init__(
        self, node: Planner, subscriber: Subscriber, plan: SubscriptionPlan, joined: Callable[[], None]
    ) -> None:
        """``joined``: called when it catches up on them, to give it the first piece in the same turn."""
        self._node = node
        self._subscriber = subscriber
        self._plan = plan
        self._joined = joined
        self._plans = 1

    def start(self) -> None:
        self._node.hub.when_reached(self._plan.global_id, self._subscriber, self._reached)

    def _reached(self, _: Subscriber) -> None:
        hub, plan = self._node.hub, self._plan
        ahead = plan.global_id > hub.global_id
        if not ahead and hub.join(self._subscriber, plan.cursors, plan.pages):
            self._joined()
        elif ahead or self._plans == MAX_PLANS:
            hub.leaving.end(self._subscriber, FEED_LOST, AGAIN_MS)
        else:
            self._plans += 1
            hub.reactor.spawn(self._plan_anew)

    def _plan_anew(self) -> None:
        hub = self._node.hub
        if self._subscriber not in hub.membership:
            return  # it has gone while others were read for
        try:
            hub.reactor.call_soon(self._start_anew, self._node.plan(self._plan.request))
        except BaseException as error:  # gevent's timeouts are no Exception
            if not isinstance(error, (BackendUnavailable, BusClosed)):
                logger.exception("what a subscriber is due cannot be read")
            hub.reactor.call_soon(hub.leaving.end, self._subscriber, FEED_LOST, STORE_AWAY_MS)

    def _start_anew(self, plan: SubscriptionPlan) -> None:
        if self._subscriber in self._node.hub.membership:
            self._plan = plan
            self.start()


def take_in(node: Planner, subscriber: Subscriber, plan: SubscriptionPlan) -> None:
    """Count a new subscriber in, and make it live on what its request asked for."""
    hub = node.hub

    def begin() -> None:
        catch_up = subscriber.catch_up
        if catch_up is not None:
            catch_up.notices = plan.request.notices()
            catch_up.say_epoch = plan.request.lacks_epoch(hub.epoch, subscriber.transport.tells_epoch)
        hub.pacer.proceed(subscriber)
        if subscriber.state is Phase.OPENING:
            hub.set_live(subscriber)
            subscriber.on_live()

    if hub.add(subscriber):
        Join(node, subscriber, plan, begin).start()
