"""A subscriber on a WebSocket as its frames arrive: puts messages together, and keeps the limits. RFC 6455."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

from websockets.exceptions import PayloadTooBig, ProtocolError
from websockets.frames import Close as CloseFrame
from websockets.frames import Frame, Opcode

from ..errors import BINARY, TOO_BIG, TOO_MANY_COMMANDS, VIOLATION, Close
from ..hub.node import Node
from ..hub.subscriber import Identity, Phase, Subscriber
from ..transports import Transport
from ..transports.websocket import pong_frame
from .frame_reader import FrameReader

MAX_FRAGMENTS = 1000
OPEN = (Phase.OPENING, Phase.OPEN)


class FramedSubscriber(Subscriber):
    """See the module. Runs in the reactor's loop."""

    __slots__ = ("_allowance", "_allowed_at", "_fragments", "_is_binary", "_node", "_reader")

    takes_binary: ClassVar[bool] = False
    """Whether it may send binary messages; otherwise one closes the connection."""

    def __init__(
        self,
        node: Node,
        transport: Transport,
        identity: Identity,
        head: bytes,
        address: str,
        site_id: str | None,
        takes_refusals: bool = False,
        *,
        more: int = 0,
    ) -> None:
        """``more``: frames that it may send at the beginning, beyond those of the first second."""
        super().__init__(node.hub, transport, identity, head, None, address, site_id, takes_refusals)
        self._node = node
        self._reader: FrameReader | None = None  # only while a frame is incomplete
        self._fragments: list[bytes] | None = None
        self._is_binary = False
        self._allowance = float(node.options.max_commands + more)
        self._allowed_at = node.reactor.clock()

    @abstractmethod
    def on_message(self, text: bytes) -> None:
        """The client has sent a whole text message; it need not be UTF-8."""

    def on_binary(self, data: bytes) -> None:
        """The client has sent a whole binary message."""

    def on_data(self, data: bytes) -> None:
        if self.state not in OPEN:
            return
        reader, self._reader = self._reader or FrameReader(self._node.options.max_frame_size), None
        reader.feed(data)
        try:
            while self.state in OPEN and (frame := reader.take()) is not None:
                self._on_frame(frame)
        except PayloadTooBig:
            self._end_at_limit("max_frame_size", TOO_BIG)
        except ProtocolError as error:
            self.end(Close(VIOLATION.code, str(error)))
        except UnicodeDecodeError:  # the reason in a close frame
            self.end(VIOLATION)
        if self.state in OPEN and not reader.is_between_frames:
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
        elif frame.opcode is Opcode.BINARY and not self.takes_binary:
            self.end(BINARY)
        elif frame.opcode is not Opcode.PONG:
            self._on_part(frame)

    def _on_part(self, frame: Frame) -> None:
        """A message, or a fragment of one."""
        if (frame.opcode is Opcode.CONT) is (self._fragments is None):
            self.end(VIOLATION)
            return
        if frame.opcode is not Opcode.CONT:
            self._is_binary = frame.opcode is Opcode.BINARY
        fragments = [*(self._fragments or ()), bytes(frame.data)]
        if sum(map(len, fragments)) > self._node.options.max_frame_size or len(fragments) > MAX_FRAGMENTS:
            self._end_at_limit("max_frame_size", TOO_BIG)
        elif not frame.fin:
            self._fragments = fragments
        else:
            self._fragments = None
            message = b"".join(fragments)
            if self._is_binary:
                self.on_binary(message)
            else:
                self.on_message(message)

    def _spend(self) -> bool:
        """Count a frame against the client's allowance of commands, which refills with time. ``False``: it has none,
        and is ended."""
        now, most = self._node.reactor.clock(), self._node.options.max_commands
        refilled = min(float(most), self._allowance + (now - self._allowed_at) * most)
        self._allowance = max(self._allowance, refilled) - 1
        self._allowed_at = now
        if self._allowance < 0:
            self._end_at_limit("max_commands", TOO_MANY_COMMANDS)
        return self._allowance >= 0

    def _end_at_limit(self, limit: str, close: Close) -> None:
        self._node.hub.refused.count(limit)
        self.end(close)
