"""The chat's server: pages, a route to post to, a route for what was said earlier. All else the bus does.

A room is a channel: what is said in /r/lobby is published on /chat/lobby. The bus is in four places: the blueprint is
registered; ``room`` hands the page its position; ``messages_before`` reads the backlog; ``post`` publishes. The rest is
a Flask app that checks what it is given.
"""

from __future__ import annotations

import math
import os
import re
import secrets
import time
from collections.abc import Sequence
from typing import Any

from flask import Flask, Response, abort, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import HTTPException, TooManyRequests

from messagebus import BackendUnavailable, Message, MessageBus, MessageBusError

from .rate_limit import RateLimit
from .together import together

app = Flask(__name__)
app.config["MAX_CONTENT_LENGTH"] = 16 * 1024
# Of the pages where one signs in. Set it where several processes serve, or where a restart must not sign everybody out.
app.secret_key = os.environ.get("SECRET_KEY") or secrets.token_bytes()
app.register_blueprint(MessageBus.blueprint)
app.register_blueprint(together)

ROOMS = ("lobby", "kitchen", "workshop")
PAGE = 50  # messages on a page, and in each answer to "load 50 earlier"
KEPT = 1000  # messages of a room that are kept
MAX_TEXT = 2000  # characters
MAX_NAME = 40

TRANSPORTS = (
    ("automatic", "Automatic", "the best that gets through"),
    ("websocket", "WebSocket", "both ways, one connection"),
    ("eventsource", "EventSource", "one long answer, events"),
    ("streaming", "Streaming", "one long answer, chunks"),
    ("long-polling", "Long-polling", "a request waits for news"),
    ("polling", "Polling", "asks every 2 seconds"),
)

ROOM = re.compile(r"[\w-]{1,40}")
KEY = re.compile(r"[0-9a-f]{16,32}", re.ASCII)
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")

# Of each address. Whoever runs this for many people puts a shared limit in front of it.
may_post = RateLimit(per_second=2, burst=20)
may_read = RateLimit(per_second=5, burst=50)


@app.get("/")
def home() -> ResponseReturnValue:
    return redirect(url_for("room", name="lobby"))


@app.get("/r")
def open_room() -> ResponseReturnValue:
    """Where the form with the room's name leads."""
    name = re.sub(r"[^\w-]+", "-", request.args.get("name", "").strip().lower()).strip("-")[:40]
    return redirect(url_for("room", name=name or "lobby"))


@app.get("/r/<name>")
def room(name: str) -> str:
    channel = channel_of(name)
    position = MessageBus.last_id(channel)
    messages, more = messages_before(channel, position + 1)
    # The template hands the position to message_bus(): the page shows everything up to it, the bus brings what follows.
    return render_template(
        "room.html",
        name=name,
        rooms=ROOMS,
        channel=channel,
        position=position,
        messages=messages,
        more=more,
        now=milliseconds(),
        transports=TRANSPORTS,
        survives=not MessageBus.options.url.startswith("memory:"),
        limits={"text": MAX_TEXT, "name": MAX_NAME, "kept": KEPT},
    )


@app.get("/r/<name>/messages")
def earlier(name: str) -> dict[str, Any]:
    """Up to 50 messages before the one with the id ``?before=``."""
    check_rate(may_read)
    before = request.args.get("before", "")
    if not (before.isascii() and before.isdigit() and len(before) <= 15):
        abort(400, "before: expected the number of a message")
    messages, more = messages_before(channel_of(name), int(before))
    return {"messages": messages, "more": more}


@app.post("/r/<name>/messages")
def post(name: str) -> ResponseReturnValue:
    # Only JSON: a page of another site cannot send that without being allowed to, so no token is needed.
    check_rate(may_post)
    channel, given = channel_of(name), request.get_json()
    if not isinstance(given, dict):
        abort(400, "expected a JSON object with name and text")
    said = {
        # Chosen by the browser. Nobody logs in here, so a name is what somebody says it is.
        "author": checked_key(given, "author"),
        # Tells the sender's page which of its messages this is, also if it had to send it twice. Other programs send
        # neither.
        "key": checked_key(given, "key"),
        "name": checked_text(given, "name", MAX_NAME),
        "text": checked_text(given, "text", MAX_TEXT),
        "at": milliseconds(),
    }
    message_id = MessageBus.publish(channel, said, max_backlog_size=KEPT)
    # Without an id: the store is away, and the bus keeps the message until it is back.
    return {"message_id": message_id}, 202 if message_id is None else 201


def channel_of(name: str) -> str:
    if not ROOM.fullmatch(name):
        abort(404, "a room's name has 1 to 40 letters, digits, - or _")
    return f"/chat/{name}"


def messages_before(channel: str, before: int) -> tuple[list[dict[str, Any]], bool]:
    """The newest messages with ids below ``before``, at most a page of them, and whether there are more."""
    # One more than a page, to see whether there is one.
    kept = [m for m in MessageBus.backlog(channel, max(before - PAGE - 2, 0)) if m.message_id < before]
    return [as_shown(message) for message in kept[-PAGE:]], len(kept) > PAGE


def as_shown(message: Message) -> dict[str, Any]:
    # Other programs may publish to the room as well, and whatever they like.
    said = message.data if isinstance(message.data, dict) else {"text": message.data}
    texts = {key: as_text(said.get(key, "")) for key in ("author", "key", "name", "text")}
    at = said.get("at")
    return {
        **texts,
        "name": texts["name"] or "somebody",
        "at": at if isinstance(at, int) and 0 < at < 10**14 else None,
        "id": message.message_id,
        "global_id": message.global_id,
    }


def as_text(value: object) -> str:
    return value if isinstance(value, str) else app.json.dumps(value)


def checked_text(given: dict[str, Any], field: str, most: int) -> str:
    text = given.get(field)
    if not isinstance(text, str):
        abort(400, f"{field}: expected a text")
    text = CONTROL.sub("", text.replace("\r\n", "\n")).strip()
    if not text:
        abort(400, f"{field}: it is empty")
    if len(text) > most:
        abort(400, f"{field}: {len(text)} characters; {most} are allowed")
    return text


def checked_key(given: dict[str, Any], field: str) -> str:
    key: object = given.get(field, "")
    if not isinstance(key, str) or (key and not KEY.fullmatch(key)):
        abort(400, f"{field}: expected 16 to 32 hexadecimal digits")
    return key


def check_rate(limit: RateLimit) -> None:
    wait = limit.take(request.remote_addr or "")
    if wait:
        raise TooManyRequests("too many at once; wait a few seconds", retry_after=math.ceil(wait))


def milliseconds() -> int:
    return round(time.time() * 1000)


@app.template_filter("clock")
def clock(at: int) -> str:
    """For readers without script; the page's script shows the reader's own time instead."""
    return time.strftime("%H:%M UTC", time.gmtime(at / 1000))


@app.template_filter("iso")
def iso(at: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at / 1000))


@app.errorhandler(HTTPException)
def refused(error: HTTPException) -> ResponseReturnValue:
    if error.code is None or error.code < 400:
        return error
    headers = [(name, value) for name, value in error.get_headers() if name != "Content-Type"]
    return told(error.code, error.description or error.name, headers)


@app.errorhandler(MessageBusError)
def bus_failed(error: MessageBusError) -> ResponseReturnValue:
    if isinstance(error, BackendUnavailable):
        return told(503, "the store is away; try again in a moment")
    return told(400, str(error))


def told(status: int, message: str, headers: Sequence[tuple[str, str]] = ()) -> ResponseReturnValue:
    """What went wrong: JSON for the page's script, a page for people."""
    if request.path.endswith("/messages"):
        return {"error": message}, status, headers
    return render_template("error.html", message=message), status, headers


@app.after_request
def harden(response: Response) -> Response:
    # Everything from here, nothing inline: even text that slipped in as HTML could not run.
    response.headers.setdefault(
        "Content-Security-Policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    )
    response.headers.setdefault("X-Content-Type-Options", "nosniff")
    response.headers.setdefault("Referrer-Policy", "same-origin")
    return response
