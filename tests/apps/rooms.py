"""An app with rooms that are used both ways: published to, acted in, and watched."""

from __future__ import annotations

import os
import secrets
import time
from typing import Any

from flask import Flask, Response, jsonify, request
from werkzeug.wrappers import Request

from messagebus import Channel, Member, MessageBus
from messagebus.hub import presence

from .common import note, routes

if "SILENT_SECONDS" in os.environ:
    presence.SILENT_SECONDS = float(os.environ["SILENT_SECONDS"])
    presence.BEAT_SECONDS = presence.SILENT_SECONDS / 5
    presence.TICK_SECONDS = presence.SILENT_SECONDS / 25

app = Flask(__name__)
app.secret_key = "of the tests"
app.register_blueprint(MessageBus.blueprint)
app.register_blueprint(routes)


@MessageBus.allow_publish("/rooms/*")
def may_publish(asked: Request, channel: str, data: Any) -> Any:
    return {**data, "by": asked.headers["X-User"]}


@MessageBus.presence.member("/rooms/*")
def member(asked: Request, channel: str) -> Member:
    return Member(asked.headers["X-User"])


@MessageBus.presence.on_join("/rooms/*")
def joined(channel: str, who: Member) -> None:
    MessageBus.publish("/log", ["joined", who.id, time.time()])


@MessageBus.presence.on_leave("/rooms/*")
def left(channel: str, who: Member) -> None:
    MessageBus.publish("/log", ["left", who.id, time.time()])


@MessageBus.connect
def connect(asked: Request) -> dict[str, Any]:
    return {"name": asked.headers["X-User"]}


@MessageBus.channel
class RoomChannel(Channel):
    def subscribed(self) -> None:
        self.token = secrets.token_hex(8)
        note(f"subscribed {os.getpid()} {self.token}")
        self.stream_from(self.params["room"])

    def unsubscribed(self) -> None:
        note(f"unsubscribed {os.getpid()} {self.token}")

    def speak(self, data: dict[str, Any]) -> dict[str, Any]:
        self.broadcast(self.params["room"], {"n": data["n"], "by": self.connection.name})
        self.transmit({"ack": data["n"]})
        return {"ack": data["n"]}


@app.get("/members")
def members() -> Response:
    return jsonify(
        {room: sorted(m.id for m in MessageBus.presence.members(room)) for room in request.args["rooms"].split(",")}
    )
