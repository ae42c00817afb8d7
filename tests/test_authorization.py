"""Hooks are asked in the same world at a WebSocket's handshake and when its client subscribes to more."""

from __future__ import annotations

import contextvars
from collections.abc import Iterator
from functools import partial
from typing import Any

import flask
import pytest
from werkzeug.exceptions import Forbidden, Unauthorized
from werkzeug.wrappers import Request

from messagebus import Bus
from messagebus.http.authorization import Handshake
from messagebus.http.requested_channels import ChannelRefused
from messagebus.hub.subscribe_request import SubscribeParams, SubscribeRequest
from messagebus.hub.subscriber import Identity
from messagebus.integrations.flask.bypass import Matched, in_context
from messagebus.wire import Position

CHANNELS = {"/mine": Position(0), "/yours": Position(0)}


class World:
    """An app, its bus, and what stays of a handshake with it."""

    def __init__(self) -> None:
        self.bus = Bus(url="memory://", secret_key="a secret for tests")
        self.app = flask.Flask(__name__)
        self.app.secret_key = "another secret for tests"
        self.app.register_blueprint(self.bus.blueprint)
        self.events: list[str] = []

    def handshake(self) -> Handshake:
        with self.app.test_request_context("/message-bus/c/ws", headers={"X-User": "me"}):
            return Handshake.of(flask.request, partial(in_context, self.app), ())

    def authorize(self, takes_refusals: bool) -> SubscribeRequest:
        handshake = self.handshake()
        self.events.clear()
        params = SubscribeParams(CHANNELS, takes_refusals=takes_refusals)
        return handshake.authorize(self.bus._running_node(), SubscribeRequest(Identity("c"), None, params))


@pytest.fixture
def world() -> Iterator[World]:
    world = World()

    @world.bus.authorize("/*")
    def only_mine(request: Request, channel: str) -> bool:
        world.events.append(f"hook {flask.g.user}")
        return channel == "/mine"

    yield world
    world.bus.close()


def test_a_later_hook_finds_what_functions_before_the_request_have_made(world: World) -> None:
    @world.app.before_request
    def begin() -> None:
        flask.g.user = flask.request.headers["X-User"]
        world.events.append("before")

    @world.app.after_request
    def end(response: flask.Response) -> flask.Response:
        world.events.append("after")
        response.call_on_close(lambda: world.events.append("closed"))
        return response

    @world.app.teardown_request
    def tear_down(error: BaseException | None) -> None:
        world.events.append("torn down")

    params = world.authorize(True).params
    assert set(params.positions) == {"/mine"}
    assert {channel: why.code for channel, why in params.refused.items()} == {"/yours": "forbidden"}
    assert world.events == ["before", "hook me", "hook me", "after", "closed", "torn down"]


def test_a_later_hook_finds_the_request_as_the_app_has_matched_it(world: World) -> None:
    found = []

    @world.bus.authorize("/*")
    def look(request: Request, channel: str) -> bool:
        found.append((flask.request.endpoint, flask.request.view_args, flask.url_for("messagebus.serve", path="x")))
        return True

    with world.app.test_request_context("/message-bus/c/ws", headers={"X-User": "me"}):
        rule, arguments = flask.request.url_rule, flask.request.view_args
        assert rule is not None
        assert arguments is not None
        known = partial(in_context, world.app, matched=Matched(rule, arguments))
        for context in (partial(in_context, world.app), known):
            flask.g.user = "me"
            handshake = Handshake.of(flask.request, context, ())
            with handshake.entered() as request:
                assert look(request, "/mine")
    assert found == [("messagebus.serve", {"path": "c/ws"}, "/message-bus/x")] * 2


def test_a_later_hook_has_all_of_flask(world: World) -> None:
    torn_down: list[object] = []
    world.app.teardown_appcontext(torn_down.append)
    with world.handshake().entered() as request:
        assert flask.has_request_context()
        assert flask.current_app == world.app
        assert "user" not in flask.session
        flask.session["user"] = "me"
        flask.flash("hello")
        assert (flask.session["user"], flask.get_flashed_messages()) == ("me", ["hello"])
        assert request.headers["X-User"] == flask.request.headers["X-User"] == "me"
        elsewhere = flask.copy_current_request_context(lambda: flask.request.headers["X-User"])
        assert contextvars.Context().run(elsewhere) == "me"
        assert list(flask.stream_with_context(iter([flask.request.path]))) == ["/message-bus/c/ws"]
        torn_down.clear()
    assert torn_down == [None]
    assert not flask.has_request_context()
    assert not flask.has_app_context()


def test_the_request_of_a_later_hook_is_found_first_in_a_copy_of_the_context(world: World) -> None:
    with world.handshake().entered():
        found = contextvars.copy_context().run(lambda: flask.request.headers["X-User"])
        assert found == flask.request.headers["X-User"] == "me"
    assert not flask.has_request_context()


@pytest.mark.parametrize("asks_for_the_request", [True, False])
def test_what_fails_in_a_later_hook_is_told_to_what_tears_down(world: World, asks_for_the_request: bool) -> None:
    torn_down: list[object] = []
    handshake, failure = world.handshake(), ZeroDivisionError()
    world.app.teardown_appcontext(torn_down.append)

    def fail() -> None:
        with handshake.entered():
            if asks_for_the_request:
                assert flask.request.path
            raise failure

    with pytest.raises(ZeroDivisionError):
        fail()
    assert torn_down == [failure]
    assert not flask.has_app_context()


def test_a_method_that_the_app_has_overridden_is_called_around_a_later_hook(world: World) -> None:
    class Own(flask.Flask):
        def preprocess_request(self) -> Any:
            flask.g.user = flask.request.headers["X-User"]
            return super().preprocess_request()

    app = Own(__name__)
    app.register_blueprint(world.bus.blueprint)
    world.app = app
    assert set(world.authorize(True).params.positions) == {"/mine"}
    assert world.events == ["hook me", "hook me"]


def redirect() -> Any:
    return flask.redirect("/login")


def refuse() -> Any:
    flask.abort(401, "log in first")


@pytest.mark.parametrize(
    ("function", "raised", "message"), [(redirect, Forbidden, "302 FOUND"), (refuse, Unauthorized, "log in first")]
)
def test_whom_the_app_would_not_let_in_again_gets_no_more_channels(
    world: World, function: Any, raised: type[Exception], message: str
) -> None:
    world.app.before_request(function)
    params = world.authorize(True).params
    assert not params.positions
    assert {why.code for why in params.refused.values()} == {"forbidden"}
    assert all(message in why.message for why in params.refused.values())
    with pytest.raises(raised):
        world.authorize(False)
    assert world.events == [], "no hook was asked"


def test_an_app_that_fails_before_the_request_refuses_for_a_time(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    @world.app.before_request
    def fail() -> None:
        raise ZeroDivisionError

    refused = world.authorize(True).params.refused
    assert {(why.code, why.retry) for why in refused.values()} == {("internal", True)}
    assert "ZeroDivisionError" in caplog.text


def test_who_takes_no_refusals_one_by_one_is_refused_as_a_whole(world: World) -> None:
    world.app.before_request(lambda: setattr(flask.g, "user", "me"))
    with pytest.raises(ChannelRefused) as refused:
        world.authorize(False)
    assert refused.value.channel == "/yours"
