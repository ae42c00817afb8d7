"""A socket of the application's own as the loop has it. To the hub it is a subscriber that follows nothing, so that it
counts against the same limits, and ends with the same orders."""

from __future__ import annotations

from _socket import socket as RawSocket

from websockets.frames import Close as CloseFrame
from websockets.frames import Frame, Opcode

from ..errors import FAILED, NOT_TEXT, TOO_MANY_TALKS, Close
from ..http.framed_subscriber import OPEN, FramedSubscriber
from ..hub.node import Node
from ..hub.revoking import meet
from ..hub.subscriber import Identity, Phase
from ..loop.pausable_writer import PausableWriter
from ..transports.websocket import OWN_SOCKET
from .handlers import Functions, Handler, handler_of
from .websocket import ABNORMAL, WebSocket

SILENT = Close(1011, "no answer to a ping")


class SocketSession(FramedSubscriber):
    """See the module. In the loop only."""

    __slots__ = ("_began", "_functions", "_handler", "_heard", "_pinged", "_said", "_socket", "_unsent")

    takes_binary = True
    reads = False
    writer: PausableWriter

    def __init__(
        self,
        node: Node,
        functions: Functions,
        identity: Identity,
        address: str,
        site_id: str | None,
        subprotocol: str | None,
        head: bytes,
        began: float,
    ) -> None:
        """``began``: when the view was asked, by the reactor's clock."""
        super().__init__(node, OWN_SOCKET, identity, head, address, site_id)
        options = node.options
        waits = functions.talk is not None
        self._began = began
        self._functions = functions
        self._socket = WebSocket(
            self, node.reactor, options.max_outbox, options.max_frame_size, waits=waits, subprotocol=subprotocol
        )
        self._handler: Handler | None = None
        self._said: CloseFrame | None = None
        self._unsent = 0
        self._pinged = self._heard = False

    def begin(self, sock: RawSocket, early: bytes) -> None:
        """Its socket was taken, ``early`` is what came behind the request."""
        node, functions = self._node, self._functions
        limit, outboxes = node.options.max_outbox, node.hub.outboxes
        self.writer = PausableWriter(sock, node.reactor, self, limit, outboxes, True)
        if not node.hub.add(self):
            return
        orders = node.hub.orders.since(self._began, self.identity, self.site_id)
        if meet(node.hub, self, orders, ()) is None:
            return
        has_thread = functions.talk is not None
        if not node.talks.begin(has_thread):
            node.hub.refused.count("max_talks")
            self.end(TOO_MANY_TALKS)
            return
        if self.head:
            self._put_head(0)
        node.hub.hold_open(self)
        handler = handler_of(functions, node, self._socket)
        try:
            handler.begin()
        except Exception as error:  # there are no more threads
            node.talks.end(has_thread)
            node.report(error, functions.where)
            self.end(FAILED)
            return
        self._handler = handler
        if early:
            self.on_data(early)

    # --- what the client sends ---

    def on_data(self, data: bytes) -> None:
        self._heard = True
        super().on_data(data)

    def _on_frame(self, frame: Frame) -> None:
        if frame.opcode is Opcode.CLOSE:
            self._said = CloseFrame.parse(frame.data)
        super()._on_frame(frame)

    def on_message(self, text: bytes) -> None:
        try:
            self._arrived(text.decode())
        except UnicodeDecodeError:
            self.end(NOT_TEXT)

    def on_binary(self, data: bytes) -> None:
        self._arrived(data)

    def _arrived(self, message: str | bytes) -> None:
        self._socket._arrived(message)
        if self._handler is not None:
            self._handler.arrived()

    def pause(self) -> None:
        if self.state is Phase.OPEN:
            self._heard = True  # it had no chance to be
            self.writer.pause_reading(self._socket._is_paused)

    # --- what it is sent ---

    def put_message(self, frame: bytes) -> None:
        if self.state is Phase.OPEN:
            self.messages += 1
            self.bytes += len(frame)
            self._unsent += len(frame)
            self.writer.put_piece((frame,))

    def on_drained(self) -> None:
        size, self._unsent = self._unsent, 0
        self._socket._left(size)

    # --- its end ---

    def on_deadline(self) -> None:
        if self.state is Phase.OPEN and not self._socket._is_paused:
            if self._pinged and not self._heard:
                self.end(SILENT)
                return
            self._pinged, self._heard = True, False
        super().on_deadline()

    def end(self, close: Close, last: bytes = b"") -> None:
        was_open = self.state in OPEN
        super().end(close, last)
        if was_open:
            self._tell_end(Close(self._said.code, self._said.reason) if self._said is not None else close)

    def on_closed(self) -> None:
        was_open = self.state in OPEN
        super().on_closed()
        if was_open:
            self._tell_end(ABNORMAL)

    def _tell_end(self, close: Close) -> None:
        self._socket._has_ended(close)
        if self._handler is not None:
            self._handler.ended()
