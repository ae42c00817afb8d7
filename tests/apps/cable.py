"""An app with channel classes, and an empty page for their clients."""

from __future__ import annotations

import os
from typing import Any

from flask import Flask, Response, jsonify, render_template, request

from messagebus import Channel, Member, MessageBus
from messagebus.cable import own_client

from .common import note, routes

app = Flask(__name__)
app.secret_key = "of the tests"
app.register_blueprint(MessageBus.blueprint)
app.register_blueprint(routes)
own_client.GRANT_SECONDS = float(os.environ.get("GRANT_SECONDS", own_client.GRANT_SECONDS))


@MessageBus.connect
def connect(request: Any) -> dict[str, Any] | bool:
    return {"name": request.args.get("name", "somebody")} if "stranger" not in request.args else False


@MessageBus.channel
class RoomChannel(Channel):
    def subscribed(self) -> None:
        if self.params["id"] == "secret":
            self.reject()
            return
        # A channel without a rule of presence, where the room is called so.
        kind = "rooms" if self.params["id"] != "quiet" else "quiet"
        self.stream_from(f"/{kind}/{self.params['id']}", whisper=True)
        note(f"subscribed {self.params['id']}")

    def unsubscribed(self) -> None:
        if not self.is_rejected:
            note(f"unsubscribed {self.params['id']}")
            self.broadcast("/left", self.params["id"])

    def speak(self, data: dict[str, Any]) -> dict[str, bool]:
        self.broadcast(f"/rooms/{self.params['id']}", {"text": data["text"], "from": self.connection.name})
        return {"ok": True}

    def fail(self) -> None:
        raise ValueError("a detail")

    def where(self) -> None:
        self.transmit({"instance": os.environ.get("INSTANCE")})


@MessageBus.presence.member("/rooms/*")
def member(request: Any, channel: str) -> Member | None:
    return Member(request.args["member"]) if "member" in request.args else None


@app.get("/empty")
def empty() -> str:
    return "<!doctype html><title>empty</title>"


@app.get("/channel")
def channel() -> str:
    """A page of our own client; ``id`` is the room, ``settings`` those of the client."""
    return render_template("channel.html")


@app.get("/members")
def members() -> Response:
    """Who is in a room, as this process knows it."""
    found = MessageBus.presence.members(request.args["room"])
    return jsonify(instance=os.environ.get("INSTANCE"), members=sorted(member.id for member in found))


@app.get("/left")
def left() -> Response:
    """What came after a position on the channel of those who have left."""
    found = MessageBus.backlog("/left", int(request.args.get("after", 0)))
    return jsonify([message.data for message in found])
