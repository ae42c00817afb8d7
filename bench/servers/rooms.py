"""A Flask app whose channels below ``/rooms/`` are rooms: every client is a member, by its client id."""

from __future__ import annotations

from flask import Flask, request
from werkzeug.wrappers import Request

from messagebus import Member, MessageBus

app = Flask(__name__)
app.register_blueprint(MessageBus.blueprint)


@MessageBus.presence.member("/rooms/*")
def member(asked: Request, channel: str) -> Member:
    client_id = asked.path.split("/")[2]
    return Member(client_id, {"name": client_id})


@app.get("/count")
def count() -> str:
    return str(MessageBus.presence.count(request.args["channel"]))


@app.post("/join")
def join() -> str:
    """One member in each of ``count`` rooms."""
    base = request.args["channel"]
    for number in range(int(request.args["count"])):
        MessageBus.presence.join(f"{base}/{number}", number, {"name": str(number)})
    return ""
