"""``join``, ``leave`` and ``presence`` of AnyCable's clients. Their presence is that of the bus: the program's rules
say who a client is, and who follows a stream is there."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from ..errors import BackendUnavailable, BusClosed
from ..http.command import CommandError
from ..http.refusals import RETRY_SECONDS, error_object
from ..hub.node import Node
from ..names import PRESENCE
from ..presence.member import Member
from .planning import Planner, Plans
from .stream_subscriber import StreamSubscriber
from .subscription import Subscription


class PresenceCommands:
    """Those of one connection. In the reactor's loop, unless a method says otherwise."""

    __slots__ = ("_absent", "_follow", "_node", "_planner", "_say", "_stream_of", "_watching")

    def __init__(
        self,
        node: Node,
        planner: Planner,
        follow: Callable[[Subscription, Plans], object],
        stream_of: Callable[[Subscription], StreamSubscriber | None],
        say: Callable[..., object],
    ) -> None:
        self._node = node
        self._planner = planner
        self._follow = follow
        self._stream_of = stream_of
        self._say = say
        self._watching: set[Subscription] = set()
        self._absent: dict[Subscription, Member] = {}
        """Who has left, and follows the stream all the same."""

    def carry_out(self, command: str, subscription: Subscription) -> None:
        """
        Raises:
            CommandError: Too many calls of the subscription wait.
        """
        # In its turn: until the class has taken the subscription nobody knows its streams.
        subscription.in_turn(partial(self._look, command, subscription))

    def forget(self, subscription: Subscription) -> None:
        self._watching.discard(subscription)
        self._absent.pop(subscription, None)

    def _look(self, command: str, subscription: Subscription) -> None:
        """In a job."""
        soon = self._node.reactor.call_soon
        rules = self._node.access.presence
        # In AnyCable a subscription has one room.
        channel = next((channel for channel in [*subscription.streams] if rules.find(channel) is not None), None)
        if channel is None or subscription.ended or subscription.is_rejected:
            reason = f"{subscription.class_.name}: no rule of the server says who is a member of its streams"
            soon(self._refuse, subscription, CommandError("forbidden", reason))
            return
        if command == "leave":
            soon(self._leave, subscription, channel)
            return
        if command == "join":
            soon(self._join, subscription, channel)
            if subscription in self._watching:
                return
        try:
            plans = self._planner.watch(f"{PRESENCE}{channel}")
        except (BackendUnavailable, BusClosed):
            error = CommandError("unavailable", "the store gave no answer", retry_after=RETRY_SECONDS)
            soon(self._refuse, subscription, error)
            return
        soon(self._watch, subscription, plans)

    def _watch(self, subscription: Subscription, plans: Plans) -> None:
        if not subscription.ended:
            self._watching.add(subscription)
            self._follow(subscription, plans)

    def _join(self, subscription: Subscription, channel: str) -> None:
        member, stream = self._absent.pop(subscription, None), self._stream_of(subscription)
        if member is not None and stream is not None:
            self._node.hub.attendance.enter(stream, {channel: member})

    def _leave(self, subscription: Subscription, channel: str) -> None:
        stream = self._stream_of(subscription)
        member = None if stream is None else self._node.hub.attendance.withdraw(stream, channel)
        if member is not None:
            self._absent[subscription] = member

    def _refuse(self, subscription: Subscription, error: CommandError) -> None:
        """As AnyCable's client takes it: what asks who is there fails, and listeners are told."""
        why: dict[str, Any] = error_object(error.code, str(error), None, error.retry_after)
        told = {"type": "error", "error": why}
        self._say(type="presence", identifier=subscription.identifier, message=told)
