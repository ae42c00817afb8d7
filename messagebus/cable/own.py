"""Channel classes for the bus's own clients: ``enter``, ``perform`` and ``leave``, whatever they come over.

The process in which a client has entered keeps the subscription; calls that come to another one are passed on. See
docs/design.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from weakref import WeakValueDictionary

import msgspec

from ..http.authorization import Handshake
from ..http.channel_commands import GUEST, Answer, Fail
from ..http.command import Caller, CommandError
from ..http.refusals import RETRY_SECONDS
from ..hub.node import Node
from ..hub.orders import DISCONNECT, read_order
from ..message import encode_json, id_key
from .cable import Cable
from .channel import Connection
from .classes import ChannelClasses, ConnectRefused
from .commands import MAX_IDENTIFIER
from .forwarding import Call, Forwarding
from .handshake import identify, make_connection
from .own_client import ANSWERS, OwnClient
from .still_there import StillThere
from .subscription import Publish, Subscription
from .turns import Turns


class OwnSubscriptions:
    """Those that clients have entered in this process. In the reactor's loop, except :meth:`call`."""

    def __init__(self, cable: Cable) -> None:
        self.cable = cable
        self._node = node = cable.node
        self._entered: dict[str, tuple[OwnClient, Subscription]] = {}
        self._by_key: dict[tuple[str, str], OwnClient] = {}
        self._numbers: dict[str, int] = {}
        """Client -> how many of them are its."""
        self._turns: WeakValueDictionary[str, Turns] = WeakValueDictionary()
        self._forwarding = Forwarding(node, self._carry_out)
        node.workers.on(DISCONNECT, self._disconnect)
        self.still_there = StillThere(node, self._clients, self._end_gone)

    def _turns_of(self, client_id: str) -> Turns:
        turns = self._turns.get(client_id)
        if turns is None:
            turns = self._turns[client_id] = self.cable.turns()
        return turns

    # --- from any thread ---

    def call(self, verb: str, caller: Caller, value: Any, answer: Answer, fail: Fail) -> None:
        """Carry a command out. ``answer`` or ``fail`` is called in the loop, once."""
        call = Call(verb, caller.identity.client_id, _text(caller.identity.user_id), value)
        self._node.reactor.call_soon(self._begin, call, caller, answer, fail)

    # --- commands ---

    def _begin(self, call: Call, caller: Caller, answer: Answer, fail: Fail) -> None:
        try:
            if call.verb == "enter" and not (isinstance(call.value, dict) and "id" in call.value):
                self._enter(call, caller, answer, fail)
                return
            value = _fields(call.verb, call.value, {"id": str}, {"action": str, "data": dict, "key": str})
            worker = value["id"].partition(".")[0]
            if worker == self._node.workers.id:
                self._carry_out(call, answer, fail)
            else:
                self._forwarding.send(worker, call, answer, fail)
        except CommandError as error:
            fail(error)

    def _enter(self, call: Call, caller: Caller, answer: Answer, fail: Fail) -> None:
        value = _fields("enter", call.value, {"channel": str}, {"params": dict, "key": str, "grants": list})
        class_ = self.cable.classes.find(value["channel"])
        if class_ is None:
            raise CommandError("unknown_channel", f"there is no channel class {value['channel']:.80}", field="channel")
        params = value.get("params", {})
        if len(encode_json(params)) > MAX_IDENTIFIER:
            raise CommandError("params_too_long", f"params: {MAX_IDENTIFIER} bytes are the most", field="params")
        if self._was_asked_before(call, value, answer, fail):
            return
        self._check_limits(call)
        grants = value.get("grants", [])
        if not all(isinstance(token, str) for token in grants):
            raise CommandError("bad_request", "grants: expected a list of strings", field="grants")
        handshake = caller.handshake
        if handshake is None:
            raise CommandError("unavailable", "this connection began before a channel class was there; connect again")

        def enter(connection: Connection) -> None:
            if self.cable.classes.connect is not None:  # while that was asked, others have entered
                if self._was_asked_before(call, value, answer, fail):
                    return
                try:
                    self._check_limits(call)
                except CommandError as error:
                    fail(error)
                    return
            client = OwnClient(self.cable, self._turns_of(call.client_id), caller.identity, connection, handshake)
            client.forgotten = self._forget
            client.waiting.append((answer, fail))
            if "key" in value:
                client.key = (call.client_id, value["key"])
                self._by_key[client.key] = client
            subscription = Subscription(client, client.id, class_, params, {})
            self._entered[client.id] = (client, subscription)
            self._numbers[call.client_id] = self._numbers.get(call.client_id, 0) + 1
            self.cable.add(subscription)
            self.still_there.begin(call.client_id)
            subscription.begin()

        def connect() -> None:
            soon = self._node.reactor.call_soon
            try:
                soon(enter, self._connect(caller, handshake, grants))
            except ConnectRefused as refused:
                soon(fail, CommandError("forbidden", str(refused)))
            except BaseException as error:  # gevent's timeouts, which a hook may have set, are no Exception
                soon(fail, CommandError.of(error))

        if self.cable.classes.connect is None:
            enter(self._connect(caller, handshake, grants))
        else:
            self._node.command_jobs.start(connect)

    def _was_asked_before(self, call: Call, value: dict[str, Any], answer: Answer, fail: Fail) -> bool:
        """Whether the client asks again, for the answer was lost; then it gets the first one's."""
        known = self._by_key.get((call.client_id, value.get("key", "")))
        if known is None:
            return False
        if known.entered is not None:
            answer(known.entered)
        else:
            known.waiting.append((answer, fail))
        return True

    def _check_limits(self, call: Call) -> None:
        """
        Raises:
            CommandError: There is no room for one more subscription of this client, or of any.
        """
        if len(self._entered) >= self._node.hub.capacity:
            reason = "max_active_clients subscriptions are held here; come back"
            raise CommandError("unavailable", reason, "max_active_clients", retry_after=RETRY_SECONDS)
        limit = self._node.options.max_channels
        if self._numbers.get(call.client_id, 0) >= limit:
            raise CommandError("too_many_channels", f"max_channels allows {limit} subscriptions", "max_channels")

    def _connect(self, caller: Caller, handshake: Handshake, grants: Iterable[str]) -> Connection:
        """Who the client is, with the grants that it shows here and those of its connection. In a job where there is a
        ``connect`` hook, which may block and raise."""
        identifiers: Mapping[str, Any] = {}
        if self.cable.classes.connect is not None:
            with handshake.entered() as request:
                identifiers = self.cable.classes.identify(request)
        identity, options = identify(caller.identity, identifiers), self._node.options
        shown = (*grants, *handshake.grants)
        return make_connection(identity, caller.site_id, caller.address, identifiers, shown, options)

    def _carry_out(self, call: Call, answer: Answer, fail: Fail) -> None:
        """A command for a subscription of this process."""
        value = call.value
        client, subscription = self._entered.get(value["id"], (None, None))
        known = client is not None and client.identity.client_id == call.client_id
        if client is None or subscription is None or not known or subscription.ended:
            fail(CommandError("gone", "there is no such subscription, or it has ended: enter again"))
        elif _text(client.identity.user_id) != call.user_id:
            fail(CommandError("gone", "somebody else is signed in now: enter again"))
        elif call.verb == "enter":  # is it still there?
            if client.entered is not None:
                answer(client.entered)
            else:
                client.waiting.append((answer, fail))
        elif call.verb == "leave":
            subscription.leave()
            answer({})
        else:
            self._perform(client, subscription, value, answer, fail)

    def _perform(
        self, client: OwnClient, subscription: Subscription, value: dict[str, Any], answer: Answer, fail: Fail
    ) -> None:
        key = value.get("key")
        if key is not None and key in client.answers:
            found = client.answers[key]
            if found is None:
                fail(CommandError("unavailable", "the action is being carried out", retry_after=1))
            elif isinstance(found, CommandError):
                fail(found)
            else:
                answer(found)
            return

        def done(result: bytes | None, error: CommandError | None) -> None:
            found = error if error is not None else {"result": msgspec.json.decode(result or b"null")}
            if key is not None:
                client.answers[key] = found
            if isinstance(found, CommandError):
                fail(found)
            else:
                answer(found)

        try:
            subscription.perform(value.get("action", "receive"), value.get("data", {}), done)
        except CommandError as error:
            fail(error)
            return
        if key is not None:
            client.answers[key] = None
            while len(client.answers) > ANSWERS:
                client.answers.popitem(last=False)

    def _forget(self, client: OwnClient) -> None:
        if self._entered.pop(client.id, None) is not None:
            client_id = client.identity.client_id
            self._numbers[client_id] -= 1
            if not self._numbers[client_id]:
                del self._numbers[client_id]
        if client.key is not None:
            self._by_key.pop(client.key, None)

    # --- clients that are no longer there ---

    def _clients(self) -> list[str]:
        return [*self._numbers]

    def _disconnect(self, told: Any) -> None:
        """The application has ended the connections of some users and clients."""
        order = read_order(told)
        if order is None:
            return
        users = {id_key(user_id) for user_id in order.user_ids}
        for client, subscription in [*self._entered.values()]:
            who = identify(client.identity, client.connection.identifiers)
            meant = who.client_id in order.client_ids or who.user_id in users
            if meant and order.is_for(client.connection.site_id):
                subscription.leave()

    def _end_gone(self, gone: set[str]) -> None:
        for client, subscription in [*self._entered.values()]:
            if client.identity.client_id in gone:
                subscription.leave()


def _text(user_id: bytes | None) -> str | None:
    return None if user_id is None else user_id.decode()


def _fields(verb: str, value: Any, needed: Mapping[str, type], more: Mapping[str, type]) -> dict[str, Any]:
    """
    Raises:
        CommandError: The value has not what it needs, or something else.
    """
    if not isinstance(value, dict):
        raise CommandError("bad_request", f"{verb}: expected an object")
    for field, kind in {**needed, **more}.items():
        if (field in value or field in needed) and not isinstance(value.get(field), kind):
            expected = "a string" if kind is str else "an object" if kind is dict else "a list"
            raise CommandError("bad_request", f"{field}: expected {expected}", field=field)
    unknown = [field for field in value if field not in needed and field not in more]
    if unknown:
        raise CommandError("bad_request", f"{verb}: there is no field {unknown[0]:.80}")
    return value


def serve_channels(node: Node, classes: ChannelClasses, publish: Publish) -> None:
    """Have a process serve channel classes, on ``/cable`` and to the bus's own clients. May be repeated."""
    if GUEST not in node.guests:
        cable = Cable(node, classes, publish)
        cable.calls = own = OwnSubscriptions(cable)
        node.on_poll = own.still_there.saw
        node.guests[GUEST] = cable
        cable.start()
