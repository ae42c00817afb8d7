"""The frames of a WebSocket of ours, with an echo in place of the bus's commands: what the Autobahn cases talk to."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from flask import Flask
from websockets.frames import Frame, Opcode

from messagebus import MessageBus
from messagebus.errors import MALFORMED
from messagebus.http import streaming_response
from messagebus.http.websocket_session import WebSocketSubscriber
from messagebus.options import Environ
from messagebus.transports import WEBSOCKET
from messagebus.transports.websocket import text_frame

# An echo says nothing by itself: no first batch, no epoch.
type(WEBSOCKET).begins = False
type(WEBSOCKET).tells_epoch = False


class Echo(WebSocketSubscriber):
    """Sends back what it is sent. Binary messages, which the bus refuses, are echoed as well."""

    __slots__ = ("_is_binary",)

    def on_live(self) -> None:
        self.put(b"")  # with it goes the head of the response
        super().on_live()

    def _on_frame(self, frame: Frame) -> None:
        if frame.opcode in (Opcode.TEXT, Opcode.BINARY):
            self._is_binary = frame.opcode is Opcode.BINARY
        if frame.opcode is Opcode.BINARY:
            self._on_text(frame)
        else:
            super()._on_frame(frame)

    def _on_message(self, text: bytes) -> None:
        if self._is_binary:
            echoed = text_frame(text)
            self.put(b"\x82" + echoed[1:])
            return
        try:
            text.decode()
        except UnicodeDecodeError:
            self.end(MALFORMED)
            return
        self.put(text_frame(text))


streaming_response.WebSocketSubscriber = Echo  # type: ignore[attr-defined]
MessageBus.configure(max_commands=1_000_000, max_frame_size=32 << 20, max_outbox=256 << 20, max_outbox_total=512 << 20)
flask_app = Flask(__name__)
flask_app.register_blueprint(MessageBus.blueprint)


@flask_app.get("/hello")
def hello() -> str:
    return "hello"


def app(environ: Environ, start_response: Any) -> Iterable[bytes]:
    """Every WebSocket is one of the bus, whatever its path."""
    if environ.get("HTTP_UPGRADE"):
        environ["PATH_INFO"], environ["QUERY_STRING"] = "/message-bus/autobahn/ws", ""
    return flask_app(environ, start_response)
