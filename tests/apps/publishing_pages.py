"""An app whose pages publish what it lets them."""

from __future__ import annotations

from typing import Any

from flask import Flask, abort, request, session
from werkzeug.wrappers import Request

from messagebus import BackendUnavailable, MessageBus

from .common import routes

app = Flask(__name__)
app.secret_key = "a secret for tests"
app.register_blueprint(MessageBus.blueprint)
app.register_blueprint(routes)


@app.post("/login")
def login() -> str:
    session["name"] = request.args["name"]
    return "hello"


@app.get("/backlog")
def backlog() -> list[Any]:
    return [message.data for message in MessageBus.backlog(request.args["channel"])]


@MessageBus.allow_publish("/chat/*")
def signed(request: Request, channel: str, data: Any) -> Any:
    if "name" not in session:
        abort(403, "log in first")
    return {"text": data["text"], "by": session["name"]}


@MessageBus.allow_publish("/chat/loud/*")
def louder(request: Request, channel: str, data: Any) -> Any:
    return {**data, "text": data["text"].upper()}


@MessageBus.allow_publish("/silent")
def forgetful(request: Request, channel: str, data: Any) -> Any:
    """A hook that returns nothing."""


@MessageBus.allow_publish("/away")
def away(request: Request, channel: str, data: Any) -> Any:
    raise BackendUnavailable("the hook's own store")
