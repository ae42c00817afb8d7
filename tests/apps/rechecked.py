"""An app that takes permissions back, and ends sessions."""

from __future__ import annotations

from flask import Flask, abort, g
from werkzeug.wrappers import Request

from messagebus import MessageBus
from messagebus.options import Environ

from .common import routes

forbidden: set[str] = set()
broken: set[str] = set()
ended: set[str] = set()


def user(environ: Environ) -> str | None:
    name = environ.get("HTTP_X_USER")
    return None if name in ended else name


app = Flask(__name__)
app.config["SECRET_KEY"] = "a secret for tests"
MessageBus.configure(user_id_lookup=user)


@app.before_request
def begin() -> None:
    g.begun = True


@MessageBus.authorize("/chat-*")
def may_enter(request: Request, channel: str) -> bool:
    assert g.begun, "it is called as in a request"
    if channel in broken:
        raise LookupError("no answer")
    return channel not in forbidden


app.register_blueprint(MessageBus.blueprint)
app.register_blueprint(routes)


@app.post("/forbid/<name>")
def forbid(name: str) -> str:
    forbidden.add(f"/{name}")
    return "forbidden"


@app.post("/break/<name>")
def break_it(name: str) -> str:
    broken.add(f"/{name}")
    return "broken"


@app.post("/end/<name>")
def end(name: str) -> str:
    if not name:
        abort(404)
    ended.add(name)
    return "ended"
