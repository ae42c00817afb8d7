"""Requests to the bus are answered before Flask exactly where nothing of the app's would have been called."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import flask
import pytest
from blinker import NamedSignal
from flask import signals
from flask.sessions import SecureCookieSessionInterface
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.test import TestResponse
from werkzeug.wrappers import Response

from messagebus import Bus
from messagebus.integrations.flask import bypass
from messagebus.integrations.flask.bypass import BypassMiddleware

POLL = "/message-bus/somebody/poll"


class Seen(list[str]):
    """The paths of the requests that Flask itself has seen."""

    def watch(self, app: flask.Flask) -> None:
        owner: Any = app
        name = "wsgi_app"
        while isinstance(getattr(owner, name), BypassMiddleware):
            owner, name = getattr(owner, name), "_flask"
        inner = getattr(owner, name)

        def watching(environ: Any, start_response: Any) -> Any:
            self.append(environ["PATH_INFO"])
            return inner(environ, start_response)

        setattr(owner, name, watching)


@pytest.fixture
def bus() -> Iterator[Bus]:
    bus = Bus(url="memory://", long_polling_interval=0.2)
    bus.publish("/a", "first")
    yield bus
    bus.close()


def make_app(bus: Bus, kind: type[flask.Flask] = flask.Flask, **options: Any) -> tuple[flask.Flask, Seen]:
    app = kind(__name__)
    app.register_blueprint(bus.blueprint, **options)
    seen = Seen()
    seen.watch(app)
    return app, seen


def poll(app: flask.Flask, path: str = POLL, **given: Any) -> TestResponse:
    response: TestResponse = app.test_client().post(f"{path}?dlp=t", data={"/a": "0"}, **given)
    assert response.status_code == 200, response.data
    assert [message["data"] for message in response.json or ()] == ["first"]
    return response


def test_a_poll_goes_past_flask_where_the_app_asks_nothing(bus: Bus) -> None:
    app, seen = make_app(bus)
    poll(app)
    assert seen == []


def test_the_apps_own_views_do_not(bus: Bus) -> None:
    app, seen = make_app(bus)
    app.add_url_rule("/message-bus-page", "page", lambda: "page")
    app.add_url_rule("/message-bus/deeper/than/ours", "deeper", lambda: "deeper")
    client = app.test_client()
    assert client.get("/message-bus-page").text == "page"
    assert client.get("/message-bus/deeper/than/ours").text == "deeper"
    with client.get("/message-bus/static/messagebus.js") as script:
        assert script.status_code == 200
    assert client.get("/message-bus/nothing").status_code == 404
    assert len(seen) == 4


class OwnRequest(flask.Request): ...


class OwnResponse(flask.Response): ...


class OwnSessions(SecureCookieSessionInterface): ...


def nothing(*_: Any, **__: Any) -> None: ...


def hand_on(response: flask.Response) -> flask.Response:
    return response


def wrap_view(app: flask.Flask, endpoint: str) -> None:
    """As ``login_required`` does."""
    view: Any = app.view_functions[endpoint]
    app.view_functions[endpoint] = functools.wraps(view)(lambda *args, **kwargs: view(*args, **kwargs))


REGISTER: dict[str, Callable[[flask.Flask, Bus], Any]] = {
    "before_request": lambda app, bus: app.before_request(nothing),
    "after_request": lambda app, bus: app.after_request(hand_on),
    "teardown_request": lambda app, bus: app.teardown_request(nothing),
    "url_value_preprocessor": lambda app, bus: app.url_value_preprocessor(nothing),
    "request_started": lambda app, bus: signals.request_started.connect(nothing, app),
    "request_finished": lambda app, bus: signals.request_finished.connect(nothing, app),
    "request_tearing_down": lambda app, bus: signals.request_tearing_down.connect(nothing, app),
    "appcontext_pushed": lambda app, bus: signals.appcontext_pushed.connect(nothing, app),
    "TRUSTED_HOSTS": lambda app, bus: app.config.update(TRUSTED_HOSTS=["localhost"]),
    "request_class": lambda app, bus: setattr(app, "request_class", OwnRequest),
    "response_class": lambda app, bus: setattr(app, "response_class", OwnResponse),
    "session_interface": lambda app, bus: setattr(app, "session_interface", OwnSessions()),
    "a method": lambda app, bus: setattr(app, "dispatch_request", functools.partial(flask.Flask.dispatch_request, app)),
    "MAX_CONTENT_LENGTH": lambda app, bus: app.config.update(MAX_CONTENT_LENGTH=1000),
    "MAX_FORM_PARTS": lambda app, bus: app.config.update(MAX_FORM_PARTS=10),
    "a view in the bus's place": lambda app, bus: wrap_view(app, "messagebus.serve"),
    "a view in the WebSocket's place": lambda app, bus: wrap_view(app, "messagebus.serve_websocket"),
    "user_id_lookup": lambda app, bus: bus.configure(user_id_lookup=nothing),
    "group_ids_lookup": lambda app, bus: bus.configure(group_ids_lookup=nothing),
    "site_id_lookup": lambda app, bus: bus.configure(site_id_lookup=nothing),
    "extra_response_headers_lookup": lambda app, bus: bus.configure(extra_response_headers_lookup=nothing),
    "authorize": lambda app, bus: bus.authorize("/private/*")(lambda request, channel: True),
}


@pytest.mark.parametrize("what", REGISTER)
def test_what_the_app_registers_is_called_even_if_it_comes_late(bus: Bus, what: str) -> None:
    app, seen = make_app(bus)
    poll(app)
    REGISTER[what](app, bus)
    assert app.test_client().post(f"{POLL}?dlp=t", data={"/a": "0"}).status_code == 200
    assert seen == [POLL]


def test_the_functions_of_a_blueprint_are_called(bus: Bus) -> None:
    called: list[str] = []
    bus.blueprint.before_request(lambda: called.append(flask.request.path))
    app, _ = make_app(bus)
    poll(app)
    assert called == [POLL]


def test_a_refusal_of_the_app_holds(bus: Bus) -> None:
    app, _ = make_app(bus)
    app.before_request(lambda: flask.abort(401))
    assert app.test_client().post(POLL).status_code == 401


def test_a_class_of_ones_own_sees_its_requests(bus: Bus) -> None:
    class Own(flask.Flask):
        pass

    app, seen = make_app(bus, Own)
    poll(app)
    assert seen == [POLL]


def test_middleware_from_before_is_passed_through_and_leads_to_flask(bus: Bus) -> None:
    app = flask.Flask(__name__)
    app.wsgi_app = ProxyFix(app.wsgi_app, x_prefix=1)  # type: ignore[method-assign]
    app.register_blueprint(bus.blueprint)
    seen = Seen()
    seen.watch(app)
    poll(app, headers={"X-Forwarded-Prefix": "/below"})
    assert seen == [POLL]


def test_middleware_from_after_stays_around_it(bus: Bus) -> None:
    app, seen = make_app(bus)
    passed: list[str] = []
    inner = app.wsgi_app

    def outer(environ: Any, start_response: Any) -> Any:
        passed.append(environ["PATH_INFO"])
        return inner(environ, start_response)

    app.wsgi_app = outer  # type: ignore[method-assign]
    poll(app)
    assert (passed, seen) == ([POLL], [])


def test_it_knows_the_prefix_that_the_blueprint_was_registered_under(bus: Bus) -> None:
    app, seen = make_app(bus, url_prefix="/live/")
    poll(app, f"/live{POLL}")
    assert app.test_client().post(POLL).status_code == 404
    assert seen == [POLL]


@pytest.mark.parametrize(
    ("app", "options"),
    [
        (lambda: flask.Flask(__name__), {"url_prefix": "/<team>"}),
        (lambda: flask.Flask(__name__), {"subdomain": "live"}),
        (lambda: flask.Flask(__name__, subdomain_matching=True), {}),
        (lambda: flask.Flask(__name__, host_matching=True, static_host="a"), {}),
    ],
    ids=["a variable", "a subdomain", "all subdomains", "all hosts"],
)
def test_what_only_flask_can_match_is_left_to_flask(
    bus: Bus, app: Callable[[], flask.Flask], options: dict[str, Any]
) -> None:
    made = app()
    made.register_blueprint(bus.blueprint, **options)
    assert not isinstance(made.wsgi_app, BypassMiddleware)


def test_two_buses_of_an_app_are_both_reached(bus: Bus) -> None:
    other = Bus(url="memory://")
    try:
        app, seen = make_app(bus)
        app.register_blueprint(other.blueprint, name="other", url_prefix="/other")
        other.publish("/a", "first")
        poll(app)
        poll(app, f"/other{POLL}")
        assert seen == []
    finally:
        other.close()


def test_a_closed_bus_says_so(bus: Bus) -> None:
    app, _ = make_app(bus)
    bus.close()
    response = app.test_client().post(POLL)
    assert (response.status_code, response.headers["Retry-After"]) == (503, "2")


REQUESTS: dict[str, dict[str, Any]] = {
    "a poll": {"path": f"{POLL}?dlp=t", "method": "POST", "data": {"/a": "0"}},
    "a poll as JSON": {"path": f"{POLL}?dlp=t", "method": "POST", "json": {"/a": 0}},
    "a poll that is held": {"path": POLL, "method": "POST", "data": {"/a": "-1"}, "headers": {"Dont-Chunk": "true"}},
    "a stream": {"path": POLL, "method": "POST", "data": {"/a": "0"}},
    "events": {"path": "/message-bus/somebody/sse?%2Fa=0"},
    "HEAD": {"path": POLL, "method": "HEAD"},
    "a file of that name": {"path": "/message-bus/static/poll"},
    "OPTIONS": {"path": POLL, "method": "OPTIONS"},
    "a wrong method": {"path": POLL, "method": "DELETE"},
    "a wrong channel": {"path": POLL, "method": "POST", "data": {"a": "0"}},
    "a wrong client id": {"path": "/message-bus/a b/poll", "method": "POST"},
    "a wrong type": {"path": POLL, "method": "POST", "data": "x", "content_type": "text/plain"},
    "not a WebSocket": {"path": "/message-bus/somebody/ws"},
}


@pytest.mark.parametrize("name", REQUESTS)
def test_both_ways_give_the_same_answer(bus: Bus, name: str) -> None:
    past, seen = make_app(bus)
    through, _ = make_app(bus)
    through.before_request(nothing)
    answers = []
    for app in (past, through):
        with app.test_client().open(buffered=False, **REQUESTS[name]) as response:
            headers = sorted((key.lower(), value) for key, value in response.headers.items())
            # An endless stream is read as far as its first message.
            body = b"".join(_first_parts(response)) if response.is_streamed else response.data
            answers.append((response.status_code, headers, re.sub(rb"\d{10,}", b"", body)))
    assert seen == []
    assert answers[0] == answers[1]


def _first_parts(response: Response) -> Iterator[bytes]:
    for part in response.iter_encoded():
        yield part
        if b"first" in part:
            return


def test_a_method_of_flasks_class_that_was_replaced_is_called(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    app, seen = make_app(bus)
    original = flask.Flask.full_dispatch_request

    def traced(self: flask.Flask) -> flask.Response:
        seen.append("traced")
        return original(self)

    monkeypatch.setattr(flask.Flask, "full_dispatch_request", traced)
    poll(app)
    assert "traced" in seen


def test_an_app_that_limits_its_requests_limits_the_buss_as_well(bus: Bus) -> None:
    app, _ = make_app(bus)
    app.config["MAX_CONTENT_LENGTH"] = 5
    response = app.test_client().post(f"{POLL}?dlp=t", data={"/a": "0", "/b": "0"})
    assert response.status_code == 413


def test_a_release_of_flask_that_was_not_looked_through_is_not_bypassed(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bypass, "_IS_LOOKED_THROUGH", False)
    app, seen = make_app(bus)
    poll(app)
    assert seen


def test_flask_has_no_way_around_a_request_that_was_not_looked_at() -> None:
    release = ".".join(version("flask").split(".")[:2])
    assert release in bypass.LOOKED_THROUGH, "look through this release, then add it"
    known = json.loads((Path(__file__).parent / "flask_surface.json").read_text())
    app = flask.Flask("app")
    surface = {
        "attributes": sorted(name for name in {*vars(app), *dir(flask.Flask)} if not name.startswith("__")),
        "config": sorted(app.config),
        "signals": sorted(name for name, value in vars(signals).items() if type(value) is NamedSignal),
        "blueprint": sorted(name for name in dir(flask.Blueprint) if not name.startswith("__")),
    }
    for kind, names in surface.items():
        new = set(names) - set(known[kind])
        assert not new, f"new in Flask: does it put something around a request? {kind}: {sorted(new)}"
