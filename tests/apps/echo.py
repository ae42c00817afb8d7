"""Says what it was asked: the environ and the body that a server has made of a request's bytes."""

from __future__ import annotations

import gc
from collections.abc import Iterator

from flask import Flask, Response, jsonify, request

from messagebus import MessageBus

METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "BREW"]
PARTS = [b"first", b"", b"second" * 1000, b"last"]
LARGE = bytes(range(256)) * 4096

app = Flask(__name__)
app.register_blueprint(MessageBus.blueprint)


@app.get("/hello")
def hello() -> str:
    return "hello"


@app.route("/stream")
def stream() -> Response:
    def parts() -> Iterator[bytes]:
        yield from PARTS

    return Response(parts())


@app.route("/large")
def large() -> bytes:
    return LARGE


@app.route("/empty/<int:status>")
def empty(status: int) -> tuple[str, int]:
    return "", status


@app.route("/close")
def close() -> Response:
    return Response("closed", headers={"Connection": "close"})


@app.route("/unread", methods=METHODS)
def unread() -> str:
    """Leaves the body to the server."""
    return "unread"


@app.route("/tried", methods=METHODS)
def tried() -> str:
    """Lets nobody know what went wrong while it read."""
    try:
        request.get_data()
    except OSError:
        return "broken"
    return "read"


@app.get("/handlers")
def handlers() -> Response:
    """How many connections `messagebus serve` has an object for, this one's included; cycles are not waited for."""
    from messagebus.serve.connection import Connection  # for this server alone

    return jsonify(sum(type(thing) is Connection for thing in gc.get_objects()))


@app.post("/publish")
def publish() -> Response:
    arguments = request.get_json()
    return jsonify(message_id=MessageBus.publish(arguments["channel"], arguments["data"]))


@app.route("/", methods=METHODS)
@app.route("/<path:path>", methods=METHODS)
def echo(path: str = "") -> Response:
    ends = request.environ.get("wsgi.input_terminated", False)  # what comes after an upgrade does not
    body = request.get_data() if ends else b""
    environ = {name: value for name, value in request.environ.items() if isinstance(value, (str, bool, tuple))}
    environ["wsgi.input_terminated"] = ends
    return jsonify(environ=environ, body=body.decode("latin-1"), input=type(request.environ["wsgi.input"]).__name__)
