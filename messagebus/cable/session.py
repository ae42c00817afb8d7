"""A socket on ``/cable``: ActionCable's and AnyCable's commands, and the answers to them."""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import partial
from typing import Any, NamedTuple

from ..errors import MALFORMED, RESYNC
from ..http.authorization import Handshake, with_members
from ..http.commands import CommandError
from ..http.framed_subscriber import OPEN, FramedSubscriber
from ..http.refusals import error_object
from ..hub.joining import Join
from ..hub.subscribe_request import SubscribeParams, SubscribeRequest, SubscriptionPlan
from ..hub.subscriber import Identity, Phase
from ..message import encode_json
from ..names import subscription_name
from ..transports.websocket import text_frame
from ..wire import Position
from .cable import Cable
from .channel import Connection
from .commands import History, Malformed, Said, read_command, read_data, read_history, read_identifier
from .encoding import CABLE
from .stream_subscriber import StreamSubscriber
from .subscription import Positions, Subscription

NO_HISTORY = History(None, {})


class Plans(NamedTuple):
    """What was read for the streams of a subscription."""

    plans: list[SubscriptionPlan]
    """One for each life of the store that the client's positions are of."""
    is_whole: bool
    """Whether it is known for all of them where the client stands."""


class CableSession(FramedSubscriber):
    """See the module. In the reactor's loop, except what a subscription needs in the thread of a call."""

    __slots__ = (
        "_cable",
        "_early",
        "_early_bytes",
        "_extended",
        "_handshake",
        "_histories",
        "_streams",
        "_subscriptions",
        "connection",
        "node",
        "publish",
        "turns",
    )

    def __init__(
        self,
        cable: Cable,
        identity: Identity,
        connection: Connection,
        handshake: Handshake,
        head: bytes,
        extended: bool,
    ) -> None:
        node = cable.node
        # A client that comes back asks for all of its subscriptions at once.
        super().__init__(
            node,
            CABLE,
            identity,
            head,
            connection.address,
            connection.site_id,
            more=2 * node.options.max_channels,
        )
        self.node = node
        self.connection = connection
        self.turns = cable.turns()
        self.publish = cable.publish
        self._cable = cable
        self._handshake = handshake
        self._extended = extended
        self._subscriptions: dict[str, Subscription] = {}
        self._streams: dict[Subscription, StreamSubscriber] = {}
        self._histories: dict[Subscription, History] = {}
        self._early_bytes = 0
        self._early: dict[Subscription, list[bytes]] = {}
        """What was sent before the subscription was confirmed."""

    def begin(self) -> None:
        """The socket is ours."""
        if not self.node.hub.add(self):
            return
        welcome = {"type": "welcome", "sid": self.identity.client_id} if self._extended else {"type": "welcome"}
        self.state = Phase.OPEN
        self.put(text_frame(encode_json(welcome)))
        self._cable.pings.add(self)

    # --- its end ---

    def _close(self) -> None:
        self._leave_all()
        super()._close()

    def on_closed(self) -> None:
        self._leave_all()
        super().on_closed()

    def _leave_all(self) -> None:
        self._cable.pings.remove(self)
        for subscription in [*self._subscriptions.values()]:
            self._leave(subscription)

    def _leave(self, subscription: Subscription) -> None:
        if self._subscriptions.get(subscription.identifier) is subscription:
            del self._subscriptions[subscription.identifier]
        stream = self._streams.pop(subscription, None)
        if stream is not None:
            stream.release(self.node.hub)
        self._histories.pop(subscription, None)
        self._early_bytes -= sum(map(len, self._early.pop(subscription, ())))
        subscription.leave()

    def _stream_ended(self, stream: StreamSubscriber) -> None:
        """Somebody has ended a stream: its client could not tell, so that the connection ends as well."""
        stream.release(self.node.hub)
        self.end(stream.close or RESYNC)

    def on_drained(self) -> None:
        for stream in [*self._streams.values()]:
            stream.shared.on_drained()

    # --- commands ---

    def on_message(self, text: bytes) -> None:
        said: Said | None = None
        try:
            said = read_command(text)
            self._carry_out(said)
        except Malformed:
            self.end(MALFORMED)
        except CommandError as error:
            self._fail(error, said)

    def _carry_out(self, said: Said) -> None:
        if said.command == "subscribe":
            self._subscribe(said)
        elif said.command == "pong" and self._extended:
            pass
        elif said.command in ("unsubscribe", "message") or (said.command == "history" and self._extended):
            subscription = self._subscriptions.get(said.identifier)
            if subscription is None:
                raise CommandError("not_subscribed", "there is no subscription with this identifier")
            if said.command == "unsubscribe":
                self._leave(subscription)
            elif said.command == "message":
                action, data = read_data(said.data)
                subscription.perform(action, data, partial(self._answer, said))
            else:
                self._rewind(subscription, read_history(said.history, self.node.options.max_channels))
        else:
            known = "subscribe, unsubscribe, message" + (", history, pong" if self._extended else "")
            raise CommandError("bad_request", f"command: expected one of {known}, not {said.command:.80}")

    def _subscribe(self, said: Said) -> None:
        known = self._subscriptions.get(said.identifier)
        if known is not None:  # a client that has waited for its confirmation asks again
            if known.is_open:
                self._say(type="confirm_subscription", identifier=said.identifier)
            return
        name, params = read_identifier(said.identifier)
        class_ = self._cable.classes.find(name)
        if class_ is None:
            raise CommandError("unknown_channel", f"there is no channel class {name:.80}", field="identifier")
        limit = self.node.options.max_channels
        if len(self._subscriptions) >= limit:
            reason = f"max_channels allows {limit} subscriptions of a connection"
            raise CommandError("too_many_channels", reason, "max_channels")
        history = read_history(said.history, limit) if self._extended and said.history else NO_HISTORY
        subscription = Subscription(self, said.identifier, class_, params, {})
        self._subscriptions[said.identifier] = subscription
        self._histories[subscription] = history
        self._cable.add(subscription)
        subscription.begin()

    def _rewind(self, subscription: Subscription, history: History) -> None:
        """Send what a client has missed of a subscription that it has."""
        self._histories[subscription] = history
        if subscription.is_open:
            subscription.read_again(dict.fromkeys(subscription.streams, Position()))

    # --- what a subscription needs of its client ---

    def context(self) -> AbstractContextManager[object]:
        return self._handshake.context(self._handshake.environ)

    def plan(self, subscription: Subscription, positions: Positions) -> Plans:
        history = self._histories.get(subscription, NO_HISTORY)
        by_epoch: dict[str | None, dict[str, Position]] = {}
        is_whole = True
        for channel, position in positions.items():
            name = subscription_name(channel, self.site_id)
            # None: that which is in force.
            epoch, message_id = history.positions.get(channel, (None, None))
            if message_id is not None:
                position = Position(message_id)
            elif history.since is not None and position == Position():
                global_id = self._cable.global_id_at(history.since, name)
                position = Position(global_id=global_id)
                is_whole = is_whole and global_id is not None
            by_epoch.setdefault(epoch, {})[channel] = position
        return Plans([self._plan(asked, epoch) for epoch, asked in by_epoch.items()], is_whole)

    def _plan(self, asked: dict[str, Position], epoch: str | None) -> SubscriptionPlan:
        if epoch is None:
            names = [subscription_name(channel, self.site_id) for channel in asked]
            epoch = self.node.hub.windows.epoch_for(names)
        request = SubscribeRequest(self.identity, self.site_id, SubscribeParams(asked, epoch))
        if self.node.access.presence:
            with self._handshake.context(self._handshake.environ) as shown:
                request = with_members(self.node, shown, request)
        return self.node.plan(request)

    def confirm(self, subscription: Subscription, plans: Plans) -> None:
        self._say(type="confirm_subscription", identifier=subscription.identifier)
        early = self._early.pop(subscription, ())
        self._early_bytes -= sum(map(len, early))
        for data in early:
            self._transmit(subscription, data)
        self._follow(subscription, plans)

    def follow(self, subscription: Subscription, plans: Plans) -> None:
        self.node.reactor.call_soon(self._follow, subscription, plans)

    def _follow(self, subscription: Subscription, plans: Plans) -> None:
        if self.state not in OPEN or not subscription.is_open:
            return
        stream = self._streams.get(subscription)
        if stream is None:
            transport = self._cable.streams.of(subscription.identifier, self._extended, self.site_id)
            stream = StreamSubscriber(self.node.hub, transport, self, self._stream_ended)
            self._streams[subscription] = stream
            if not self.node.hub.add(stream):
                return
        history = self._histories.pop(subscription, NO_HISTORY)
        for plan in plans.plans:
            Join(self.node, stream, plan, partial(self._joined, stream)).start()
        if history is not NO_HISTORY:
            # A gap shows when the history is sent, and is told there.
            kind = "confirm_history" if plans.is_whole else "reject_history"
            self._say(type=kind, identifier=subscription.identifier)

    def _joined(self, stream: StreamSubscriber) -> None:
        self.node.hub.pacer.proceed(stream)

    def unfollow(self, subscription: Subscription, channels: list[str]) -> None:
        self.node.reactor.call_soon(self._unfollow, subscription, channels)

    def _unfollow(self, subscription: Subscription, channels: list[str]) -> None:
        stream = self._streams.get(subscription)
        if stream is not None:
            for channel in channels:
                self.node.hub.drop(stream, subscription_name(channel, self.site_id))

    def transmit(self, subscription: Subscription, data: bytes) -> None:
        self.node.reactor.call_soon(self._transmit, subscription, data)

    def _transmit(self, subscription: Subscription, data: bytes) -> None:
        if self.state not in OPEN or subscription.ended:
            return
        if not subscription.is_open:
            self._early.setdefault(subscription, []).append(data)
            self._early_bytes += len(data)
            if self._early_bytes > self.node.options.max_outbox:
                self.on_slow()
        else:
            name = encode_json(subscription.identifier)
            self.put(text_frame(b'{"identifier":%b,"message":%b}' % (name, data)))

    def refuse(self, subscription: Subscription, error: CommandError | None) -> None:
        if error is not None and error.code == "unavailable":
            # A rejection is for good, and the store comes back.
            self.end(RESYNC)
            return
        self._leave(subscription)
        self._reject(subscription.identifier, error)

    def forget(self, subscription: Subscription) -> None:
        self._cable.remove(subscription)

    # --- answers ---

    def _answer(self, said: Said, result: bytes | None, error: CommandError | None) -> None:
        if error is not None:
            self._fail(error, said)

    def _fail(self, error: CommandError, said: Said | None) -> None:
        if error.limit is not None:
            self.node.hub.refused.count(error.limit)
        if said is not None and said.command == "subscribe":
            self._reject(said.identifier, error)
            return
        # ActionCable's client takes it for a message to whom the identifier names, and fails where there is none: it is
        # to nobody.
        about = {"command": said.command, "identifier": said.identifier} if said is not None else {}
        self._say(type="error", identifier="", error={**_object(error), **about})

    def _reject(self, identifier: str, error: CommandError | None) -> None:
        told: dict[str, Any] = {"type": "reject_subscription", "identifier": identifier}
        if error is not None:
            told["error"] = _object(error)
        self._say(**told)

    def _say(self, **told: Any) -> None:
        if self.state in OPEN:
            self.put(text_frame(encode_json(told)))


def _object(error: CommandError) -> dict[str, Any]:
    return error_object(error.code, str(error), error.field, error.retry_after)
