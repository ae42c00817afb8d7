"""The commands of clients: a registry that does not depend on how they arrive. No frames, no sockets.

A command is checked in its constructor, performed where it may block, and completed in the reactor's loop.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from ..hub.joining import Join
from ..hub.subscribe_request import SubscribeParams, SubscribeRequest, SubscriptionPlan
from ..names import check_subscription, split_name, subscription_name
from .authorization import asks_anybody, refuse_presence
from .channel_commands import Enter, Leave, Perform
from .command import Caller, Command, CommandError
from .publish_command import Publish
from .refusals import count_refused
from .requested_channels import Refusals, check_patterns, read_positions

__all__ = ["COMMANDS", "MAX_UNANSWERED", "Caller", "Command", "CommandError", "CommandQueue", "read_command"]

MAX_UNANSWERED = 100
"""Maximum number of queued commands of one client; more close the connection."""


class Subscribe(Command):
    verb = "subscribe"
    needs_subscriber = True

    def __init__(self, caller: Caller, value: Any, command: Mapping[str, Any]) -> None:
        if not isinstance(value, dict):
            raise CommandError("bad_request", "subscribe: expected an object of channels and positions")
        assert caller.subscriber is not None
        followed = caller.subscriber.followed
        limit = caller.node.options.max_channels
        refusals = Refusals(caller.takes_refusals)
        positions = read_positions(
            value,
            refusals,
            limit - len(followed),
            limit,
            lambda name: subscription_name(name, caller.site_id) in followed,
        )
        check_patterns(caller.node.options, positions, refusals, [split_name(name)[0] for name in followed])
        grants = command.get("grants", [])
        if not isinstance(grants, list) or not all(isinstance(grant, str) for grant in grants):
            raise CommandError("bad_request", "grants: expected a list of tokens")
        count_refused(caller.node.hub.refused, refusals.found)
        self._caller = caller
        self._subscriber = caller.subscriber
        # A connected client knows the epoch, so a position beyond the last id is invalid.
        epoch = caller.node.hub.windows.epoch_for([subscription_name(channel, caller.site_id) for channel in positions])
        params = SubscribeParams(
            positions,
            epoch,
            None,
            tuple(grants),
            caller.takes_refusals,
            refusals.found,
            outdated=caller.subscriber.outdated,
        )
        request = SubscribeRequest(caller.identity, caller.site_id, params, began=caller.node.reactor.clock())
        self._handshake = caller.handshake if asks_anybody(caller.node) else None
        self._request = request if self._handshake is not None else refuse_presence(caller.node, request)

    def perform_at_once(self) -> SubscriptionPlan | None:
        return self._caller.node.plan_at_once(self._request) if self._handshake is None else None

    def perform(self) -> SubscriptionPlan:
        node, request, handshake = self._caller.node, self._request, self._handshake
        return node.plan(request if handshake is None else handshake.authorize(node, request))

    def complete(
        self, result: SubscriptionPlan, answer: Callable[[dict[str, Any]], None], done: Callable[[], None]
    ) -> None:
        subscriber, hub = self._subscriber, self._caller.node.hub
        refused = {channel: why.to_json() for channel, why in result.request.params.refused.items()}

        def joined() -> None:
            answer({"refused": refused} if refused else {})
            if hub.windows.partitions > 1 and subscriber.catch_up is not None:
                subscriber.catch_up.say_epoch = subscriber.transport.tells_epoch  # it may lack that of a partition
            hub.pacer.proceed(subscriber)
            done()

        Join(self._caller.node, subscriber, result, joined).start()


class Unsubscribe(Command):
    verb = "unsubscribe"
    needs_subscriber = True

    def __init__(self, caller: Caller, value: Any, command: Mapping[str, Any]) -> None:
        if not isinstance(value, list):
            raise CommandError("bad_request", "unsubscribe: expected a list of channels")
        assert caller.subscriber is not None
        self._subscriber = caller.subscriber
        self._hub = caller.node.hub
        self._names = {subscription_name(check_subscription(channel), caller.site_id) for channel in value}

    def perform_at_once(self) -> dict[str, Any]:
        return self.perform()

    def perform(self) -> dict[str, Any]:
        subscriber = self._subscriber
        for name in self._names & subscriber.followed:
            self._hub.drop(subscriber, name)
        return {}


class Ping(Command):
    verb = "ping"

    def __init__(self, caller: Caller, value: Any, command: Mapping[str, Any]) -> None:
        self._value = value

    def perform_at_once(self) -> dict[str, Any]:
        return self.perform()

    def perform(self) -> dict[str, Any]:
        return {"pong": self._value}


_KINDS: tuple[type[Command], ...] = (Subscribe, Unsubscribe, Publish, Enter, Perform, Leave, Ping)
COMMANDS = {kind.verb: kind for kind in _KINDS}


def read_command(caller: Caller, command: object) -> Command:
    """Make the command of a JSON value.

    Raises:
        CommandError, InvalidChannel, ChannelRefused: There is none, or it is malformed.
    """
    if not isinstance(command, dict):
        raise CommandError("bad_request", "a command is a JSON object")
    known = [verb for verb, kind in COMMANDS.items() if caller.subscriber is not None or not kind.needs_subscriber]
    verbs = [key for key in command if key not in ("id", "grants")]
    if len(verbs) != 1 or verbs[0] not in known:
        raise CommandError("bad_request", f"expected one of {', '.join(known)}; not {', '.join(verbs)[:100]}")
    return COMMANDS[verbs[0]](caller, command[verbs[0]], command)


class CommandQueue:
    """The queued commands of one client. They run in order, each when the one before is done."""

    __slots__ = ("_is_running", "_waiting", "idle")

    def __init__(self, idle: bool) -> None:
        """``idle``: whether the first command may run when it comes; otherwise it waits for ``done``."""
        self.idle = idle
        self._waiting: deque[Any] | None = None
        self._is_running = False

    def push(self, command: Any, carry_out: Callable[[Any], None]) -> bool:
        """Run a command, now or in its turn. ``False``: too many are queued, and it is dropped."""
        if self._waiting is None:
            self._waiting = deque()  # most clients never send one
        if len(self._waiting) >= MAX_UNANSWERED:
            return False
        self._waiting.append(command)
        self._run(carry_out)
        return True

    def done(self, carry_out: Callable[[Any], None]) -> None:
        """The running command is done."""
        self.idle = True
        self._run(carry_out)

    def _run(self, carry_out: Callable[[Any], None]) -> None:
        if self._is_running:
            return  # called from within `carry_out`: the loop below goes on when that has returned
        self._is_running = True
        try:
            while self._waiting and self.idle:
                self.idle = False
                carry_out(self._waiting.popleft())
        finally:
            self._is_running = False
