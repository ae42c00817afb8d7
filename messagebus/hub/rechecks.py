"""Asks again what connected clients may have: when a grant ends, and from time to time where an option says so. In the
reactor's loop, but for the asking, which may block."""

from __future__ import annotations

import logging
import math
import random
import time
from collections import deque
from collections.abc import Callable, Collection
from functools import partial

from ..names import split_name, subscription_name
from ..wire import NEW_ONLY, Position
from .hub import Hub
from .subscribe_request import ChannelRefusal, SubscribeParams, SubscribeRequest, Verdict
from .subscriber import Phase, Subscriber
from .withdrawing import disconnect_all, withdraw

logger = logging.getLogger("messagebus.hub")

AT_ONCE = 4
"""Clients that are asked about at the same time. The others wait: all grants of a crowd may end together."""
SPREAD = 0.5
"""The least part of ``recheck_interval`` between two askings; how long it is, chance says, so that those who came
together are not asked about together for ever."""
AGAIN_SECONDS = 1
"""When a client may ask again for a channel whose grant has ended; it may have a newer one."""


class Standing:
    """What one client was allowed, and until when."""

    __slots__ = ("_due", "ask", "asks_at", "grants", "subscriber", "tick", "until")

    def __init__(self, subscriber: Subscriber, asks_at: float, due: Callable[[Standing], object]) -> None:
        self.subscriber = subscriber
        self.asks_at = asks_at
        """When everything is asked again, by the reactor's clock."""
        self.ask: Callable[[SubscribeRequest], Verdict]
        self.grants: tuple[str, ...] = ()
        """All that it has shown, the newest first."""
        self.until: dict[str, float] = {}
        """Channel, as the store names it -> when its grant ends, in Unix time."""
        self.tick = 0
        self._due = due

    def on_deadline(self) -> None:
        self._due(self)


class Rechecks:
    """See the module."""

    def __init__(self, hub: Hub, start: Callable[[Callable[[], object]], object]) -> None:
        """``start``: runs a call where it may block."""
        self._hub = hub
        self._start = start
        self._interval = hub.options.recheck_interval
        self._most_grants = hub.options.max_channels
        self._queue: deque[Standing] = deque()
        self._asking = 0

    def begin(self, subscriber: Subscriber, request: SubscribeRequest) -> None:
        """A subscriber has joined the channels of a request."""
        assert request.ask is not None, "there is somebody to ask"
        standing = subscriber.standing
        if not isinstance(standing, Standing):
            standing = subscriber.standing = Standing(subscriber, self._next_time(), self._due)
        standing.ask = request.ask
        standing.grants = tuple(dict.fromkeys((*request.params.grants, *standing.grants)))[: self._most_grants]
        for channel in request.params.positions:
            name = subscription_name(channel, request.site_id)
            standing.until.pop(name, None)
            if channel in request.until:
                standing.until[name] = request.until[channel]
        self._arm(standing)

    def _next_time(self) -> float:
        interval = self._interval
        return self._hub.reactor.clock() + interval * random.uniform(SPREAD, 1.0) if interval else math.inf

    def _arm(self, standing: Standing) -> None:
        ends = min(standing.until.values(), default=math.inf) - time.time()
        seconds = min(ends, standing.asks_at - self._hub.reactor.clock())
        if seconds < math.inf:
            self._hub.reactor.set_deadline(standing, max(0.0, seconds))

    # --- asking ---

    def _due(self, standing: Standing) -> None:
        self._queue.append(standing)
        self._work()

    def _work(self) -> None:
        while self._queue and self._asking < AT_ONCE:
            self._begin_to_ask(self._queue.popleft())

    def _begin_to_ask(self, standing: Standing) -> None:
        subscriber = standing.subscriber
        if subscriber.standing is not standing:
            return  # it has ended
        followed, now = subscriber.followed, time.time()
        standing.until = {name: ends for name, ends in standing.until.items() if name in followed}
        names: Collection[str] = [name for name, ends in standing.until.items() if ends <= now]
        if standing.asks_at <= self._hub.reactor.clock():
            standing.asks_at = self._next_time()
            names = followed
        elif not names:
            self._arm(standing)
            return
        positions = {split_name(name)[0]: Position(NEW_ONLY) for name in names}
        params = SubscribeParams(positions, grants=standing.grants, takes_refusals=True)
        request = SubscribeRequest(subscriber.identity, subscriber.site_id, params, subscriber.address)
        self._asking += 1
        try:
            self._start(partial(self._ask, standing, request, names))
        except RuntimeError:  # the system gives no thread: it is as if nobody had answered
            logger.warning("cannot ask again what a client may have: there is no thread for it")
            self._hub.reactor.call_soon(self._answered, standing, request.params.grants, names, None)

    def _ask(self, standing: Standing, request: SubscribeRequest, names: Collection[str]) -> None:
        """Where it may block."""
        verdict: Verdict | None = None
        try:
            verdict = standing.ask(request)
        except BaseException:  # gevent's timeouts, which a hook may have set, are no Exception
            logger.exception("cannot ask again what a client may have")
        self._hub.reactor.call_soon(self._answered, standing, request.params.grants, names, verdict)

    def _answered(
        self, standing: Standing, grants: tuple[str, ...], names: Collection[str], verdict: Verdict | None
    ) -> None:
        self._asking -= 1
        subscriber = standing.subscriber
        if subscriber.standing is standing and subscriber.state is Phase.OPEN:
            if verdict is not None and not verdict.is_same:
                disconnect_all(self._hub, [subscriber], "who this client is has changed", True)
            else:
                self._judge(standing, names, verdict, grants == standing.grants)
        self._work()

    def _judge(self, standing: Standing, names: Collection[str], verdict: Verdict | None, is_current: bool) -> None:
        """Take away what is refused. Where there was no answer the client keeps what it has, but for what a grant had
        allowed that is over. ``is_current``: it has shown no other grants meanwhile."""
        refusals: dict[str, ChannelRefusal] = {}
        followed, now = standing.subscriber.followed, time.time()
        for name in followed.intersection(names):
            channel = split_name(name)[0]
            refusal = None if verdict is None else verdict.refused.get(channel)
            has_ended = standing.until.get(name, math.inf) <= now
            if has_ended:
                del standing.until[name]
            if verdict is not None and refusal is None:
                if channel in verdict.until:
                    standing.until[name] = verdict.until[channel]
            elif has_ended:
                why = f"{channel}: its grant has expired"
                refusals[name] = ChannelRefusal("forbidden", why, True, AGAIN_SECONDS)
            elif refusal is not None and not refusal.retry and is_current:
                refusals[name] = refusal
        if not is_current and self._interval:
            standing.asks_at = self._hub.reactor.clock()
        self._arm(standing)
        withdraw(self._hub, standing.subscriber, refusals)
