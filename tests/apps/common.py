"""What several apps of the tests have."""

from __future__ import annotations

import os

from flask import Blueprint, Response, jsonify, request

from messagebus import MessageBus

routes = Blueprint("common", __name__)


def note(text: str) -> None:
    """Write a line into the file that the environment names, where there is one; each is written whole."""
    path = os.environ.get("NOTES")
    if path is not None:
        with open(path, "a") as file:
            file.write(text + "\n")


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
