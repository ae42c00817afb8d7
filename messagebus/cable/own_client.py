"""A client of the bus's own, as one of its subscriptions knows it.

It follows the streams by itself, each from its position. What the class sends to it alone comes on a private channel.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import msgspec

from ..http.authorization import Handshake
from ..http.channel_commands import Answer, Fail
from ..http.command import CommandError
from ..hub.permissions import make_grant
from ..hub.subscriber import Identity
from ..names import store_name
from .cable import Cable
from .channel import Connection
from .subscription import Positions, Subscription
from .turns import Turns

PRIVATE = "/messagebus/private/"
"""How the channels begin that have what a class sends to one client."""
PRIVATE_SECONDS = 60
"""How long that is kept."""
GRANT_SECONDS = 3600.0
ANSWERS = 32
"""Answers of one subscription that are kept for a client which asks again."""


class Planned(NamedTuple):
    """Where a client begins on the streams of a subscription, and what allows it to."""

    streams: dict[str, int]
    grants: list[str]

    def to_json(self) -> dict[str, Any]:
        return self._asdict()


class OwnClient:
    """What one subscription knows of its client. In the loop, unless a method says otherwise."""

    def __init__(
        self, cable: Cable, turns: Turns, identity: Identity, connection: Connection, handshake: Handshake
    ) -> None:
        """``turns``: those of all subscriptions of the client. ``identity``: as it was when it entered."""
        self.node = cable.node
        self.publish = cable.publish
        self.connection = connection
        self.identity = identity
        self.turns = turns
        self.private = f"{PRIVATE}{secrets.token_hex(16)}"
        self.id = f"{cable.node.workers.id}.{secrets.token_hex(16)}"
        self.key: tuple[str, str] | None = None
        self.answers: OrderedDict[str, Any] = OrderedDict()
        """By the key of the call: the answer, or ``None`` while it is being carried out."""
        self.entered: dict[str, Any] | None = None
        """What ``enter`` was answered with."""
        self.waiting: list[tuple[Answer, Fail]] = []
        self._cable = cable
        self.forgotten: Callable[[OwnClient], object] = lambda client: None
        """Called when the last call has returned."""
        self._handshake = handshake

    # --- from the thread of a call ---

    def context(self) -> AbstractContextManager[object]:
        return self._handshake.entered()

    def plan(self, subscription: Subscription, positions: Positions) -> Planned:
        names = [store_name(channel, self.connection.site_id) for channel in positions]
        newest = self.node.store.last_ids(names) if names else []
        streams = {
            channel: position.message_id if position.message_id >= 0 else max(0, last + 1 + position.message_id)
            for (channel, position), last in zip(positions.items(), newest, strict=True)
        }
        return Planned(streams, self._grants(streams))

    def _grants(self, channels: Iterable[str]) -> list[str]:
        secret = self.node.options.secret_key
        if secret is None:
            return []
        client_id, site_id = self.identity.client_id, self.connection.site_id
        return [make_grant(secret, channel, GRANT_SECONDS, client_id, site_id) for channel in channels]

    def follow(self, subscription: Subscription, plans: Planned) -> None:
        self._send(plans.to_json())

    def unfollow(self, subscription: Subscription, channels: list[str]) -> None:
        self._send({"stop": channels})

    def transmit(self, subscription: Subscription, data: bytes) -> None:
        self._send({"message": msgspec.json.decode(data)})

    def _send(self, said: dict[str, Any]) -> None:
        # For this client alone: somebody may follow a pattern that has the channel.
        clients, site_id = [self.identity.client_id], self.connection.site_id
        self.publish(self.private, said, client_ids=clients, site_id=site_id, max_backlog_age=PRIVATE_SECONDS)

    # --- in the loop ---

    def confirm(self, subscription: Subscription, plans: Planned) -> None:
        streams = {**plans.streams, self.private: 0}
        grants = [*plans.grants, *self._grants([self.private])]
        self.entered = {"id": self.id, "private": self.private, "streams": streams, "grants": grants}
        for answer, _ in self.waiting:
            answer(self.entered)
        self.waiting.clear()

    def refuse(self, subscription: Subscription, error: CommandError | None) -> None:
        error = error or CommandError("rejected", f"{subscription.class_.name} has rejected the subscription")
        for _, fail in self.waiting:
            fail(error)
        self.waiting.clear()

    def forget(self, subscription: Subscription) -> None:
        self.refuse(subscription, CommandError("gone", "the client has left"))
        self.forgotten(self)
        self._cable.remove(subscription)
