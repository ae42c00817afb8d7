"""The app below a path: the script, and what the client asks for, stay below it, and the session is seen there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import flask
import pytest
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.test import Client

from messagebus import Bus

WAYS = ["SCRIPT_NAME", "X-Forwarded-Prefix", "dispatcher", "parent blueprint"]


@pytest.fixture
def bus() -> Iterator[Bus]:
    bus = Bus(url="memory://", user_id_lookup=lambda environ: flask.session.get("user"))
    yield bus
    bus.close()


@pytest.mark.parametrize("way", WAYS)
def test_pages_below_a_path_find_the_bus_below_it_with_their_session(bus: Bus, way: str) -> None:
    app = flask.Flask(__name__)
    app.config.update(SECRET_KEY="secret", SESSION_COOKIE_PATH="/app")
    views = flask.Blueprint("views", __name__, url_prefix="/app" if way == "parent blueprint" else None)

    @views.get("/page")
    def page() -> str:
        flask.session["user"] = 7
        return flask.render_template_string("{{ message_bus(['/a']) }}")

    if way == "parent blueprint":
        views.register_blueprint(bus.blueprint, name="live")
    else:
        app.register_blueprint(bus.blueprint)
    app.register_blueprint(views)
    served: Any = app
    options: dict[str, Any] = {}
    if way == "SCRIPT_NAME":
        options["base_url"] = "http://localhost/app"
    elif way == "X-Forwarded-Prefix":
        served = ProxyFix(app, x_prefix=1)
        options["headers"] = {"X-Forwarded-Prefix": "/app"}
    elif way == "dispatcher":
        served = DispatcherMiddleware(flask.Flask("root"), {"/app": app})
    below = "/app" if way in ("dispatcher", "parent blueprint") else ""
    client = Client(served)
    if way == "X-Forwarded-Prefix":  # the cookie is for what the browser asked for
        app.config["SESSION_COOKIE_PATH"] = "/"
    tag = client.get(f"{below}/page", **options).text
    found = re.search('src="([^"]+)" data-base-url="([^"]+)"', tag)
    assert found
    assert found[1].startswith("/app/message-bus/static/")
    assert found[2] == "/app/"
    bus.publish("/a", "for all")
    bus.publish("/a", "for 7", user_ids=[7])
    polled = client.post(f"{below}/message-bus/me/poll?dlp=t", data={"/a": "0"}, **options)
    assert [message["data"] for message in polled.json or ()] == ["for all", "for 7"]
