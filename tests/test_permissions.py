"""Who may subscribe to what, and which messages clients get: over the endpoint, with Flask's test client."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from typing import Any

import flask
import pytest
from werkzeug.wrappers import Request

from messagebus import Bus, InvalidChannel, InvalidOption, Message
from messagebus.http.origins import is_allowed, is_same
from messagebus.hub.permissions import Access, make_grant, read_grants


@pytest.fixture
def bus() -> Iterator[Bus]:
    bus = Bus(url="memory://", secret_key="a secret for tests")
    yield bus
    bus.close()


def client_of(bus: Bus) -> Any:
    app = flask.Flask(__name__)
    app.register_blueprint(bus.blueprint)
    return app.test_client()


def poll(bus: Bus, positions: Mapping[str, object], headers: Mapping[str, str] | None = None) -> tuple[int, Any]:
    response = client_of(bus).post("/message-bus/me/poll?dlp=t", data=positions, headers=headers)
    return response.status_code, response.get_json()


def test_a_refused_channel_is_a_403_that_names_it(bus: Bus) -> None:
    asked: list[tuple[str, str]] = []

    @bus.authorize("/private/*")
    def owner_only(request: Request, channel: str) -> bool:
        asked.append((flask.request.path, channel))
        return request.headers.get("X-User") == channel.rpartition("/")[2]

    status, body = poll(bus, {"/open": 0, "/private/7": 0})
    assert status == 403
    assert body["error"]["field"] == "/private/7"
    assert body["error"]["code"] == "forbidden"
    assert poll(bus, {"/open": 0, "/private/7": 0}, {"X-User": "7"})[0] == 200
    assert asked == [("/message-bus/me/poll", "/private/7")] * 2


def test_every_hook_that_fits_has_to_agree(bus: Bus) -> None:
    bus.authorize("/a/*")(lambda request, channel: True)
    bus.authorize("/a/b")(lambda request, channel: False)
    assert poll(bus, {"/a/c": 0})[0] == 200
    assert poll(bus, {"/a/b": 0})[0] == 403
    with pytest.raises(InvalidChannel):
        bus.authorize("a*")


def test_a_hook_may_abort_with_a_status_of_its_own(bus: Bus) -> None:
    @bus.authorize("/a")
    def log_in_first(request: Request, channel: str) -> bool:
        flask.abort(401)

    assert poll(bus, {"/a": 0})[0] == 401


def test_a_protected_channel_takes_a_grant(bus: Bus) -> None:
    bus.configure(protected_channels=("/vip/*",))
    assert poll(bus, {"/vip/1": 0})[0] == 403
    assert poll(bus, {"/vip/1": 0, "__grants": bus.grant("/vip/1")})[0] == 200
    assert poll(bus, {"/vip/1": 0, "/vip/2": 0, "__grants": bus.grant("/vip/1") + "," + bus.grant("/vip/2")})[0] == 200
    assert poll(bus, {"/vip/1": 0, "__grants": bus.grant("/vip/*")})[0] == 200
    assert poll(bus, {"/vip/1": 0, "__grants": bus.grant("/vip/2")})[0] == 403
    assert poll(bus, {"/vip/1": 0, "__grants": bus.grant("/vip/1", client_id="me")})[0] == 200
    assert poll(bus, {"/vip/1": 0, "__grants": bus.grant("/vip/1", client_id="you")})[0] == 403
    assert poll(bus, {"/vip/1": 0, "__grants": bus.grant("/vip/1", site_id="other")})[0] == 403
    assert poll(bus, {"/vip/1": 0, "__grants": bus.grant("/vip/1")[:-2] + "xx"})[0] == 403
    assert poll(bus, {"/vip/1": 0, "__grants": make_grant("another secret", "/vip/1", 60, None, None)})[0] == 403


def test_a_grant_ends_with_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    granted = read_grants("secret", [make_grant("secret", "/vip/1", 60, None, None)], "me", None)
    assert granted("/vip/1")
    assert not granted("/vip/2")
    later = time.time() + 61
    monkeypatch.setattr(time, "time", lambda: later)
    assert not granted("/vip/1")


def test_a_grant_needs_a_secret_and_a_time() -> None:
    bus = Bus(url="memory://")
    with pytest.raises(InvalidOption, match="secret_key"):
        bus.grant("/a")
    with pytest.raises(ValueError, match="ttl"):
        Bus(secret_key="x").grant("/a", ttl=0)


def test_the_apps_secret_key_signs_grants_where_no_other_is_given() -> None:
    bus = Bus(url="memory://")
    app = flask.Flask(__name__)
    app.config["SECRET_KEY"] = "the app's"
    app.register_blueprint(bus.blueprint)
    assert read_grants("the app's", [bus.grant("/a")], "me", None)("/a")
    bus.close()


def test_a_filter_keeps_messages_from_clients_and_lets_their_position_go_on(bus: Bus) -> None:
    asked: list[int] = []

    def keep(message: Message) -> bool:
        asked.append(message.message_id)
        return bool(message.data != "secret")

    bus.register_client_message_filter("/a", keep)
    for data in ("one", "secret", "two", "secret"):
        bus.publish("/a", data)
    bus.publish("/b", "secret")
    status, batch = poll(bus, {"/a": 0, "/b": 0})
    assert status == 200
    assert [message["data"] for message in batch[:-1]] == ["one", "two", "secret"]
    assert batch[-1]["channel"] == "/__status"
    assert batch[-1]["data"]["/a"] == 4
    poll(bus, {"/a": 0})
    assert asked == [1, 2, 3, 4]
    assert [message.data for message in bus.backlog("/a")] == ["one", "secret", "two", "secret"]


def test_a_filter_that_fails_keeps_the_message_from_everybody(bus: Bus) -> None:
    told: list[str] = []
    bus.configure(on_error=lambda error, where: told.append(where))

    def fail(message: Message) -> bool:
        raise RuntimeError

    bus.register_client_message_filter("/a", fail)
    bus.publish("/a", 1)
    assert [message["channel"] for message in poll(bus, {"/a": 0})[1]] == ["/__status"]
    assert told == ["the filter of /a, message 1 on /a"]


def test_what_a_filter_has_not_said_yet_is_not_taken_for_a_yes() -> None:
    access = Access()
    meanwhile: list[bool | None] = []

    def keep(message: Message) -> bool:
        meanwhile.append(message.kept)  # what another thread would go by
        return False

    access.add_filter("/", keep)
    assert not access.lets_through(Message(1, 1, "/chat", b"1"), lambda error, where: None)
    assert meanwhile == [None]


def test_extra_headers_are_added_to_every_answer_or_replace_the_bus_own(bus: Bus) -> None:
    bus.configure(extra_response_headers_lookup=lambda environ: {"X-Path": environ["PATH_INFO"], "Pragma": "x"})
    client = client_of(bus)
    for path, status in (("/message-bus/me/poll?dlp=t", 200), ("/message-bus/m%20e/poll", 400)):
        response = client.post(path, data={})
        assert response.status_code == status
        assert response.headers["X-Path"].startswith("/message-bus/m")
        assert response.headers.getlist("Pragma") == ["x"]


def test_a_bus_that_is_off_refuses_clients(bus: Bus) -> None:
    bus.off()
    assert poll(bus, {"/a": 0})[0] == 503
    bus.on()
    assert poll(bus, {"/a": 0})[0] == 200


@pytest.mark.parametrize(
    ("origin", "entry", "fits"),
    [
        ("https://a.example", "https://a.example", True),
        ("https://a.example", "http://a.example", False),
        ("https://a.example:8443", "https://a.example", False),
        ("https://b.a.example", "https://*.a.example", True),
        ("https://c.b.a.example", "https://*.a.example", True),
        ("https://a.example", "https://*.a.example", False),
        ("https://evila.example", "https://*.a.example", False),
        ("http://b.a.example", "https://*.a.example", False),
        ("https://anything", "*", True),
        ("https://a1.example", re.compile(r"https://a\d\.example"), True),
        ("https://a1.example.evil", re.compile(r"https://a\d\.example"), False),
        ("null", "https://a.example", False),
    ],
)
def test_an_origin_fits_an_entry(origin: str, entry: str | re.Pattern[str], fits: bool) -> None:
    assert is_allowed(origin, [entry]) is fits


@pytest.mark.parametrize(
    ("origin", "host", "same"),
    [
        ("https://a.example", "a.example", True),
        ("https://a.example", "a.example:443", True),
        ("http://a.example:8000", "a.example:8000", True),
        ("http://a.example", "a.example:8000", False),
        ("http://b.example", "a.example", False),
        ("http://[::1]:8000", "[::1]:8000", True),
        ("null", "a.example", False),
        ("", "a.example", False),
        ("http://a.example:port", "a.example", False),
    ],
)
def test_the_own_origin_is_told_from_others(origin: str, host: str, same: bool) -> None:
    assert is_same(origin, host) is same


def test_a_grant_signed_with_a_secret_of_before_is_valid_and_new_ones_are_signed_with_the_new() -> None:
    before = make_grant("old", "/private/1", 60.0, None, None)
    after = make_grant("new", "/private/1", 60.0, None, None)
    assert read_grants("new", [before], "c", None, ["older", "old"])("/private/1")
    assert read_grants("new", [after], "c", None, ["old"])("/private/1")
    assert not read_grants("new", [before], "c", None)("/private/1")
    assert not read_grants("old", [after], "c", None)("/private/1")


@pytest.mark.parametrize("pattern", ["private/*", "/private/**", "/a*b", "*", ""])
def test_a_pattern_that_would_protect_nothing_is_refused(pattern: str) -> None:
    bus = Bus(url="memory://", secret_key="secret")
    with pytest.raises(InvalidChannel):
        bus.authorize(pattern)
    with pytest.raises(InvalidChannel):
        bus.grant(pattern)
