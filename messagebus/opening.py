"""How a subscriber begins, on every transport: wait for the feed where needed, join, be given what is due, go live.

In the reactor's loop; what has to be read from the store was read before (``Runtime.prepare``)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from .catchup import Want
from .errors import FEED_LOST
from .hub import Hub
from .runtime import Prepared
from .subscriber import State, Subscriber
from .transports import join_batch


def open_subscriber(
    hub: Hub, subscriber: Subscriber, wants: Sequence[Want], prepared: Prepared, say_epoch: bool
) -> None:
    """Take a subscriber in and make it live on ``wants``. ``say_epoch``: tell it the store's epoch in any case."""
    if hub.add(subscriber):
        hub.when_reached(prepared.global_id, subscriber, partial(_go_live, hub, wants, prepared, say_epoch))


def _go_live(hub: Hub, wants: Sequence[Want], prepared: Prepared, say_epoch: bool, subscriber: Subscriber) -> None:
    if not give_due(hub, subscriber, wants, prepared, say_epoch):
        subscriber.end(FEED_LOST)
    elif subscriber.state is State.OPENING:
        hub.set_live(subscriber)


def give_due(hub: Hub, subscriber: Subscriber, wants: Sequence[Want], prepared: Prepared, say_epoch: bool) -> bool:
    """Join the channels and put out what is due on them, as the first batch where the transport wants one. ``False``
    where what was prepared is no longer enough to tell, or the feed has not come as far as the subscriber."""
    if prepared.global_id > hub.global_id:
        return False
    due = hub.join(subscriber, wants, prepared.readings)
    if due is None:
        return False
    batch = due.batch(hub.epoch, say_epoch)
    if batch or (subscriber.transport.begins and subscriber.state is State.OPENING):
        data = subscriber.transport.encode(join_batch(batch), hub.global_id)
        # The bound is for those who do not read, not for those who were away: what they asked for comes on top.
        subscriber.outlet.allow(len(data))
        subscriber.put(data)
    return True
