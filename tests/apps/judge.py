"""An app whose page loads either client, message-bus-client from npm or ours, with the same verbs over both."""

from __future__ import annotations

from pathlib import Path

from flask import Flask, Response, render_template, send_from_directory

from messagebus import Message, MessageBus

from .common import routes

NODE_MODULES = Path(__file__).resolve().parents[2] / "node_modules"
SCRIPTS = {
    "npm": ["/node_modules/jquery/dist/jquery.min.js", "/node_modules/message-bus-client/assets/message-bus.js"],
    "ours": ["/message-bus/static/messagebus.js"],
}

app = Flask(__name__)
app.register_blueprint(MessageBus.blueprint)
app.register_blueprint(routes)


@app.get("/judge/<client>")
def judge(client: str) -> str:
    return render_template("judge.html", scripts=SCRIPTS[client])


@app.get("/node_modules/<path:path>")
def module(path: str) -> Response:
    return send_from_directory(NODE_MODULES, path)


@app.post("/turn-away")
def turn_away() -> str:
    """Ends every held response, in every process of the server, as when it is about to be replaced."""
    MessageBus.publish("/turn-away", None)
    return "they are told"


@MessageBus.subscribe("/turn-away")
def end_what_is_held(message: Message) -> None:
    MessageBus._running_node().turn_away()
