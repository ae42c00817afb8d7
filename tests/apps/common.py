"""What several apps of the tests have."""

from __future__ import annotations

from flask import Blueprint, Response, jsonify, request

from messagebus import MessageBus

routes = Blueprint("common", __name__)


@routes.get("/hello")
def hello() -> str:
    return "hello"


@routes.post("/publish")
def publish() -> Response:
    """``channel``, ``data`` (a list: each is a message) and the options of ``publish`` by their names."""
    arguments = request.get_json()
    channel, data = arguments.pop("channel"), arguments.pop("data")
    return jsonify(ids=[MessageBus.publish(channel, item, **arguments) for item in data])


@routes.post("/revoke")
def revoke() -> str:
    """With a ``channel`` what ``unsubscribe`` takes, otherwise what ``disconnect`` takes."""
    arguments = request.get_json()
    if "channel" in arguments:
        MessageBus.unsubscribe(**arguments)
    else:
        MessageBus.disconnect(**arguments)
    return "told"


@routes.get("/subscribers")
def subscribers() -> str:
    """How many it holds, in this process."""
    return str(len(MessageBus._running_node().hub.membership))
