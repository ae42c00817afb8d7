"""An app for real browsers: its pages write down what arrives, in ``window.received`` and its like."""

from __future__ import annotations

import os
from typing import Any

from flask import Flask, Response, abort, render_template, request
from werkzeug.wrappers import Request

from messagebus import MessageBus

from .common import routes

app = Flask(__name__)
app.register_blueprint(MessageBus.blueprint)
app.register_blueprint(routes)


@MessageBus.authorize("/secret/*")
def is_friend(request: Request, channel: str) -> bool:
    """Who may follow what begins so: those who bring the cookie, on whatever transport."""
    return request.cookies.get("friend") == "yes"


@MessageBus.allow_publish("/said/*")
def say(request: Request, channel: str, data: Any) -> Any:
    """Signs what friends publish."""
    if request.cookies.get("friend") != "yes":
        abort(403, "friends alone")
    return {"said": data, "by": "a friend"}


@MessageBus.allow_publish("/typing/*")
def mark(request: Request, channel: str, data: Any) -> Any:
    return data


@app.post("/say")
def post() -> Response:
    """Publishes a form's text to everybody but the page that has posted it."""
    me = MessageBus.client_id()
    MessageBus.publish(request.form["channel"], request.form["text"], exclude_client_ids=[me] if me else None)
    return Response(status=204)


@app.get("/page")
def page() -> Response:
    """Follows each ``channel`` of the query; static/browser.js says what else it takes.

    ``publish``: publish this text on the first channel while the page is made. ``csp``: send this
    Content-Security-Policy.
    """
    channels = request.args.getlist("channel")
    if "publish" in request.args:
        MessageBus.publish(channels[0], request.args["publish"])
    start = not ({"settings", "stopped"} & set(request.args))
    response = Response(render_template("browser.html", channels=channels, start=start))
    if "csp" in request.args:
        response.headers["Content-Security-Policy"] = request.args["csp"]
    response.headers["X-Process"] = str(os.getpid())
    return response


@app.get("/module")
def module() -> Response:
    """The same, with the client as an ES module, and thus without the positions that the helper knows."""
    response = Response(render_template("module.html"))
    response.headers["Content-Security-Policy"] = "default-src 'self'"
    return response
