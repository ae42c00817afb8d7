"""How a subscriber comes to be live on channels, on every transport: wait for the feed where needed, join, be given
what is due.

In the reactor's loop; what has to be read from the store was read before (``Node.prepare``), and is read again where
that may block."""

from __future__ import annotations

import logging
from collections.abc import Callable

from ..errors import FEED_LOST, BackendUnavailable, BusClosed
from ..transports import join_batch
from .hub import Hub
from .node import SubscriptionPlan
from .recovery import CatchUp
from .subscriber import Phase, Subscriber

logger = logging.getLogger("messagebus.hub")

READINGS = 3
"""How often it is read again what one subscriber is due, where the window has moved on meanwhile, before it is sent
back."""

Read = Callable[[], SubscriptionPlan]
"""Reads again what is due now. May block; raises ``BackendUnavailable``, or ``BusClosed`` where the hub is ending."""


def join_when_ready(
    hub: Hub, subscriber: Subscriber, prepared: SubscriptionPlan, read: Read, says_epoch: Callable[[], bool]
) -> None:
    """Take a subscriber in and make it live. ``says_epoch``: whether to tell it the store's epoch in any case."""

    def go_live(due: CatchUp) -> None:
        put_due(hub, subscriber, due, says_epoch())
        if subscriber.state is Phase.OPENING:
            hub.set_live(subscriber)
            subscriber.on_live()

    if hub.add(subscriber):
        join(hub, subscriber, prepared, read, go_live)


def join(
    hub: Hub,
    subscriber: Subscriber,
    prepared: SubscriptionPlan,
    read: Read,
    joined: Callable[[CatchUp], None],
    readings: int = READINGS,
) -> None:
    """Make a subscriber live on what was prepared, and call ``joined`` with what it is due, in the same turn. It is
    sent back where the feed does not come as far as it has seen, or too much happens meanwhile."""

    def reached(_: Subscriber) -> None:
        ahead = prepared.global_id > hub.global_id
        due = None if ahead else hub.join(subscriber, prepared.wants, prepared.readings)
        if due is not None:
            joined(due)
        elif ahead or not readings:
            subscriber.end(FEED_LOST)
        else:
            hub.reactor.spawn(read_again)

    def read_again() -> None:
        if subscriber not in hub.subscribers:
            return  # it has gone while others were read for
        try:
            hub.reactor.call_soon(join_again, read())
        except BaseException as error:  # gevent's timeouts are no Exception
            if not isinstance(error, (BackendUnavailable, BusClosed)):
                logger.exception("what a subscriber is due cannot be read")
            hub.reactor.call_soon(subscriber.end, FEED_LOST)

    def join_again(reread: SubscriptionPlan) -> None:
        if subscriber in hub.subscribers:
            join(hub, subscriber, reread, read, joined, readings - 1)

    hub.when_reached(prepared.global_id, subscriber, reached)


def put_due(hub: Hub, subscriber: Subscriber, due: CatchUp, say_epoch: bool) -> None:
    """Put out what is due, as the first batch where the transport wants one."""
    batch = due.batch(hub.epoch, say_epoch)
    if batch or (subscriber.transport.begins and subscriber.state is Phase.OPENING):
        data = subscriber.transport.encode(join_batch(batch), hub.global_id)
        # The bound is for those who do not read, not for those who were away: what they asked for comes on top.
        subscriber.outlet.allow(len(data))
        subscriber.put(data)
