"""An echo on a socket of its own: what the Autobahn cases talk to."""

from __future__ import annotations

from flask import Flask, Response

from messagebus import MessageBus, WebSocket

MessageBus.configure(max_commands=1_000_000, max_frame_size=32 << 20, max_outbox=256 << 20, max_outbox_total=512 << 20)
app = Flask(__name__)
app.register_blueprint(MessageBus.blueprint)


@app.get("/hello")
def hello() -> str:
    return "hello"


def talk(ws: WebSocket) -> None:
    for message in ws:
        ws.send(message)


# The cases come with arguments of their own, below this.
@app.get("/", defaults={"path": ""}, websocket=True)
@app.get("/<path:path>", websocket=True)
def echo(path: str) -> Response:
    return MessageBus.websocket(talk)
