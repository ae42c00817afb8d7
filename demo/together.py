"""Both ways: people sign in, see who is there and who types, whisper, share a board, and use a socket of their own.

Each page is an example: the route here, its template, and its script in static/together. What a page publishes goes
through a hook (``say``, ``point``), which decides who has said it. Nothing is kept of who types and of cursors.
"""

from __future__ import annotations

import secrets
from typing import Any

from flask import Blueprint, abort, redirect, render_template, request, session, url_for
from flask.typing import ResponseReturnValue
from werkzeug.wrappers import Request

from messagebus import Member, MessageBus, WebSocket

together = Blueprint("together", __name__, url_prefix="/together")

ROOM = "/together/room"
TYPING = "/together/typing"
BOARD = "/together/board"
KEPT = 100  # messages of the room
MAX_TEXT = 500  # characters
MAX_NAME = 24

MessageBus.configure(user_id_lookup=lambda environ: session.get("user_id"))


# --- who somebody is ---


@together.get("/")
def home() -> ResponseReturnValue:
    if "user_id" not in session:
        return render_template("together/sign-in.html", most=MAX_NAME)
    return redirect(url_for(".room"))


@together.post("/sign-in")
def sign_in() -> ResponseReturnValue:
    name = request.form.get("name", "").strip()[:MAX_NAME]
    if not name or not name.isprintable():
        abort(400, "name: expected some letters")
    session["user_id"], session["name"] = secrets.token_hex(4), name
    return redirect(url_for(".room"))


@together.post("/sign-out")
def sign_out() -> ResponseReturnValue:
    user_id = session.pop("user_id", None)
    if user_id is not None:
        MessageBus.disconnect(user_ids=[user_id], reason="signed out")  # in every window
    return redirect(url_for(".home"))


@together.before_request
def ask_who_it_is() -> ResponseReturnValue | None:
    if "user_id" not in session and request.endpoint not in ("together.home", "together.sign_in", "together.sign_out"):
        return redirect(url_for(".home"))
    return None


@MessageBus.authorize("/together/*")
def is_signed_in(request: Request, channel: str) -> bool:
    return "user_id" in session


# --- the room: who is here, who types, what is said, and to whom ---


@together.get("/room")
def room() -> str:
    return render_template("together/room.html", me=session["user_id"], channels={ROOM: 0, TYPING: -1})


@MessageBus.presence.member("/together/*")
def who(request: Request, channel: str) -> Member:
    return Member(session["user_id"], {"name": session["name"]})


@MessageBus.presence.on_join(ROOM)
def hello(channel: str, member: Member) -> None:
    MessageBus.publish(ROOM, {"line": f"hello {member.info['name']}"}, max_backlog_size=KEPT)


@MessageBus.presence.on_leave(ROOM)
def bye(channel: str, member: Member) -> None:
    MessageBus.publish(ROOM, {"line": f"{member.info['name']} left"}, max_backlog_size=KEPT)


@MessageBus.allow_publish(ROOM)
def say(request: Request, channel: str, data: Any) -> dict[str, str]:
    return {"from": session["user_id"], "name": session["name"], "text": checked(data, "text")}


@MessageBus.allow_publish(TYPING)
def types(request: Request, channel: str, data: Any) -> dict[str, str]:
    return {"from": session["user_id"], "name": session["name"]}


@together.post("/whisper")
def whisper() -> ResponseReturnValue:
    """To one person, in all their windows and one's own."""
    given = request.get_json()
    to = checked(given, "to")
    text = {"from": session["user_id"], "name": session["name"], "to": to, "text": checked(given, "text")}
    MessageBus.publish(ROOM, text, user_ids=[to, session["user_id"]], max_backlog_size=KEPT)
    return "", 204


def checked(given: Any, field: str) -> str:
    text = given.get(field) if isinstance(given, dict) else None
    if not isinstance(text, str) or not 0 < len(text) <= MAX_TEXT:
        abort(400, f"{field}: expected a text of up to {MAX_TEXT} characters")
    return text


# --- the board: everybody's cursor, many times a second ---


@together.get("/board")
def board() -> str:
    return render_template("together/board.html", me=session["user_id"], channels={BOARD: -1})


@MessageBus.allow_publish(BOARD)
def point(request: Request, channel: str, data: Any) -> dict[str, Any]:
    if not (isinstance(data, dict) and all(is_share(data.get(axis)) for axis in ("x", "y"))):
        abort(400, "x, y: expected numbers from 0 to 1")
    if not isinstance(data.get("at"), (int, float)):
        abort(400, "at: expected a number, the time on the sender's clock")
    return {"from": session["user_id"], "name": session["name"], "x": data["x"], "y": data["y"], "at": data["at"]}


def is_share(value: Any) -> bool:
    return isinstance(value, (int, float)) and 0 <= value <= 1


# --- a socket of one's own ---


@together.get("/echo")
def echo() -> str:
    return render_template("together/echo.html")


@together.get("/echo/socket", websocket=True)
def echo_socket() -> ResponseReturnValue:
    name = session["name"]

    def answer(ws: WebSocket, message: str | bytes) -> None:
        ws.send(f"{name} said: {message}" if isinstance(message, str) else message)

    return MessageBus.websocket(on_message=answer)
