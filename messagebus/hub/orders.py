"""Orders of the application to end connections and subscriptions of certain clients: values, how workers are told, and
what a worker remembers of them. ``revoking`` carries them out.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import msgspec
from msgspec.structs import replace

from ..errors import InvalidOption, InvalidTargets
from ..message import id_key
from ..names import check_site
from ..option_kinds import check_pattern
from ..publishing.arguments import check_client_ids, check_ids
from ..stores.parts import cut
from .subscriber import Identity

logger = logging.getLogger("messagebus.hub")

DISCONNECT = "disconnect"
UNSUBSCRIBE = "unsubscribe"
"""What workers tell each other; with an :class:`Order`."""
EVERY_SITE = "*"
MAX_TARGETS = 10_000
"""Users and clients of one order."""
REMEMBERED_SECONDS = 5.0
"""How long a worker remembers an order for those that were on their way, or between two polls."""
MAX_REMEMBERED = 100_000
"""Users and clients of the orders that it remembers; with more the oldest orders are forgotten."""
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

    def is_for(self, site_id: str | None) -> bool:
        """Whether it is for clients of this site."""
        return self.site_id in (EVERY_SITE, site_id)

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


class Heard(NamedTuple):
    """An order that this worker has carried out."""

    order: Order
    at: float
    """By the reactor's clock."""
    met: set[str]
    """The clients that it was told to."""

    @property
    def ids(self) -> list[bytes | str]:
        return [*map(id_key, self.order.user_ids), *self.order.client_ids]


class HeardOrders:
    """The orders of the last seconds. :meth:`remember` in the loop only, the rest from any thread."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._orders: deque[Heard] = deque()
        self._by_id: dict[bytes | str, tuple[Heard, ...]] = {}
        """Users as the bytes by which they are compared, clients as text."""

    def __bool__(self) -> bool:
        return bool(self._by_id)

    def remember(self, order: Order, met: set[str]) -> None:
        heard = Heard(order, self._clock(), met)
        self._orders.append(heard)
        for one in heard.ids:
            self._by_id[one] = (*self._by_id.get(one, ()), heard)
        self.forget()

    def forget(self) -> None:
        """Forget those that are too old, or too many. To be called from time to time."""
        before = self._clock() - REMEMBERED_SECONDS
        while self._orders and (self._orders[0].at < before or len(self._by_id) > MAX_REMEMBERED):
            heard = self._orders.popleft()
            for one in heard.ids:
                left = tuple([other for other in self._by_id.get(one, ()) if other is not heard])
                if left:
                    self._by_id[one] = left
                else:
                    self._by_id.pop(one, None)

    def since(self, began: float, identity: Identity, site_id: str | None) -> list[Order]:
        """The orders for a client that were heard after its request had begun."""
        return [heard.order for heard in self._for(identity, site_id) if heard.at >= began]

    def missed(self, identity: Identity, site_id: str | None) -> list[Order]:
        """The orders that a client has not heard: it was there before, and between two requests. It now has."""
        before = self._clock() - REMEMBERED_SECONDS
        found = [
            heard
            for heard in self._for(identity, site_id)
            if heard.at >= before and identity.client_id not in heard.met
        ]
        for heard in found:
            heard.met.add(identity.client_id)
        return [heard.order for heard in found]

    def _for(self, identity: Identity, site_id: str | None) -> list[Heard]:
        users = () if identity.user_id is None else self._by_id.get(identity.user_id, ())
        found = [*users, *self._by_id.get(identity.client_id, ())]
        return [heard for heard in found if heard.order.is_for(site_id)]
