"""One subscription of a client to a channel class: its life, and the calls into the program. No wire, no streams.

Its states: it waits for ``subscribed``; it is open, or was rejected; it has ended. Changed in the reactor's loop only,
but for what the program asks for in a call of its own.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from werkzeug.exceptions import HTTPException

from ..errors import BackendUnavailable, BusClosed, InvalidChannel
from ..http.commands import CommandError
from ..http.publish_command import take_from_rate
from ..http.refusals import RETRY_SECONDS
from ..hub.node import Node
from ..message import encode_data
from ..names import check_channel
from ..wire import Position, parse_position
from .channel import Channel, Connection
from .classes import ChannelClass, UnknownAction
from .turns import MAX_WAITING, Line, Turns

if TYPE_CHECKING:
    from ..publishing.arguments import PublishOptions

logger = logging.getLogger("messagebus.cable")

Publish = Callable[..., "int | None"]
AGAIN_SECONDS = 1
"""When a client may call an action again, where too many wait."""
Positions = dict[str, Position]
"""Channel -> where the subscription begins on it."""


class Client(Protocol):
    """Who subscribes, as a subscription needs it. In the loop, unless a method says otherwise."""

    node: Node
    connection: Connection
    turns: Turns
    publish: Publish

    def context(self) -> AbstractContextManager[object]:
        """The app's, around a call. From the thread of the call."""

    def confirm(self, subscription: Subscription, plans: Any) -> None:
        """The program has taken the subscription, with the streams that were planned."""

    def refuse(self, subscription: Subscription, error: CommandError | None) -> None:
        """It has not: it rejected the subscription, or failed."""

    def plan(self, subscription: Subscription, positions: Positions) -> Any:
        """Read what is needed to follow channels. Like those below from the thread of a call; may block and raise."""

    def follow(self, subscription: Subscription, plans: Any) -> None:
        """Follow more channels, as planned."""

    def unfollow(self, subscription: Subscription, channels: list[str]) -> None:
        """Follow them no longer."""

    def transmit(self, subscription: Subscription, data: bytes) -> None:
        """Send JSON to the client; once it is confirmed, where it is not yet."""

    def forget(self, subscription: Subscription) -> None:
        """The last call has returned."""


Answer = Callable[[Any, "CommandError | None"], object]
"""Takes the result of an action as JSON, or why there is none. In the loop."""


class Subscription:
    """See the module. It is the channel's ``Link``."""

    def __init__(
        self, client: Client, identifier: str, class_: ChannelClass, params: Mapping[str, Any], positions: Positions
    ) -> None:
        """``positions``: those that the client comes back with, by channel."""
        self.identifier = identifier
        """How the client names it."""
        self.class_ = class_
        self.client = client
        self.ended = False
        self.is_open = False
        self.is_rejected = False
        self.streams: dict[str, None] = {}
        """The channels that it follows, or is about to follow, in the order in which it began."""
        self._whispers_to: str | None = None
        self._positions = positions
        self._wanted: Positions = {}
        self._params = params
        self._line = Line(client.turns)
        self._timers: list[_Timer] = []
        self._channel: Channel | None = None
        """Made by the first call, as it may be the program's own code."""

    # --- from the client; in the loop ---

    def begin(self) -> None:
        """Have ``subscribed`` called."""
        self._line.put(self._subscribe)

    def perform(self, action: object, data: Any, answer: Answer) -> None:
        """Have an action called.

        Raises:
            CommandError: It is none, or too many wait.
        """
        try:
            name = self.class_.check_action(action)
        except UnknownAction as error:
            raise CommandError("unknown_action", str(error), field="action") from None
        if not isinstance(data, dict):
            raise CommandError("bad_request", "data: expected an object", field="data")
        self.in_turn(partial(self._act, name, data, answer))

    def in_turn(self, call: Callable[[], object]) -> None:
        """Have something done after what waits already, where it may block.

        Raises:
            CommandError: Too many calls wait.
        """
        if not self._line.put(call):
            reason = f"{self.class_.name}: {MAX_WAITING} actions of this subscription wait already"
            raise CommandError("too_many_actions", reason, retry_after=AGAIN_SECONDS)

    def whisper(self, data: Any, answer: Answer) -> None:
        """Tell the others on the stream that the class has opened for it; the client itself is not told.

        Raises:
            CommandError: There is none, or too many calls wait.
        """
        self.in_turn(partial(self._whisper, data, answer))

    def read_again(self, positions: Positions) -> None:
        """Begin once more on its channels, from where the client stands."""
        self._line.put(partial(self._plan_again, positions))

    def leave(self) -> None:
        """End it. May be repeated."""
        if self.ended:
            return
        self.ended, self.is_open = True, False
        for timer in self._timers:
            timer.end()
        self._line.put_last(self._unsubscribe)

    # --- in a job ---

    def _subscribe(self) -> None:
        if self.ended:
            return
        plans, error = None, None
        try:
            with self.client.context():
                self._channel = self.class_.base(self, self.client.connection, self._params)
                self._channel.subscribed()
            if not self.is_rejected:
                plans = self.client.plan(self, self._wanted)
        except BaseException as failed:  # gevent's timeouts, which a hook may have set, are no Exception
            error = self._told("subscribed", failed)
        self._soon(self._subscribed, plans, error)

    def _act(self, name: str, data: dict[str, Any], answer: Answer) -> None:
        if self.ended or self.is_rejected:
            refused = CommandError("not_subscribed", f"{self.class_.name}: the subscription was rejected, or has ended")
            self._soon(answer, None, refused)
            return
        result, error = None, None
        try:
            with self.client.context():
                method = getattr(self._channel, name)
                result = self._encode(method(data) if self.class_.actions[name] else method())
        except BaseException as failed:
            error = self._told(name, failed)
        self._soon(answer, result, error)

    def _whisper(self, data: Any, answer: Answer) -> None:
        channel, connection = self._whispers_to, self.client.connection
        error: CommandError | None = None
        try:
            if channel is None or self.ended or self.is_rejected:
                raise CommandError("forbidden", f"{self.class_.name}: the server lets no client whisper here")
            take_from_rate(self.client.node, connection.client_id, connection.address)
            # Where the store is away it is lost, as it is its nature.
            own, site_id = [connection.client_id], connection.site_id
            self.client.publish(channel, data, transient=True, exclude_client_ids=own, site_id=site_id)
        except Exception as failed:
            error = CommandError.of(failed)
        self._soon(answer, None, error)

    def _plan_again(self, positions: Positions) -> None:
        try:
            self.client.follow(self, self.client.plan(self, positions))
        except BaseException as failed:
            self._soon(self.client.refuse, self, self._told("history", failed))

    def _tick(self, timer: _Timer) -> None:
        if not self.ended:
            try:
                with self.client.context():
                    getattr(self._channel, timer.name)()
            except BaseException as failed:
                self._told(timer.name, failed)
        self._soon(timer.start)

    def _unsubscribe(self) -> None:
        try:
            if self._channel is not None:
                with ExitStack() as stack:
                    try:
                        stack.enter_context(self.client.context())
                    except Exception as error:  # a function before each request that refuses whoever is signed out
                        logger.info("%s.unsubscribed is called without a request: %s", self.class_.name, error)
                    self._channel.unsubscribed()
        except BaseException as failed:
            self._told("unsubscribed", failed)
        self._soon(self.client.forget, self)

    def _told(self, method: str, error: BaseException) -> CommandError:
        """What the client is told; the log has the rest."""
        where = f"{self.class_.name}.{method}"
        if isinstance(error, HTTPException) and error.code is not None and error.code < 500:  # Flask's abort()
            return CommandError("forbidden", error.description or error.name)
        if isinstance(error, (BackendUnavailable, BusClosed)):
            return CommandError("unavailable", "the store gave no answer", retry_after=RETRY_SECONDS)
        if isinstance(error, Exception):
            self.client.node.report(error, where)
        else:
            logger.error("%s failed", where, exc_info=error)
        return CommandError("internal", f"{where} failed")

    def _soon(self, call: Callable[..., object], *args: Any) -> None:
        self.client.node.reactor.call_soon(call, *args)

    # --- back in the loop ---

    def _subscribed(self, plans: Any, error: CommandError | None) -> None:
        if self.ended:
            return
        if error is not None or self.is_rejected:
            self.is_rejected = True
            self.client.refuse(self, error)
            self.leave()
            return
        self.is_open = True
        self.client.confirm(self, plans)
        self._timers = [_Timer(self, name, every) for name, every in self.class_.timers.items()]

    def run(self, timer: _Timer) -> None:
        """A timer's time has come."""
        if not self._line.put(partial(self._tick, timer)):
            timer.start()

    # --- what the channel asks for, in a job ---

    def reject(self) -> None:
        if not self.is_open:
            self.is_rejected = True

    def stream_from(self, channel: str, last_id: int, whisper: bool) -> None:
        position = parse_position(check_channel(channel), last_id)
        if channel.endswith("*"):
            raise InvalidChannel(channel, "a stream is of one channel; patterns are for wildcard_subscriptions")
        most = self.client.node.options.max_channels
        if channel not in self.streams and len(self.streams) >= most:
            raise ValueError(f"max_channels allows {most} streams of a subscription")
        position = self._positions.get(channel, position)
        if self.is_open:
            plans = self.client.plan(self, {channel: position})
            self.streams[channel] = None
            self.client.follow(self, plans)
        else:
            self.streams[channel] = None
            self._wanted[channel] = position
        if whisper:
            self._whispers_to = channel

    def stop_stream_from(self, channel: str) -> None:
        self._stop([channel] if channel in self.streams else [])

    def stop_all_streams(self) -> None:
        self._stop([*self.streams])

    def _stop(self, channels: list[str]) -> None:
        for channel in channels:
            self.streams.pop(channel, None)
            if channel == self._whispers_to:
                self._whispers_to = None
            self._wanted.pop(channel, None)
        if self.is_open and channels:
            self.client.unfollow(self, channels)

    def transmit(self, data: Any) -> None:
        if not self.ended:
            self.client.transmit(self, self._encode(data))

    def _encode(self, data: Any) -> bytes:
        node = self.client.node
        return encode_data(data, node.options.max_message_size, node.publisher.dumps)

    def broadcast(self, channel: str, data: Any, options: PublishOptions) -> int | None:
        site_id = self.client.connection.site_id
        return self.client.publish(channel, data, **{"site_id": site_id, **options})


class _Timer:
    """Calls a method at an interval. In the loop."""

    def __init__(self, subscription: Subscription, name: str, every: float) -> None:
        self.name = name
        self.tick = 0
        self._subscription = subscription
        self._every = every
        self._reactor = subscription.client.node.reactor
        self.start()

    def start(self) -> None:
        if not self._subscription.ended:
            self._reactor.set_deadline(self, self._every)

    def end(self) -> None:
        self._reactor.clear_deadline(self)

    def on_deadline(self) -> None:
        self._subscription.run(self)
