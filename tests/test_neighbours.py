"""Extensions of Flask that look at every request, beside the bus in one app."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import flask
import pytest
from flask_compress import Compress
from flask_limiter import Limiter
from flask_migrate import Migrate
from flask_sqlalchemy import SQLAlchemy
from flask_wtf import CSRFProtect
from werkzeug.test import TestResponse

import messagebus
from messagebus import Bus
from messagebus.integrations.alembic import TABLES, include_name

CODINGS = {"Accept-Encoding": "gzip, br, zstd"}


@pytest.fixture
def bus() -> Iterator[Bus]:
    bus = Bus(url="memory://", long_polling_interval=0.2)
    bus.publish("/a", "first")
    yield bus
    bus.close()


def poll(app: flask.Flask, path: str = "/message-bus/somebody/poll", **given: Any) -> TestResponse:
    response: TestResponse = app.test_client().post(f"{path}?dlp=t", data={"/a": "0"}, **given)
    return response


# --- Flask-Compress, and whatever else rewrites responses ---


def test_a_held_response_says_nothing_of_a_body_that_was_compressed_instead_of_it(bus: Bus) -> None:
    app = flask.Flask(__name__)
    Compress(app)
    app.register_blueprint(bus.blueprint)
    client = app.test_client()
    for headers in (CODINGS, {**CODINGS, "Dont-Chunk": "true"}):
        held = client.post("/message-bus/somebody/poll", data={"/a": "1"}, headers=headers)
        assert held.status_code == 200
        assert "Content-Encoding" not in held.headers
        assert held.text.startswith("[")
    events = client.get("/message-bus/somebody/sse?/a=0", headers=CODINGS, buffered=False)
    assert "Content-Encoding" not in events.headers
    event = next(iter(events.response))
    assert isinstance(event, bytes)
    assert event.startswith(b"id: 1\n")
    events.close()


def test_no_header_of_a_body_comes_with_a_held_response(bus: Bus) -> None:
    app = flask.Flask(__name__)
    app.register_blueprint(bus.blueprint)

    @app.after_request
    def describe(response: flask.Response) -> flask.Response:
        response.add_etag()
        response.content_encoding = "gzip"
        response.content_length = 3
        response.headers["Accept-Ranges"] = "bytes"
        response.headers["X-Frame-Options"] = "DENY"
        return response

    held = app.test_client().post("/message-bus/somebody/poll", data={"/a": "1"})
    assert held.headers["X-Frame-Options"] == "DENY"
    assert not {"etag", "content-encoding", "content-length", "accept-ranges"} & {
        name.lower() for name, _ in held.headers
    }


def test_the_script_is_compressed_once_and_keeps_its_etag(bus: Bus) -> None:
    app = flask.Flask(__name__)
    Compress(app)
    app.register_blueprint(bus.blueprint)
    client = app.test_client()
    for codings in ("gzip, deflate, br, zstd", "zstd", "identity"):
        headers = {"Accept-Encoding": codings}
        first = client.get("/message-bus/static/messagebus.js", headers=headers)
        assert first.status_code == 200
        again = client.get(
            "/message-bus/static/messagebus.js", headers={**headers, "If-None-Match": first.headers["ETag"]}
        )
        assert again.status_code == 304, codings
        assert not again.data


def test_an_answer_that_the_app_refuses_after_all_is_not_held(bus: Bus) -> None:
    app = flask.Flask(__name__)
    app.register_blueprint(bus.blueprint)

    @app.after_request
    def refuse(response: flask.Response) -> flask.Response:
        if "X-Token" not in flask.request.headers:
            response.status_code = 403
            response.set_data("who are you?")
        return response

    client = app.test_client()
    refused = client.post("/message-bus/somebody/poll", data={"/a": "0"})
    assert (refused.status_code, refused.text) == (403, "who are you?")
    assert client.get("/message-bus/somebody/sse?/a=0").status_code == 403
    held = client.post("/message-bus/somebody/poll", data={"/a": "0"}, headers={"X-Token": "x", "Dont-Chunk": "true"})
    assert [message["data"] for message in held.json or ()] == ["first"]


# --- Flask-WTF ---


def protect_before(app: flask.Flask, bus: Bus) -> str:
    CSRFProtect(app)
    app.register_blueprint(bus.blueprint)
    return ""


def protect_after(app: flask.Flask, bus: Bus) -> str:
    app.register_blueprint(bus.blueprint)
    CSRFProtect(app)
    return ""


def protect_by_init_app(app: flask.Flask, bus: Bus) -> str:
    csrf = CSRFProtect()
    app.register_blueprint(bus.blueprint, name="live")
    csrf.init_app(app)
    return ""


def protect_below_another(app: flask.Flask, bus: Bus) -> str:
    outer = flask.Blueprint("outer", __name__, url_prefix="/outer")
    outer.register_blueprint(bus.blueprint, name="live")
    app.register_blueprint(outer)
    CSRFProtect(app)
    return "/outer"


@pytest.mark.parametrize("protect", [protect_before, protect_after, protect_by_init_app, protect_below_another])
def test_polls_need_no_csrf_token_and_the_apps_own_posts_do(
    bus: Bus, protect: Callable[[flask.Flask, Bus], str]
) -> None:
    app = flask.Flask(__name__)
    app.secret_key = "secret"
    prefix = protect(app, bus)
    bus.publish("/a", "first")  # again: the app's key has changed the settings
    app.add_url_rule("/say", "say", lambda: "said", methods=["POST"])
    for base in ("http://localhost", "https://localhost"):
        answered = poll(app, f"{prefix}/message-bus/somebody/poll", base_url=base)
        assert [message["data"] for message in answered.json or ()] == ["first"]
        assert app.test_client().post("/say", base_url=base).status_code == 400


# --- Flask-Limiter ---


@pytest.mark.parametrize("prefix", ["", "/deep/down"])
def test_what_is_exempt_from_limits_is_all_of_the_bus(bus: Bus, prefix: str) -> None:
    app = flask.Flask(__name__)
    limiter = Limiter(lambda: "everybody", app=app, default_limits=["2/hour"], storage_uri="memory://")
    app.register_blueprint(bus.blueprint, url_prefix=prefix)
    limiter.exempt(bus.blueprint)
    app.add_url_rule("/hello", "hello", lambda: "hello")
    client = app.test_client()
    root = f"{prefix}/message-bus"
    for _ in range(5):
        assert poll(app, f"{root}/somebody/poll").status_code == 200
        assert client.get(f"{root}/static/messagebus.js").status_code == 200
        assert client.get(f"{root}/somebody/sse?/a=0", buffered=False).status_code == 200
        # No WebSocket in a test client: what is asked is whether the bus itself answers.
        assert client.get(f"{root}/somebody/ws", headers={"Upgrade": "websocket"}).status_code == 400
    assert [client.get("/hello").status_code for _ in range(3)] == [200, 200, 429]


def test_what_is_not_exempt_is_refused_by_the_limits(bus: Bus) -> None:
    app = flask.Flask(__name__)
    Limiter(lambda: "everybody", app=app, default_limits=["2/hour"], storage_uri="memory://")
    app.register_blueprint(bus.blueprint)
    assert [poll(app).status_code for _ in range(3)] == [200, 200, 429]


# --- Flask-Migrate ---


def test_migrations_may_look_at_everything_but_the_tables_that_the_store_makes() -> None:
    sql = (Path(messagebus.__file__).parent / "stores" / "postgres.sql").read_text()
    assert set(re.findall("CREATE TABLE IF NOT EXISTS (\\w+)", sql)) == TABLES
    assert not any(include_name(name, "table", {}) for name in TABLES)
    assert include_name("messagebus_state", "column", {})
    assert include_name("messagebus_of_the_app", "table", {})
    assert include_name(None, "schema", {})


def test_flask_migrate_is_told_by_itself_and_keeps_a_filter_of_the_apps(bus: Bus) -> None:
    def not_legacy(name: str | None, type_: str, parent_names: Any) -> bool:
        return name != "legacy"

    for given in ({}, {"include_name": not_legacy}, {"include_name": include_name}):
        app = flask.Flask(__name__)
        app.config["SQLALCHEMY_DATABASE_URI"] = "sqlite://"
        Migrate(app, SQLAlchemy(app), **given)
        app.register_blueprint(bus.blueprint)
        poll(app)  # told again
        filtered = app.extensions["migrate"].configure_args["include_name"]
        assert not filtered("messagebus_messages", "table", {})
        assert filtered("legacy", "table", {}) is (given.get("include_name") is not not_legacy)
        assert filtered("users", "table", {})


# --- eventlet ---

UNDER_EVENTLET = """
import eventlet
eventlet.monkey_patch()
from flask import Flask
from messagebus import Bus
bus = Bus(url="memory://")
for use in (lambda: Flask("app").register_blueprint(bus.blueprint), lambda: bus.subscribe("/a", print), bus.start):
    try:
        use()
    except RuntimeError as error:
        print(error)
"""


def test_eventlet_is_refused_when_an_app_registers_the_bus_and_when_it_is_first_used() -> None:
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", UNDER_EVENTLET], capture_output=True, text=True, timeout=60
    )
    assert result.stdout.count("messagebus does not run on eventlet") == 3, result.stdout + result.stderr
    assert "-k gevent" in result.stdout
