"""Sockets of an app's own, of every kind that the tests ask for."""

from __future__ import annotations

import json
import threading
from typing import Any

from flask import Flask, Response, abort, current_app, g, has_request_context, jsonify, request

from messagebus import ConnectionClosed, MessageBus, WebSocket
from messagebus.options import Environ

from .common import routes


def user(environ: Environ) -> str | None:
    return environ.get("HTTP_X_USER")


MessageBus.configure(user_id_lookup=user)
app = Flask(__name__)
app.register_blueprint(MessageBus.blueprint)
app.register_blueprint(routes)
log: list[Any] = []
torn_down = 0


@app.teardown_appcontext
def tear_down(error: BaseException | None) -> None:
    global torn_down
    torn_down += not g.get("is_request", False)


@app.before_request
def mark() -> None:
    g.is_request = True


@app.after_request
def add_headers(response: Response) -> Response:
    response.headers["X-After"] = "kept"
    response.set_cookie("seen", "yes")
    return response


@app.get("/log")
def read_log() -> Response:
    hub = MessageBus._running_node().hub
    return jsonify(
        log=log,
        threads=[thread.name for thread in threading.enumerate() if thread.name == "messagebus-talk"],
        running=MessageBus._running_node().talks.wait(0),
        sockets=hub.membership.by_transport.get("socket", 0),
        addresses=len(hub.membership.addresses),
        torn_down=torn_down,
    )


@app.get("/talk", websocket=True)
def talking() -> Response:
    name = request.args.get("name", "")
    if name == "intruder":
        abort(403)

    def talk(ws: WebSocket) -> None:
        ws.send(json.dumps({"name": name, "app": current_app.name, "request": has_request_context()}))
        try:
            while True:
                message = ws.receive()
                if message == "raise":
                    raise RuntimeError("the talk fails")
                if message == "return":
                    return
                if message == "close":
                    ws.close(4001, "as you like")
                if message == "silence":
                    ws.send(str(ws.receive(timeout=0.05)))
                    continue
                assert message is not None
                ws.send(message)
        except ConnectionClosed as closed:
            log.append([name, closed.code, closed.reason])
            print("ended", name, closed.code, flush=True)
            raise

    return MessageBus.websocket(talk, subprotocols=["b", "a"])


@app.get("/flood", websocket=True)
def flooding() -> Response:
    """Sends more than anybody reads."""

    def talk(ws: WebSocket) -> None:
        try:
            while True:
                ws.send(bytes(10_000))
        except ConnectionClosed as closed:
            log.append(["flood", closed.code])

    return MessageBus.websocket(talk)


@app.get("/deaf", websocket=True)
def deaf() -> Response:
    """Receives nothing before it is told to."""
    go = threading.Event()
    app.extensions["go"] = go

    def talk(ws: WebSocket) -> None:
        go.wait(60)
        for count, message in enumerate(ws):
            if message == "how many?":
                ws.send(str(count))

    return MessageBus.websocket(talk)


@app.get("/go")
def go() -> str:
    app.extensions["go"].set()
    return "gone"


@app.get("/called", websocket=True)
def called() -> Response:
    name = request.args.get("name", "")

    def on_open(ws: WebSocket) -> None:
        log.append([name, "open", ws.subprotocol])
        ws.send("welcome")

    def on_message(ws: WebSocket, message: str | bytes) -> None:
        if message == "raise":
            raise RuntimeError("the function fails")
        if message == "close":
            ws.close()
        elif message == "flood":
            while True:
                ws.send(bytes(100_000))
        else:
            ws.send(message)

    def on_close(ws: WebSocket) -> None:
        log.append([name, "close", ws.close_code, ws.close_reason, current_app.name])
        print("ended", name, ws.close_code, flush=True)

    return MessageBus.websocket(on_open=on_open, on_message=on_message, on_close=on_close)


@app.get("/anybody", websocket=True)
def anybody() -> Response:
    return MessageBus.websocket(on_message=WebSocket.send, allowed_origins=["*"])


@app.get("/plain")
def plain() -> Response:
    """A rule that is for no WebSocket."""
    return MessageBus.websocket(on_message=WebSocket.send)
