"""Takes away from subscribers what they had: a channel, or the connection. In the reactor's loop only."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from ..errors import DISCONNECTED, DISCONNECTED_FOR_NOW, Close
from ..message import Message, refused_message
from ..names import split_name
from ..transports import join_batch
from .hub import Hub
from .subscribe_request import ChannelRefusal
from .subscriber import Phase, Subscriber


def withdraw(hub: Hub, subscriber: Subscriber, refusals: Mapping[str, ChannelRefusal]) -> None:
    """End subscriptions of a connection, by the stored names of their channels; its others go on. Who takes refusals is
    told why."""
    for name in refusals:
        hub.drop(subscriber, name)
    tell_refused(subscriber, refusals)


def tell_refused(subscriber: Subscriber, refusals: Mapping[str, ChannelRefusal]) -> None:
    if refusals and subscriber.takes_refusals and subscriber.state is Phase.OPEN:
        subscriber.put(subscriber.transport.encode(join_batch([_notice(refusals)]), None))


def disconnect_all(hub: Hub, found: Collection[Subscriber], reason: str, reconnect: bool) -> None:
    """End connections. ``reconnect``: their clients are told to come back; others are refused all that they follow."""
    reason = reason or "disconnected by the application"
    if reconnect:
        hub.endings.end_some(found, Close(DISCONNECTED_FOR_NOW, reason))
        return
    close, refusal = Close(DISCONNECTED, reason), ChannelRefusal("disconnected", reason)
    for subscriber in found:
        if subscriber.takes_refusals and subscriber.state is Phase.OPEN:
            # Nothing is left that it would come back for, so that it takes the end for no fault.
            hub.endings.end(subscriber, close, notices=[_notice(dict.fromkeys(subscriber.followed, refusal))])
        else:
            subscriber.end(close)


def refuse_all(hub: Hub, subscriber: Subscriber, names: Iterable[str], refusal: ChannelRefusal) -> None:
    """End a connection whose client is not to come back, before it has joined what it came for."""
    close = Close(DISCONNECTED, refusal.message)
    if subscriber.takes_refusals:
        hub.endings.end(subscriber, close, notices=[_notice(dict.fromkeys(names, refusal))])
    else:
        subscriber.end(close)


def _notice(refusals: Mapping[str, ChannelRefusal]) -> Message:
    return refused_message({split_name(name)[0]: refusal.to_json() for name, refusal in refusals.items()})
