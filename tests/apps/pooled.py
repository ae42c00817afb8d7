"""An app with one database connection, which every lookup and hook of the bus takes for its request."""

from __future__ import annotations

import os
import queue
import sqlite3
import threading

from flask import Flask, Response, g, jsonify, request
from werkzeug.wrappers import Request

from messagebus import MessageBus
from messagebus.options import Environ

WAIT_SECONDS = 2.0

app = Flask(__name__)
pool: queue.Queue[sqlite3.Connection] = queue.Queue()
pool.put(sqlite3.connect(":memory:", check_same_thread=False))
counts = {"taken": 0, "given back": 0, "before": 0, "call_on_close": 0, "teardown": 0}
lock = threading.Lock()


def count(what: str) -> None:
    with lock:
        counts[what] += 1


def select(value: int) -> int:
    if "connection" not in g:
        g.connection = pool.get(timeout=WAIT_SECONDS)
        count("taken")
    found: int = g.connection.execute("SELECT ?", (value,)).fetchone()[0]
    return found


def give_back(connection: sqlite3.Connection | None) -> None:
    if connection is not None:
        pool.put(connection)
        count("given back")


def user(environ: Environ) -> int:
    return select(7)


@app.before_request
def begin() -> None:
    count("before")
    g.user = request.headers.get("X-User", "nobody")


@app.after_request
def finish_later(response: Response) -> Response:
    connection = g.pop("connection", None) if os.environ.get("GIVE_BACK") == "call_on_close" else None

    def closed() -> None:
        count("call_on_close")
        give_back(connection)

    response.call_on_close(closed)
    return response


@app.teardown_appcontext
def tear_down(error: BaseException | None) -> None:
    count("teardown")
    give_back(g.pop("connection", None))


MessageBus.configure(user_id_lookup=user)


@MessageBus.authorize("/private/*")
def owner_only(request: Request, channel: str) -> bool:
    return bool(select(1)) and channel == f"/private/{g.user}"


app.register_blueprint(MessageBus.blueprint)


@app.get("/hello")
def hello() -> str:
    return "hello"


@app.post("/echo")
def echo() -> bytes:
    return request.get_data()


@app.get("/database")
def database() -> str:
    return str(select(5))


@app.get("/counts")
def told() -> Response:
    return jsonify({**counts, "free": pool.qsize()})


@app.post("/publish")
def publish() -> Response:
    arguments = request.get_json()
    return jsonify(message_id=MessageBus.publish(arguments["channel"], arguments["data"]))
