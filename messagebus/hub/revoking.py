"""Ends connections and subscriptions of certain clients before their time, because the application says so. On every
worker: the order is told to all of them. No HTTP.

A client is told with a refusal of each channel concerned, which clients that know refusals do not ask for again. Others
come back, and whoever authorizes subscriptions decides.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any

import msgspec
from msgspec.structs import replace

from ..errors import DISCONNECTED, DISCONNECTED_FOR_NOW, RESYNC, Close, InvalidOption, InvalidTargets
from ..message import Message, check_site, of_channel, refused_message, split_name
from ..option_kinds import check_pattern, overlaps
from ..publishing.arguments import check_client_ids, check_ids
from ..stores.parts import cut
from ..transports import join_batch
from .hub import Hub
from .joining import AGAIN_MS
from .subscribe_request import ChannelRefusal
from .subscriber import Phase, Subscriber

logger = logging.getLogger("messagebus.hub")

DISCONNECT = "disconnect"
UNSUBSCRIBE = "unsubscribe"
"""What workers tell each other; with an :class:`Order`."""
EVERY_SITE = "*"
MAX_TARGETS = 10_000
"""Users and clients of one order."""
MAX_REASON = 123
"""Bytes of a reason: those of a WebSocket's close."""


class Order(msgspec.Struct, frozen=True):
    """Whose connections or subscriptions are to end. As JSON it goes to the workers."""

    user_ids: list[Any]
    client_ids: list[str]
    site_id: str | None
    """``"*"``: of every site."""
    reason: str
    reconnect: bool = False
    channel: str = ""
    """Or a pattern; empty: all channels."""

    @classmethod
    def of(
        cls,
        user_ids: Iterable[Any] | None = None,
        client_ids: Iterable[Any] | None = None,
        reason: str = "",
        site_id: str | None = None,
        reconnect: bool = False,
        channel: str = "",
    ) -> Order:
        """
        Raises:
            InvalidTargets: There are no ids, too many, or something that is none.
            InvalidSite, InvalidChannel, InvalidOption: One of the others is wrong.
        """
        users = check_ids("user_ids", user_ids) or []
        clients = check_client_ids("client_ids", client_ids) or []
        if not users and not clients:
            raise InvalidTargets("expected user_ids or client_ids: without one, nobody is meant")
        if len(users) + len(clients) > MAX_TARGETS:
            raise InvalidTargets(f"expected {MAX_TARGETS} ids at most, not {len(users) + len(clients)}")
        if site_id is not None and site_id != EVERY_SITE:
            check_site(site_id)
        _check("reason", reason, f"up to {MAX_REASON} bytes of text on one line", _is_reason)
        _check("reconnect", reconnect, "True or False", lambda value: isinstance(value, bool))
        return cls(users, clients, site_id, reason, reconnect, channel)

    def halves(self) -> list[Order]:
        """The same order in two, for the users and the clients of either half; empty where it has one id alone."""
        users, clients = self.user_ids, self.client_ids
        if users and clients:
            return [replace(self, client_ids=[]), replace(self, user_ids=[])]
        middle = (len(users) + len(clients)) // 2
        if not middle:
            return []
        parts = ((users[:middle], clients[:middle]), (users[middle:], clients[middle:]))
        return [replace(self, user_ids=some_users, client_ids=some_clients) for some_users, some_clients in parts]

    def to_json(self) -> dict[str, Any]:
        found: dict[str, Any] = msgspec.to_builtins(self)
        return found


def unsubscribe_order(
    channel: Any,
    *,
    user_ids: Iterable[Any] | None = None,
    client_ids: Iterable[Any] | None = None,
    reason: str = "",
    site_id: str | None = None,
) -> Order:
    """The order that ends subscriptions to a channel, or to all that a pattern matches.

    Raises:
        InvalidChannel: ``channel`` is neither.
        InvalidTargets, InvalidSite, InvalidOption: See :meth:`Order.of`.
    """
    return Order.of(user_ids, client_ids, reason, site_id, channel=check_pattern(channel))


def tellings(kind: str, order: Order) -> list[str]:
    """The announcements that tell an order to the workers, which may read it in pieces: each is an order itself.

    Raises:
        InvalidTargets: An id alone is too long to be told.
    """
    try:
        return cut({"tell": kind, "value": order.to_json()})
    except ValueError:
        halves = order.halves()
        if not halves:
            [longest] = order.user_ids or order.client_ids
            raise InvalidTargets(f"an id is too long to be told to the workers: {longest!r:.80}") from None
        return [text for half in halves for text in tellings(kind, half)]


class Revoking:
    """Carries the orders out in one worker. In the reactor's loop only."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    def disconnect(self, told: Any) -> None:
        """End the connections of an order's clients."""
        order = read_order(told)
        if order is None:
            return
        found, reason = self._find(order), order.reason or "disconnected by the application"
        endings = self._hub.endings
        if order.reconnect:
            endings.end_some(found, Close(DISCONNECTED_FOR_NOW, reason))
            return
        close, refusal = Close(DISCONNECTED, reason), ChannelRefusal("disconnected", reason)
        for subscriber in found:
            if subscriber.takes_refusals and subscriber.state is Phase.OPEN:
                # Nothing is left that it would come back for, so that it takes the end for no fault.
                endings.end(subscriber, close, notices=[_notice(subscriber.followed, refusal)])
            else:
                subscriber.end(close)

    def unsubscribe(self, told: Any) -> None:
        """End the subscriptions of an order's clients to its channel. The others of the same connection go on."""
        order = read_order(told)
        if order is None:
            return
        refusal = ChannelRefusal("unsubscribed", order.reason or "unsubscribed by the application")
        for subscriber in self._find(order):
            if subscriber.state is Phase.OPENING:
                # It has yet to join what it was allowed before: the client has to ask again.
                self._hub.endings.end(subscriber, RESYNC, AGAIN_MS)
                continue
            names = [name for name in subscriber.followed if overlaps(order.channel, of_channel(split_name(name)[0]))]
            for name in names:
                self._hub.drop(subscriber, name)
            if names and subscriber.takes_refusals:
                subscriber.put(subscriber.transport.encode(join_batch([_notice(names, refusal)]), None))

    def _find(self, order: Order) -> set[Subscriber]:
        membership = self._hub.membership
        found = set[Subscriber]().union(
            *[membership.of_user(user_id) for user_id in order.user_ids],
            *[membership.of_client(client_id) for client_id in order.client_ids],
        )
        if order.site_id == EVERY_SITE:
            return found
        return {subscriber for subscriber in found if subscriber.site_id == order.site_id}


def _check(field: str, value: object, expected: str, is_right: Callable[[object], bool]) -> None:
    if not is_right(value):
        raise InvalidOption(field, f"expected {expected}, not {value!r:.80}")


def _is_reason(value: object) -> bool:
    return isinstance(value, str) and value.isprintable() and len(value.encode()) <= MAX_REASON


def read_order(told: Any) -> Order | None:
    """What was told; ``None``: it cannot be read."""
    try:
        return msgspec.convert(told, Order)
    except msgspec.ValidationError as error:
        logger.warning("an order to all workers cannot be read, perhaps a newer version's: %s", error)
        return None


def _notice(names: Iterable[str], refusal: ChannelRefusal) -> Message:
    return refused_message(dict.fromkeys([split_name(name)[0] for name in names], refusal.to_json()))
