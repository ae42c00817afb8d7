"""An app with rooms: who is there, and who has come and gone."""

from __future__ import annotations

import os
from typing import Any

from flask import Flask, Response, jsonify, render_template, request
from werkzeug.wrappers import Request

from messagebus import Member, MessageBus
from messagebus.http import context
from messagebus.hub import presence
from messagebus.options import Environ

from .common import routes

if "SILENT_SECONDS" in os.environ:
    presence.SILENT_SECONDS = float(os.environ["SILENT_SECONDS"])
    presence.BEAT_SECONDS = presence.SILENT_SECONDS / 5
    presence.TICK_SECONDS = presence.SILENT_SECONDS / 20


def user(environ: Environ) -> str | None:
    found: str | None = environ.get("HTTP_X_USER")
    return found


MessageBus.configure(user_id_lookup=user, site_id_lookup=lambda environ: environ.get("HTTP_X_SITE"))
app = Flask(__name__)
app.register_blueprint(MessageBus.blueprint)
app.register_blueprint(routes)
context.POLL_SECONDS = float(os.environ.get("POLL_SECONDS", context.POLL_SECONDS))


@MessageBus.authorize("/rooms/closed/*")
def may_enter(asked: Request, channel: str) -> bool:
    return user(asked.environ) == "owner"


@MessageBus.presence.member("/rooms/*")
def member(asked: Request, channel: str) -> Member | None:
    name = user(asked.environ) or asked.cookies.get("user")
    return None if name is None else Member(name, {"name": name.title()})


if "HOOKS" in os.environ:

    @MessageBus.presence.on_join("/rooms/*")
    def joined(channel: str, who: Member) -> None:
        MessageBus.publish("/log", ["joined", channel, who.id])

    @MessageBus.presence.on_leave("/rooms/*")
    def left(channel: str, who: Member) -> None:
        MessageBus.publish("/log", ["left", channel, who.id])


@app.get("/members")
def members() -> Response:
    channel, site = request.args["channel"], request.args.get("site")
    return jsonify(
        members=sorted(([*each] for each in MessageBus.presence.members(channel, site)), key=str),
        count=MessageBus.presence.count(channel, site),
    )


@app.post("/join")
def join() -> str:
    given: dict[str, Any] = request.get_json()
    MessageBus.presence.join(**given)
    return "joined"


@app.post("/leave")
def leave() -> str:
    given: dict[str, Any] = request.get_json()
    MessageBus.presence.leave(**given)
    return "left"


@app.get("/")
def page() -> str:
    return render_template("presence.html")
