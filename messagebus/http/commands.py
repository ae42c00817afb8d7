"""The commands of clients: a registry that does not depend on how they arrive. No frames, no sockets.

A command is checked in its constructor, performed where it may block, and completed in the reactor's loop.
"""

from __future__ import annotations

import logging
import re
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

from werkzeug.exceptions import HTTPException

from ..channel_rules import find_rule
from ..errors import BackendUnavailable, InvalidData, MessageTooLarge, PublishRefused
from ..hub.addresses import source_of
from ..hub.joining import Join
from ..hub.node import Node
from ..hub.subscribe_request import SubscribeParams, SubscribeRequest, SubscriptionPlan
from ..hub.subscriber import Identity, Subscriber
from ..message import check_channel, check_subscription, split_name, subscription_name
from ..option_kinds import matches
from ..options import Options
from .addresses import is_clients
from .authorization import Handshake, refuse_presence
from .refusals import RETRY_SECONDS, count_refused, limit_of
from .requested_channels import CODES, ChannelRefused, Refusals, check_patterns, read_positions

logger = logging.getLogger("messagebus.http")

MAX_UNANSWERED = 100
"""Maximum number of queued commands of one client; more close the connection."""
_KEY = re.compile(r"[A-Za-z0-9_.~-]{1,64}")
_CODES: dict[type[Exception], str] = {**CODES, BackendUnavailable: "unavailable", InvalidData: "invalid_data"}


class CommandError(Exception):
    """A command is refused; ``code`` is for programs."""

    def __init__(
        self,
        code: str,
        message: str,
        limit: str | None = None,
        *,
        field: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        """``limit``: the option that it has met, if it is one, to be counted. ``field``: the part that is wrong, if
        there is one. ``retry_after``: seconds after which it may succeed."""
        super().__init__(message)
        self.code = code
        self.limit = limit
        self.field = field
        self.retry_after = retry_after

    @classmethod
    def of(cls, error: BaseException) -> CommandError:
        """The answer for an error; an internal error is logged."""
        if isinstance(error, CommandError):
            return error
        if isinstance(error, PublishRefused):
            # The log tells the operator what to fix; the client only learns that it failed.
            logger.error("the store refused what a client publishes (%s): %s", error.reason, error)
            return CommandError("internal", "the store refused the message")
        if isinstance(error, ChannelRefused):
            return CommandError(error.refusal.code, str(error), limit_of(error.refusal))
        if isinstance(error, HTTPException) and error.code is not None and error.code < 500:  # abort() of a hook
            return CommandError("forbidden", error.description or error.name)
        for kind in type(error).__mro__:
            if kind in _CODES:
                limit = "max_message_size" if isinstance(error, MessageTooLarge) else None
                wait = RETRY_SECONDS if isinstance(error, BackendUnavailable) else None
                return CommandError(_CODES[kind], str(error), limit, field=limit, retry_after=wait)
        logger.error("a command failed", exc_info=error)
        return CommandError("internal", type(error).__name__)


class Caller(NamedTuple):
    """The client that sent a command."""

    node: Node
    identity: Identity
    site_id: str | None
    address: str = ""
    """Where the request came from; empty: not known."""
    subscriber: Subscriber | None = None
    """The open connection that the command came on, if there is one."""
    handshake: Handshake | None = None
    """``None``: it may subscribe to everything."""
    takes_refusals: bool = False
    """Whether it accepts refusals of single channels."""


class Command(ABC):
    """One command of a client."""

    verb: ClassVar[str]
    needs_subscriber: ClassVar[bool] = False

    @abstractmethod
    def __init__(self, caller: Caller, value: Any, command: Mapping[str, Any]) -> None:
        """Check the command, without effects. ``value``: the verb's value; ``command``: the whole object.

        Raises:
            CommandError, InvalidChannel, ChannelRefused: The command is refused.
        """

    def perform_at_once(self) -> Any:
        """The result, if it is available without waiting; otherwise ``None``. Never blocks."""
        return None

    @abstractmethod
    def perform(self) -> Any:
        """The result. May block and raise."""

    def complete(self, result: Any, answer: Callable[[dict[str, Any]], None], done: Callable[[], None]) -> None:
        """In the loop: send the ``answer``, and tell when the client's next command may follow."""
        answer(result)
        done()


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
        epoch = caller.node.hub.epoch
        params = SubscribeParams(positions, epoch, None, tuple(grants), caller.takes_refusals, refusals.found)
        request = SubscribeRequest(caller.identity, caller.site_id, params)
        self._request = request if caller.handshake is not None else refuse_presence(caller.node, request)

    def perform_at_once(self) -> SubscriptionPlan | None:
        return self._caller.node.plan_at_once(self._request) if self._caller.handshake is None else None

    def perform(self) -> SubscriptionPlan:
        caller = self._caller
        request = self._request
        return caller.node.plan(
            request if caller.handshake is None else caller.handshake.authorize(caller.node, request)
        )

    def complete(
        self, result: SubscriptionPlan, answer: Callable[[dict[str, Any]], None], done: Callable[[], None]
    ) -> None:
        subscriber, hub = self._subscriber, self._caller.node.hub
        refused = {channel: why.to_json() for channel, why in result.request.params.refused.items()}

        def joined() -> None:
            answer({"refused": refused} if refused else {})
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


class Publish(Command):
    verb = "publish"

    def __init__(self, caller: Caller, value: Any, command: Mapping[str, Any]) -> None:
        if not isinstance(value, dict) or {"channel", "data"} != value.keys() - {"key"}:
            raise CommandError("bad_request", "publish: expected an object of channel and data, and perhaps a key")
        key = value.get("key")
        if key is not None and not (isinstance(key, str) and _KEY.fullmatch(key)):
            raise CommandError("bad_request", "key: expected 1 to 64 letters, digits, or any of _ . ~ -", field="key")
        channel = check_channel(value["channel"])
        if not _clients_may_publish(caller.node.options, channel):
            raise CommandError("forbidden", f"clients may not publish to {channel}")
        self._caller = caller
        self._channel = channel
        self._data = value["data"]
        # Of this client: nobody else's publish is taken for it.
        self._key = None if key is None else f"client {caller.identity.client_id} {key}"

    def perform_at_once(self) -> dict[str, Any] | None:
        return None if self._caller.node.store.shared else self.perform()

    def perform(self) -> dict[str, Any]:
        node, client_id = self._caller.node, self._caller.identity.client_id
        address = self._caller.address
        name, limit = "max_publishes_per_client", node.options.max_publishes_per_client
        # Where a proxy may be behind the address, all its clients would share what one of them may.
        publisher = f"address {source_of(address)}" if is_clients(node.options, address) else f"client {client_id}"
        wait = node.publish_limits.take(publisher, 1, limit)
        if wait:
            reason = f"{name} allows {limit} messages a second; wait {wait} s"
            raise CommandError("too_many_publishes", reason, name, field=name, retry_after=wait)
        ids = node.publish(self._channel, self._data, site_id=self._caller.site_id, idempotency_key=self._key)
        return {"message_id": ids and ids.message_id}


def _clients_may_publish(options: Options, channel: str) -> bool:
    rule = find_rule(options.channels, channel)
    if rule is not None and rule.publish is not None:
        return rule.publish == "anyone"
    return any(matches(pattern, channel) for pattern in options.client_publish)


class Ping(Command):
    verb = "ping"

    def __init__(self, caller: Caller, value: Any, command: Mapping[str, Any]) -> None:
        self._value = value

    def perform_at_once(self) -> dict[str, Any]:
        return self.perform()

    def perform(self) -> dict[str, Any]:
        return {"pong": self._value}


COMMANDS: dict[str, type[Command]] = {kind.verb: kind for kind in (Subscribe, Unsubscribe, Publish, Ping)}


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
