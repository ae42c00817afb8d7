"""A subscriber on a WebSocket: the frames it sends, and the answers to its commands. RFC 6455."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec
from websockets.exceptions import PayloadTooBig, ProtocolError
from websockets.frames import Close as CloseFrame
from websockets.frames import Frame, Opcode

from ..errors import BINARY, MALFORMED, TOO_BIG, TOO_MANY_COMMANDS, VIOLATION, Close
from ..hub.node import Node
from ..hub.subscribe_request import SubscribeRequest
from ..hub.subscriber import Phase, Subscriber
from ..message import encode_json
from ..transports import Transport
from ..transports.websocket import pong_frame, text_frame
from .authorization import Handshake
from .commands import Caller, Command, CommandError, CommandQueue, read_command
from .frame_reader import FrameReader
from .refusals import error_object

MAX_FRAGMENTS = 1000
_OPEN = (Phase.OPENING, Phase.OPEN)


class WebSocketSubscriber(Subscriber):
    """See the module. Runs in the reactor's loop, except the blocking parts of commands."""

    __slots__ = (
        "_allowance",
        "_allowed_at",
        "_commands",
        "_fragments",
        "_handshake",
        "_node",
        "_reader",
    )

    def __init__(
        self, node: Node, transport: Transport, request: SubscribeRequest, head: bytes, handshake: Handshake | None
    ) -> None:
        """``handshake``: what later subscriptions are authorized with; ``None``: everybody may subscribe."""
        takes_refusals = request.params.takes_refusals
        super().__init__(
            node.hub, transport, request.identity, head, None, request.address, request.site_id, takes_refusals
        )
        self._node = node
        self._handshake = handshake
        self._reader: FrameReader | None = None  # only while a frame is incomplete
        self._fragments: list[bytes] | None = None
        self._commands = CommandQueue(idle=False)  # until it has joined what it came with
        self._allowance = float(node.options.max_commands)
        self._allowed_at = node.reactor.clock()

    # --- frames ---

    def on_data(self, data: bytes) -> None:
        if self.state not in _OPEN:
            return
        reader, self._reader = self._reader or FrameReader(self._node.options.max_frame_size), None
        reader.feed(data)
        try:
            while self.state in _OPEN and (frame := reader.take()) is not None:
                self._on_frame(frame)
        except PayloadTooBig:
            self._end_at_limit("max_frame_size", TOO_BIG)
        except ProtocolError as error:
            self.end(Close(VIOLATION.code, str(error)))
        except UnicodeDecodeError:  # the reason in a close frame
            self.end(VIOLATION)
        if self.state in _OPEN and not reader.is_between_frames:
            self._reader = reader

    def _on_frame(self, frame: Frame) -> None:
        if frame.opcode is Opcode.CLOSE:
            received = CloseFrame.parse(frame.data)
            self.end(Close(received.code if received.code != 1005 else 1000, ""))
            return
        # Every kind of frame counts: a read full of empty ones would take the loop a tenth of a second.
        if not self._spend():
            return
        if frame.opcode is Opcode.PING:
            self.writer.put(pong_frame(bytes(frame.data)))
        elif frame.opcode is Opcode.BINARY:
            self.end(BINARY)
        elif frame.opcode is not Opcode.PONG:
            self._on_text(frame)

    def _on_text(self, frame: Frame) -> None:
        if (frame.opcode is Opcode.CONT) is (self._fragments is None):
            self.end(VIOLATION)
            return
        fragments = [*(self._fragments or ()), bytes(frame.data)]
        if sum(map(len, fragments)) > self._node.options.max_frame_size or len(fragments) > MAX_FRAGMENTS:
            self._end_at_limit("max_frame_size", TOO_BIG)
        elif not frame.fin:
            self._fragments = fragments
        else:
            self._fragments = None
            self._on_message(b"".join(fragments))

    def _spend(self) -> bool:
        """Count a frame against the client's allowance of commands, which refills with time. ``False``: it has none,
        and is ended."""
        now, most = self._node.reactor.clock(), self._node.options.max_commands
        self._allowance = min(float(most), self._allowance + (now - self._allowed_at) * most) - 1
        self._allowed_at = now
        if self._allowance < 0:
            self._end_at_limit("max_commands", TOO_MANY_COMMANDS)
        return self._allowance >= 0

    def _end_at_limit(self, limit: str, close: Close) -> None:
        self._node.hub.refused.count(limit)
        self.end(close)

    # --- commands ---

    def _on_message(self, text: bytes) -> None:
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
        if self.state not in _OPEN:
            return
        fields = said if isinstance(said, dict) else {}
        try:
            command = read_command(self._caller(), said)
            result = command.perform_at_once()
        except Exception as error:
            self._fail(fields, error)
            return
        if result is not None:
            self._complete(fields, command, result)
        else:
            self._node.command_jobs.start(partial(self._perform, fields, command))

    def _caller(self) -> Caller:
        return Caller(self._node, self.identity, self.site_id, self.address, self, self._handshake, self.takes_refusals)

    def _perform(self, fields: dict[str, Any], command: Command) -> None:
        """Where it may block."""
        if self.state not in _OPEN:
            return  # it has gone while others were asked for
        finish: Callable[[], None]
        try:
            finish = partial(self._complete, fields, command, command.perform())
        except BaseException as error:  # gevent's timeouts, which a hook may have set, are no Exception
            finish = partial(self._fail, fields, error)
        self._node.reactor.call_soon(finish)

    def _complete(self, fields: dict[str, Any], command: Command, result: Any) -> None:
        if self.state in _OPEN:
            command.complete(result, partial(self._answer, fields), self._done)

    # --- answers ---

    def _answer(self, fields: dict[str, Any], result: dict[str, Any]) -> None:
        # A ping is always answered: with it a client checks whether the connection is alive.
        if "id" in fields or "ping" in fields:
            self._say(fields, "ok", result)

    def _fail(self, fields: dict[str, Any], error: BaseException) -> None:
        told = CommandError.of(error)
        if told.limit is not None:
            self._node.hub.refused.count(told.limit)
        self._say(fields, "error", error_object(told.code, str(told), told.field, told.retry_after))
        self._done()

    def _say(self, fields: dict[str, Any], key: str, value: dict[str, Any]) -> None:
        number = fields.get("id")
        if self.state in _OPEN:
            self.put(text_frame(encode_json({key: value} if number is None else {"id": number, key: value})))
