"""Flask-SQLAlchemy with one database connection, which lookups and hooks of the bus take for their request."""

from __future__ import annotations

import os

from flask import Flask, Response, g, jsonify
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import text
from sqlalchemy.orm import Session
from sqlalchemy.pool import QueuePool
from werkzeug.wrappers import Request

from messagebus import MessageBus
from messagebus.options import Environ

WAIT_SECONDS = 2.0

app = Flask(__name__)
app.config["SQLALCHEMY_DATABASE_URI"] = os.environ.get("TEST_DATABASE", "sqlite://")
app.config["SQLALCHEMY_ENGINE_OPTIONS"] = {
    "poolclass": QueuePool,
    "pool_size": 1,
    "max_overflow": 0,
    "pool_timeout": WAIT_SECONDS,
    "connect_args": {"check_same_thread": False},
}
db = SQLAlchemy(app)


def query(value: int) -> int:
    if os.environ.get("TEST_SESSION") == "call_on_close":
        if "own_session" not in g:
            g.own_session = Session(db.engine)
        session = g.own_session
    else:
        session = db.session  # removed when the app's context is torn down
    found: int = session.execute(text("SELECT :value"), {"value": value}).scalar_one()
    return found


@app.after_request
def close_later(response: Response) -> Response:
    session = g.pop("own_session", None)
    if session is not None:
        response.call_on_close(session.close)
    return response


def user(environ: Environ) -> int:
    return query(7)


MessageBus.configure(user_id_lookup=user)


@MessageBus.authorize("/private/*")
def may(request: Request, channel: str) -> bool:
    return query(1) == 1


app.register_blueprint(MessageBus.blueprint)


@app.get("/hello")
def hello() -> str:
    return "hello"


@app.get("/database")
def database() -> Response:
    # This very request has one.
    return jsonify(found=query(5), checked_out=db.engine.pool.checkedout())  # type: ignore[attr-defined]
