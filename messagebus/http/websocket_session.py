"""A subscriber on a WebSocket: its commands, and the frames it sends. RFC 6455; frames are parsed by the websockets
library.

A parser exists only while a frame is incomplete, so that an idle connection costs no more than any other.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping
from functools import partial
from typing import Any

import msgspec
from websockets.exceptions import PayloadTooBig, ProtocolError
from websockets.frames import Close as CloseFrame
from websockets.frames import Frame, Opcode
from websockets.streams import StreamReader

from ..errors import (
    BINARY,
    MALFORMED,
    TOO_BIG,
    TOO_MANY_COMMANDS,
    VIOLATION,
    BackendUnavailable,
    Close,
    InvalidChannel,
    InvalidData,
    InvalidPosition,
)
from ..hub.joining import join, put_due
from ..hub.node import Node, SubscriptionPlan
from ..hub.permissions import matches
from ..hub.recovery import CatchUp
from ..hub.subscriber import Identity, Phase, Subscriber
from ..message import check_channel, encode_json, store_name
from ..transports import WEBSOCKET
from ..transports.websocket import pong_frame, text_frame
from .positions import parse_wants

logger = logging.getLogger("messagebus.http")

MAX_UNANSWERED = 100
"""Commands of one client that may wait for the store or the feed; more end the connection."""
_COMMANDS = ("subscribe", "unsubscribe", "publish", "ping")
_OPEN = (Phase.OPENING, Phase.LIVE)
_CODES: dict[type[Exception], str] = {InvalidChannel: "invalid_channel", InvalidPosition: "invalid_position"}


Refused = Callable[[Iterable[str], Iterable[str]], list[str]]
"""Channels and grants -> those of the channels that the client may not subscribe to. May block."""


class CommandError(Exception):
    """A command that is not carried out; ``code`` is for programs."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class WebSocketSubscriber(Subscriber):
    """See the module. Everything but the jobs that it spawns happens in the reactor's loop."""

    __slots__ = (
        "_allowance",
        "_allowed_at",
        "_commands",
        "_fragments",
        "_node",
        "_parser",
        "_reader",
        "_refused",
        "_site_id",
    )

    def __init__(
        self, node: Node, identity: Identity, head: bytes, site_id: str | None, refused: Refused | None
    ) -> None:
        """``refused``: asks who may subscribe to what; ``None``: everybody may."""
        super().__init__(node.hub, WEBSOCKET, identity, head, None)
        self._node = node
        self._site_id = site_id
        self._refused = refused
        self._reader: StreamReader | None = None
        self._parser: Generator[None, None, Frame] | None = None
        self._fragments: list[bytes] | None = None
        self._commands: deque[dict[str, Any]] | None = None  # None: none is being carried out
        self._allowance = float(node.options.max_commands)
        self._allowed_at = node.reactor.clock()

    # --- frames ---

    def on_data(self, data: bytes) -> None:
        if self.state not in _OPEN:
            return
        if self._reader is None:
            self._reader = StreamReader()
        self._reader.feed_data(data)
        try:
            while (frame := self._parse(self._reader)) is not None and self.state in _OPEN:
                self._on_frame(frame)
        except PayloadTooBig:
            self.end(TOO_BIG)
        except ProtocolError as error:
            self.end(Close(VIOLATION.code, str(error)[:100]))
        except UnicodeDecodeError:  # the reason in a close frame
            self.end(VIOLATION)
        if self._parser is None:
            self._reader = None

    def _parse(self, reader: StreamReader) -> Frame | None:
        """The next frame, or ``None`` where it is not all there yet."""
        if self._parser is None:
            if not reader.buffer:
                return None
            self._parser = Frame.parse(reader.read_exact, mask=True, max_size=self._node.options.max_frame_size)
        try:
            next(self._parser)
        except StopIteration as done:
            self._parser = None
            frame: Frame = done.value
            return frame
        return None

    def _on_frame(self, frame: Frame) -> None:
        if frame.opcode is Opcode.CLOSE:
            received = CloseFrame.parse(frame.data)
            self.end(Close(received.code if received.code != 1005 else 1000, ""))
            return
        # Every kind of frame: a read full of empty ones would take the loop a tenth of a second.
        self._spend()
        if self.state not in _OPEN:
            return
        if frame.opcode is Opcode.PING:
            self.outlet.put(pong_frame(bytes(frame.data)))
        elif frame.opcode is Opcode.BINARY:
            self.end(BINARY)
        elif frame.opcode is not Opcode.PONG:
            self._on_text(frame)

    def _on_text(self, frame: Frame) -> None:
        if (frame.opcode is Opcode.CONT) is (self._fragments is None):
            self.end(VIOLATION)
            return
        fragments = [*(self._fragments or ()), bytes(frame.data)]
        if sum(map(len, fragments)) > self._node.options.max_frame_size or len(fragments) > 1000:
            self.end(TOO_BIG)
        elif not frame.fin:
            self._fragments = fragments
        else:
            self._fragments = None
            self._on_command(b"".join(fragments))

    # --- commands ---

    def _on_command(self, text: bytes) -> None:
        try:
            command = msgspec.json.decode(text)
        # The others are none of the first: text that is not UTF-8, and nesting without end.
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            self.end(MALFORMED)
            return
        if not isinstance(command, dict):
            self._fail({}, CommandError("bad_request", "a command is a JSON object"))
        elif self._commands is None and self.state is Phase.LIVE:
            self._carry_out(command)
        else:  # after the one that waits, or after it has joined what it came with
            if self._commands is None:
                self._commands = deque()
            if len(self._commands) < MAX_UNANSWERED:
                self._commands.append(command)
            else:
                self.end(TOO_MANY_COMMANDS)

    def on_live(self) -> None:
        self._go_on()

    def _spend(self) -> None:
        """Count a frame against the client's allowance of commands, which refills with time."""
        now, most = self._node.reactor.clock(), self._node.options.max_commands
        self._allowance = min(float(most), self._allowance + (now - self._allowed_at) * most) - 1
        self._allowed_at = now
        if self._allowance < 0:
            self.end(TOO_MANY_COMMANDS)

    def _carry_out(self, command: dict[str, Any]) -> None:
        if self.state not in _OPEN:
            return
        try:
            verbs = [key for key in command if key not in ("id", "grants")]
            if len(verbs) != 1 or verbs[0] not in _COMMANDS:
                raise CommandError(
                    "bad_request", f"expected one of {', '.join(_COMMANDS)}; not {', '.join(verbs)[:100]}"
                )
            getattr(self, "_" + verbs[0])(command, command[verbs[0]])
        except (CommandError, InvalidChannel, InvalidPosition, InvalidData) as error:
            self._fail(command, error)

    def _ping(self, command: dict[str, Any], _: Any) -> None:
        self._say({"id": command.get("id"), "ok": {"pong": command["ping"]}})

    def _unsubscribe(self, command: dict[str, Any], channels: Any) -> None:
        if not isinstance(channels, list):
            raise CommandError("bad_request", "unsubscribe: expected a list of channels")
        names = {store_name(check_channel(channel), self._site_id) for channel in channels}
        for channel in list(self.channels):
            if channel.name in names:
                self.hub.drop(self, channel)
        self._succeed(command, {})

    def _subscribe(self, command: dict[str, Any], positions: Any) -> None:
        if not isinstance(positions, dict):
            raise CommandError("bad_request", "subscribe: expected an object of channels and positions")
        # Whoever is connected was told the epoch, so that a position beyond the last id means nothing.
        epoch = self.hub.epoch
        wants = parse_wants(positions, site_id=self._site_id, client_epoch=epoch, store_epoch=epoch)
        names = {channel.name for channel in self.channels} | {want.name for want in wants}
        limit = self._node.options.max_channels
        if len(names) > limit:
            raise CommandError("too_many_channels", f"{len(names)} channels; max_channels allows {limit}")

        grants = command.get("grants", [])
        if not isinstance(grants, list) or not all(isinstance(grant, str) for grant in grants):
            raise CommandError("bad_request", "grants: expected a list of tokens")

        def check_and_read() -> SubscriptionPlan:
            for channel in self._refused([want.channel for want in wants], grants) if self._refused else ():
                raise CommandError("forbidden", f"{channel}: this client may not subscribe to it")
            return read()

        def read() -> SubscriptionPlan:
            return self._node.prepare(lambda _: wants)

        def finish(prepared: SubscriptionPlan) -> None:
            if self._commands is None:
                self._commands = deque()  # an unsubscribe that follows must not overtake it
            join(self.hub, self, prepared, read, joined)

        def joined(due: CatchUp) -> None:
            self._succeed(command, {})
            put_due(self.hub, self, due, False)
            if self.state is Phase.LIVE:
                self.hub.set_live(self)
            self._go_on()

        self._do(command, self._refused is None and self._node.knows(wants), check_and_read, finish)

    def _publish(self, command: dict[str, Any], message: Any) -> None:
        if not isinstance(message, dict) or set(message) != {"channel", "data"}:
            raise CommandError("bad_request", "publish: expected an object of channel and data")
        channel = check_channel(message["channel"])
        if not any(matches(pattern, channel) for pattern in self._node.options.client_publish):
            raise CommandError("forbidden", f"clients may not publish to {channel}")

        def publish() -> int | None:
            ids = self._node.publish(store_name(channel, self._site_id), message["data"])
            return ids and ids.message_id

        def finish(message_id: int | None) -> None:
            self._succeed(command, {"message_id": message_id})
            self._go_on()

        self._do(command, not self._node.store.shared, publish, finish)

    def _do(self, command: dict[str, Any], now: bool, job: Any, finish: Any) -> None:
        """Do a job that may have to wait for the store, where waiting is allowed. Commands after it keep their turn:
        ``finish`` calls ``_go_on`` when it is."""
        if now:
            finish(job())
            return
        self._commands = deque()

        def run() -> None:
            try:
                result = job()
            except BackendUnavailable as error:
                answer = partial(fail, CommandError("unavailable", str(error)))
            except (CommandError, InvalidData) as error:
                answer = partial(fail, error)
            except BaseException as error:  # gevent's timeouts, which a hook may have set, are no Exception
                logger.exception("a command failed")
                answer = partial(fail, CommandError("internal", type(error).__name__))
            else:
                answer = partial(finish, result)
            self._node.reactor.call_soon(then, answer)

        def fail(error: Exception) -> None:
            self._fail(command, error)
            self._go_on()

        def then(answer: Callable[[], None]) -> None:
            if self.state in _OPEN:
                answer()

        self._node.reactor.spawn(run)

    def _go_on(self) -> None:
        """A command is done: carry out those that came meanwhile, up to one that has to wait in its turn."""
        commands, self._commands = self._commands, None
        while commands and self._commands is None:
            self._carry_out(commands.popleft())
        if commands and self._commands is not None:
            self._commands.extend(commands)

    # --- answers ---

    def _succeed(self, command: Mapping[str, Any], result: dict[str, Any]) -> None:
        if "id" in command:
            self._say({"id": command["id"], "ok": result})

    def _fail(self, command: Mapping[str, Any], error: Exception) -> None:
        code = error.code if isinstance(error, CommandError) else _CODES.get(type(error), "invalid_data")
        self._say({"id": command.get("id"), "error": {"code": code, "message": str(error)}})

    def _say(self, answer: dict[str, Any]) -> None:
        if answer.get("id") is None:
            answer.pop("id", None)
        if self.state in _OPEN:
            self.put(text_frame(encode_json(answer)))
