"""A subscriber on a WebSocket: the commands it sends, and the answers to them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec

from ..errors import MALFORMED, TOO_MANY_COMMANDS
from ..hub.node import Node
from ..hub.subscribe_request import SubscribeRequest
from ..message import encode_json
from ..transports import Transport
from ..transports.websocket import text_frame
from .authorization import Handshake
from .command import Caller, Command, CommandError
from .commands import CommandQueue, read_command
from .framed_subscriber import OPEN, FramedSubscriber
from .refusals import error_object


class WebSocketSubscriber(FramedSubscriber):
    """See the module. Runs in the reactor's loop, except the blocking parts of commands."""

    __slots__ = ("_commands", "_handshake")

    def __init__(
        self, node: Node, transport: Transport, request: SubscribeRequest, head: bytes, handshake: Handshake | None
    ) -> None:
        """``handshake``: what later subscriptions are authorized with; ``None``: everybody may subscribe."""
        super().__init__(
            node,
            transport,
            request.identity,
            head,
            request.address,
            request.site_id,
            request.params.takes_refusals,
        )
        self._handshake = handshake
        self._commands = CommandQueue(idle=False)  # until it has joined what it came with

    # --- commands ---

    def on_message(self, text: bytes) -> None:
        try:
            command = msgspec.json.decode(text)
        # The others are none of the first: text that is not UTF-8, and nesting without end.
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            self.end(MALFORMED)
            return
        if not self._commands.push(command, self._carry_out):
            self._end_at_limit("max_commands", TOO_MANY_COMMANDS)

    def on_live(self) -> None:
        self._done()

    def _done(self) -> None:
        self._commands.done(self._carry_out)

    def _carry_out(self, said: Any) -> None:
        if self.state not in OPEN:
            return
        fields = said if isinstance(said, dict) else {}
        try:
            command = read_command(self._caller(), said)
            if command.start(partial(self._answer, fields), partial(self._tell, fields)):
                self._done()
                return
            result = command.perform_at_once()
        except Exception as error:
            self._fail(fields, error)
            return
        if result is not None:
            self._complete(fields, command, result)
        else:
            try:
                self._node.command_jobs.start(partial(self._perform, fields, command))
            except RuntimeError as error:  # there is no thread for it
                self._fail(fields, error)

    def _caller(self) -> Caller:
        return Caller(self._node, self.identity, self.site_id, self.address, self, self._handshake, self.takes_refusals)

    def _perform(self, fields: dict[str, Any], command: Command) -> None:
        """Where it may block."""
        if self.state not in OPEN:
            return  # it has gone while others were asked for
        finish: Callable[[], None]
        try:
            finish = partial(self._complete, fields, command, command.perform())
        except BaseException as error:  # gevent's timeouts, which a hook may have set, are no Exception
            finish = partial(self._fail, fields, error)
        self._node.reactor.call_soon(finish)

    def _complete(self, fields: dict[str, Any], command: Command, result: Any) -> None:
        if self.state in OPEN:
            command.complete(result, partial(self._answer, fields), self._done)

    # --- answers ---

    def _answer(self, fields: dict[str, Any], result: dict[str, Any]) -> None:
        # A ping is always answered: with it a client checks whether the connection is alive.
        if "id" in fields or "ping" in fields:
            self._say(fields, "ok", result)

    def _fail(self, fields: dict[str, Any], error: BaseException) -> None:
        self._tell(fields, CommandError.of(error))
        self._done()

    def _tell(self, fields: dict[str, Any], told: CommandError) -> None:
        if told.limit is not None:
            self._node.hub.refused.count(told.limit)
        self._say(fields, "error", error_object(told.code, str(told), told.field, told.retry_after))

    def _say(self, fields: dict[str, Any], key: str, value: dict[str, Any]) -> None:
        number = fields.get("id")
        if self.state in OPEN:
            self.put(text_frame(encode_json({key: value} if number is None else {"id": number, key: value})))
