"""The smallest app with a bus: one ordinary page, and one that publishes."""

from __future__ import annotations

from flask import Flask, Response, jsonify, request

from messagebus import MessageBus

app = Flask(__name__)
app.register_blueprint(MessageBus.blueprint)


@app.get("/hello")
def hello() -> str:
    return "hello"


@app.post("/publish")
def publish() -> Response:
    """Publishes what the JSON body says: ``channel``, ``data``, and the options of ``publish`` by their names."""
    arguments = request.get_json()
    channel, data = arguments.pop("channel"), arguments.pop("data", None)
    return jsonify(message_id=MessageBus.publish(channel, data, **arguments))
