"""A socket on ``/cable``: ActionCable's and AnyCable's commands, and the answers to them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

from ..errors import MALFORMED, RESYNC
from ..http.authorization import Handshake
from ..http.commands import CommandError
from ..http.framed_subscriber import OPEN
from ..hub.joining import Join
from ..hub.subscriber import Identity, Phase
from ..message import encode_json
from ..names import PRESENCE, subscription_name
from ..transports.websocket import text_frame
from ..wire import Position
from .cable import Cable
from .channel import Connection
from .commands import History, Malformed, Said, read_command, read_data, read_history, read_identifier
from .encoding import CABLE
from .planning import Planner, Plans
from .presence_commands import PresenceCommands
from .restoring import Restoring
from .socket import CableSocket
from .stream_subscriber import StreamSubscriber
from .subscription import Positions, Subscription

NO_HISTORY = History(None, {})
COMMANDS = ("unsubscribe", "message", "whisper")
"""Those for a subscription that there is."""
EXTENDED_COMMANDS = ("history", "join", "leave", "presence")
"""The same in AnyCable's protocol."""


class CableSession(CableSocket):
    """See the module. In the reactor's loop, except what a subscription needs in the thread of a call."""

    __slots__ = (
        "_cable",
        "_early",
        "_early_bytes",
        "_extended",
        "_handshake",
        "_held",
        "_histories",
        "_owner",
        "_planner",
        "_presence",
        "_restoring",
        "_sid",
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
        owner: str | None,
    ) -> None:
        """``owner``: whose session it is, in AnyCable's protocol; ``None``: it is ActionCable's."""
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
        self._planner = Planner(cable, handshake, identity, connection.site_id)
        self._presence: PresenceCommands | None = None
        self._owner = owner
        self._extended = owner is not None
        self._sid = ""
        self._restoring: Restoring | None = None
        self._held: dict[Subscription, Positions] = {}
        """Those that were restored, and whose history was not asked for yet -> where their streams were then."""
        self._subscriptions: dict[str, Subscription] = {}
        self._streams: dict[Subscription, StreamSubscriber] = {}
        self._histories: dict[Subscription, History] = {}
        self._early_bytes = 0
        self._early: dict[Subscription, list[bytes]] = {}
        """What was sent before the subscription was confirmed."""

    def begin(self, had: Sequence[str]) -> None:
        """The socket is ours. ``had``: the subscriptions of the session that comes back."""
        if not self.node.hub.add(self):
            return
        self.state = Phase.OPEN
        if self._owner is not None:
            self._sid = self._cable.recovery.begin(self._owner, self._subscriptions)
        if not had:
            self._welcome([], [])
            return
        restoring = self._restoring = Restoring(self.node.reactor, had, self._welcome, self._begin_held)
        for identifier in had:
            try:
                self._enter(identifier, NO_HISTORY)
            except CommandError:
                restoring.settle(identifier, False)

    def _welcome(self, restored: list[str], late: list[str]) -> None:
        if self.state not in OPEN:
            return
        for identifier in late:
            if identifier in self._subscriptions:
                self._leave(self._subscriptions[identifier])
        told: dict[str, Any] = {"type": "welcome", "sid": self._sid} if self._extended else {"type": "welcome"}
        if restored:
            told |= {"restored": True, "restored_ids": restored}
        self._say(**told)
        self._cable.pings.add(self)
        for identifier in restored:
            if identifier in self._subscriptions:
                self._send_early(self._subscriptions[identifier])

    def _begin_held(self) -> None:
        for subscription in [*self._held]:
            self._rewind(subscription, NO_HISTORY)

    # --- its end ---

    def _close(self) -> None:
        self._leave_all()
        super()._close()

    def on_closed(self) -> None:
        self._leave_all()
        super().on_closed()

    def _leave_all(self) -> None:
        # Who was told to disconnect has forgotten its session.
        self._cable.recovery.end(self._sid, self.close is None or self.close.code == 1000)
        if self._restoring is not None:
            self._restoring.end()
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
        self._held.pop(subscription, None)
        if self._presence is not None:
            self._presence.forget(subscription)
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
        elif said.command in COMMANDS or (said.command in EXTENDED_COMMANDS and self._extended):
            subscription = self._subscriptions.get(said.identifier)
            if subscription is None:
                raise CommandError("not_subscribed", "there is no subscription with this identifier")
            if said.command == "unsubscribe":
                self._leave(subscription)
            elif said.command == "message":
                action, data = read_data(said.data)
                subscription.perform(action, data, partial(self._answer, said))
            elif said.command == "whisper":
                subscription.whisper(said.data, partial(self._answer, said))
            elif said.command == "history":
                # After a welcome that restores it a client may have nothing to say of where it stands.
                is_needed = subscription not in self._held
                self._rewind(subscription, self._read_history(said, is_needed))
            else:
                self._presence_commands().carry_out(said.command, subscription)
        else:
            known = ", ".join(["subscribe", *COMMANDS, *((*EXTENDED_COMMANDS, "pong") if self._extended else ())])
            raise CommandError("bad_request", f"command: expected one of {known}, not {said.command:.80}")

    def _subscribe(self, said: Said) -> None:
        known = self._subscriptions.get(said.identifier)
        if known is not None:  # a client that has waited for its confirmation asks again
            if known.is_open:
                self._say(type="confirm_subscription", identifier=said.identifier)
            return
        self._enter(said.identifier, self._read_history(said), bool(said.presence))

    def _read_history(self, said: Said, is_needed: bool = False) -> History:
        has = self._extended and (said.history or is_needed)
        return read_history(said.history, self.node.options.max_channels) if has else NO_HISTORY

    def _enter(self, identifier: str, history: History, joins: bool = False) -> None:
        name, params = read_identifier(identifier)
        class_ = self._cable.classes.find(name)
        if class_ is None:
            raise CommandError("unknown_channel", f"there is no channel class {name:.80}", field="identifier")
        limit = self.node.options.max_channels
        if len(self._subscriptions) >= limit:
            reason = f"max_channels allows {limit} subscriptions of a connection"
            raise CommandError("too_many_channels", reason, "max_channels")
        subscription = Subscription(self, identifier, class_, params, {})
        self._subscriptions[identifier] = subscription
        self._histories[subscription] = history
        self._cable.add(subscription)
        subscription.begin()
        if joins and self._extended:
            self._presence_commands().carry_out("join", subscription)

    def _rewind(self, subscription: Subscription, history: History) -> None:
        """Send what a client has missed of a subscription that it has."""
        held = self._held.pop(subscription, {})
        if history != NO_HISTORY:
            self._histories[subscription] = history
            held = {}
        if subscription.is_open:
            subscription.read_again({channel: held.get(channel, Position()) for channel in [*subscription.streams]})

    def _presence_commands(self) -> PresenceCommands:
        if self._presence is None:
            self._presence = PresenceCommands(self.node, self._planner, self._follow, self._streams.get, self._say)
        return self._presence

    # --- what a subscription needs of its client ---

    def context(self) -> AbstractContextManager[object]:
        return self._handshake.entered()

    def plan(self, subscription: Subscription, positions: Positions) -> Plans:
        return self._planner.plan(positions, self._histories.get(subscription, NO_HISTORY))

    def confirm(self, subscription: Subscription, plans: Plans) -> None:
        restoring = self._restoring
        if restoring is not None and restoring.waits_for(subscription.identifier):
            self._held[subscription] = {channel: self._now(channel) for channel in [*subscription.streams]}
            restoring.settle(subscription.identifier, True)
            return
        self._say(type="confirm_subscription", identifier=subscription.identifier)
        self._send_early(subscription)
        self._follow(subscription, plans)

    def _now(self, channel: str) -> Position:
        name = subscription_name(channel, self.site_id)
        return Position(global_id=self.node.hub.windows.reached_for([name]))

    def _send_early(self, subscription: Subscription) -> None:
        early = self._early.pop(subscription, ())
        self._early_bytes -= sum(map(len, early))
        for data in early:
            self._transmit(subscription, data)

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
                for name in (channel, f"{PRESENCE}{channel}"):
                    self.node.hub.drop(stream, subscription_name(name, self.site_id))

    def transmit(self, subscription: Subscription, data: bytes) -> None:
        self.node.reactor.call_soon(self._transmit, subscription, data)

    def _transmit(self, subscription: Subscription, data: bytes) -> None:
        if self.state not in OPEN or subscription.ended:
            return
        restoring = self._restoring
        if not subscription.is_open or (restoring is not None and restoring.is_under_way):
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
        restoring = self._restoring
        if restoring is not None and restoring.waits_for(subscription.identifier):
            restoring.settle(subscription.identifier, False)
        else:
            self._reject(subscription.identifier, error)

    def forget(self, subscription: Subscription) -> None:
        self._cable.remove(subscription)
