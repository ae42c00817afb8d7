"""The admin page: who may see it, and what is behind it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any, cast

import flask
import pytest

from messagebus import Bus
from messagebus.admin.busiest import Busiest
from messagebus.admin.connected import SHOWN, Connected
from messagebus.admin.feed import Session, Watcher
from messagebus.admin.taps import LASTS_SECONDS, MOST_TAPS, OWN_IDS, TAPPED, Taps
from messagebus.admin.taps import SHOWN as SHOWN_WRITES
from messagebus.http import admin_session
from messagebus.http.admin import admin_of
from messagebus.hub.subscriber import Identity, Phase, Subscriber
from messagebus.message import Message, id_key
from messagebus.transports import STREAMING, WEBSOCKET, Transport
from messagebus.wire import CLIENT_ID

from .recording_writer import RecordingWriter
from .test_dispatch import World

KEY, OTHER_KEY = "an-admin-key-for-tests", "another-admin-key-for-tests"


@pytest.fixture
def bus() -> Iterator[Bus]:
    bus = Bus(url="memory://", admin=True, admin_keys=[KEY, OTHER_KEY])
    yield bus
    bus.close()


@pytest.fixture
def client(bus: Bus) -> Any:
    return client_of(bus)


def client_of(bus: Bus, **options: Any) -> Any:
    app = flask.Flask(__name__)
    app.register_blueprint(bus.blueprint, **options)
    return app.test_client()


def sign_in(client: Any, key: str = KEY, **more: Any) -> Any:
    return client.post("/message-bus/admin/login", data={"key": key}, **more)


def test_who_shows_a_key_sees_the_page_until_they_sign_out(client: Any) -> None:
    assert "Admin key" in client.get("/message-bus/admin").text
    answer = sign_in(client)
    assert (answer.status_code, answer.headers["Location"]) == (303, "../admin")
    page = client.get("/message-bus/admin")
    assert "Connected" in page.text
    assert page.headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert page.headers["X-Frame-Options"] == "DENY"
    assert client.get("/message-bus/admin/messages?channel=/a").get_json() == {
        "messages": [],
        "last_id": 0,
        "kept": 0,
    }
    client.post("/message-bus/admin/logout")
    assert "Admin key" in client.get("/message-bus/admin").text
    assert client.get("/message-bus/admin/messages?channel=/a").status_code == 401


def test_the_cookie_is_kept_from_scripts_and_other_sites_and_holds_no_key(client: Any) -> None:
    cookie = sign_in(client, base_url="https://localhost").headers["Set-Cookie"]
    for attribute in ("HttpOnly", "SameSite=Strict", "Secure", "Path=/message-bus/admin;", "Max-Age="):
        assert attribute in f"{cookie};"
    assert KEY not in cookie


def test_the_cookie_is_for_where_the_app_is(bus: Bus) -> None:
    client = client_of(bus, url_prefix="/live")
    answer = client.post("/live/message-bus/admin/login", data={"key": KEY}, base_url="http://localhost/app")
    assert "Path=/app/live/message-bus/admin;" in f"{answer.headers['Set-Cookie']};"


def test_a_wrong_key_is_told_on_the_form_and_sets_nothing(client: Any) -> None:
    answer = sign_in(client, "wrong")
    assert (answer.headers["Location"], "Set-Cookie" in answer.headers) == ("../admin?wrong-key", False)
    assert "none of the admin keys" in client.get("/message-bus/admin?wrong-key").text


def test_keys_cannot_be_tried_quickly(client: Any) -> None:
    statuses = [sign_in(client, "wrong").status_code for _ in range(3)]
    assert statuses == [303, 429, 429]


def test_a_cookie_ends_with_its_key_and_its_time(bus: Bus, client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    sign_in(client)
    bus.configure(admin_keys=[OTHER_KEY])
    assert "Admin key" in client.get("/message-bus/admin").text
    bus.configure(admin_keys=[KEY])
    assert "Connected" in client.get("/message-bus/admin").text
    later = time.time() + admin_session.LASTS_SECONDS + 1
    monkeypatch.setattr("time.time", lambda: later)
    assert "Admin key" in client.get("/message-bus/admin").text


@pytest.mark.parametrize("forged", ["", ".", "99999999999", "99999999999.", "99999999999.00", "²." + "0" * 64, "ü.ü"])
def test_a_forged_cookie_opens_nothing(client: Any, forged: str) -> None:
    client.set_cookie(admin_session.COOKIE, forged, path="/message-bus/admin")
    assert client.get("/message-bus/admin/messages?channel=/a").status_code == 401


def test_a_time_that_was_changed_opens_nothing(client: Any) -> None:
    cookie = sign_in(client).headers["Set-Cookie"].split(";")[0].split("=", 1)[1]
    until, _, signature = cookie.partition(".")
    client.set_cookie(admin_session.COOKIE, f"{int(until) + 1}.{signature}", path="/message-bus/admin")
    assert client.get("/message-bus/admin/messages?channel=/a").status_code == 401


def test_without_keys_nobody_can_sign_in() -> None:
    bus = Bus(url="memory://", admin=True)
    client = client_of(bus)
    assert client.get("/message-bus/admin").status_code == 403
    assert sign_in(client, "").headers["Location"] == "../admin?wrong-key"
    assert client.get("/message-bus/admin/messages?channel=/a").status_code == 403
    bus.close()


def test_an_app_that_does_not_turn_it_on_has_no_page() -> None:
    bus = Bus(url="memory://", admin_keys=[KEY])
    assert client_of(bus).get("/message-bus/admin").status_code == 404
    bus.close()


@pytest.mark.parametrize("place", ["login", "logout", "publish"])
def test_pages_of_other_origins_change_nothing(bus: Bus, client: Any, place: str) -> None:
    sign_in(client)
    answer = client.post(
        f"/message-bus/admin/{place}",
        headers={"Origin": "https://evil.example"},
        json={"channel": "/a", "data": 1},
    )
    assert (answer.status_code, answer.get_json()["error"]["code"]) == (403, "forbidden_origin")
    assert bus.backlog("/a") == []
    assert "Connected" in client.get("/message-bus/admin").text


def test_a_test_message_is_published_and_shown(bus: Bus, client: Any) -> None:
    sign_in(client)
    bus.publish("/chat", "x" * 5000)
    answer = client.post("/message-bus/admin/publish", json={"channel": "/chat", "data": {"n": 1}})
    assert answer.get_json() == {"message_id": 2}
    newest, long = client.get("/message-bus/admin/messages?channel=/chat").get_json()["messages"]
    assert (newest["message_id"], json.loads(newest["data"]), newest["is_targeted"]) == (2, {"n": 1}, False)
    assert (len(long["data"]), long["bytes"]) == (2000, 5002)
    assert bus.backlog("/chat")[1].data == {"n": 1}


@pytest.mark.parametrize(
    ("given", "status", "field"),
    [
        ({"json": {"channel": "chat", "data": 1}}, 400, "channel"),
        ({"json": {"channel": "/__status", "data": 1}}, 400, "channel"),
        ({"json": {"channel": "/chat"}}, 400, "body"),
        ({"json": {"channel": "/chat", "data": 1, "user_ids": [7]}}, 400, "body"),
        ({"json": {"channel": "/chat", "data": 1, "site": "\n"}}, 400, "site"),
        ({"json": []}, 400, "body"),
        ({"data": "{", "content_type": "application/json"}, 400, "body"),
        ({"data": {"channel": "/chat", "data": "1"}}, 415, "Content-Type"),
    ],
)
def test_a_wrong_test_message_is_refused_by_name(
    bus: Bus, client: Any, given: dict[str, Any], status: int, field: str
) -> None:
    sign_in(client)
    answer = client.post("/message-bus/admin/publish", **given)
    assert (answer.status_code, answer.get_json()["error"]["field"]) == (status, field)
    assert bus.backlog("/chat") == []


@pytest.mark.parametrize(
    ("place", "status"),
    [
        ("messages?channel=x", 400),
        ("messages?channel=/a&site=%0a", 400),
        ("events?tap=a%20b", 400),
        ("events?clients=" + "x" * 300, 400),
        ("page.html", 404),
        ("../options.py", 404),
        ("nothing", 404),
    ],
)
def test_what_is_not_there_or_malformed_is_refused(client: Any, place: str, status: int) -> None:
    assert client.get(f"/message-bus/admin/{place}", headers={"Authorization": f"Bearer {KEY}"}).status_code == status


# --- who is connected ---


def follow(
    world: World, client: str, *names: str, user: Any = None, address: str = "", transport: Transport = WEBSOCKET
) -> RecordingWriter:
    identity = Identity(client, None if user is None else id_key(user))
    subscriber = Subscriber(world.hub, transport, identity, b"", None, address)
    writer = subscriber.writer = RecordingWriter()
    world.hub.add(subscriber)
    world.hub.membership.join(subscriber, [world.hub.windows.enter(name).name for name in names])
    world.hub.hold_open(subscriber)
    return writer


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    world.reactor.abandon()


def test_who_is_connected_is_found_by_client_user_and_address(world: World) -> None:
    follow(world, "one", "/a", "/b", "/c", "/d", user="Ann", address="10.0.0.1")
    follow(world, "two", user=7, address="10.0.0.2")
    connected = Connected(world.hub)
    everybody = connected.answer("")
    assert (everybody["total"], {each["client_id"] for each in everybody["clients"]}) == (2, {"one", "two"})
    for text, client in (("ann", "one"), ("7", "two"), ("TWO", "two"), ("0.0.1", "one")):
        assert [each["client_id"] for each in connected.answer(text)["clients"]] == [client]
    [one] = connected.answer("one")["clients"]
    assert (one["user_id"], one["channels"], one["named"]) == ('"Ann"', 4, ["/a", "/b", "/c"])
    assert (one["transport"], one["waiting_bytes"], one["catches_up"]) == ("websocket", 0, False)


def test_of_many_only_some_are_shown(world: World) -> None:
    for number in range(SHOWN + 5):
        follow(world, f"c{number}")
    answer = Connected(world.hub).answer(None)
    assert (answer["total"], len(answer["clients"])) == (SHOWN + 5, SHOWN)


# --- what one client is sent ---


@pytest.mark.parametrize("transport", [WEBSOCKET, STREAMING])
def test_what_a_client_is_sent_is_shown_while_somebody_asks(world: World, transport: Transport) -> None:
    told: list[Any] = []
    taps = Taps(world.hub, lambda kind, value: told.append((kind, value)))
    writer = follow(world, "one", "/a", transport=transport)
    follow(world, "two", "/a", transport=transport)
    taps.ask("one")
    taps.ask("one")
    world.hub.dispatch([Message(1, 1, "/a", b'"<b>"')])
    world.turn(1.2)
    [(kind, value)] = told
    [sent] = value["sent"]
    assert (kind, value["client_id"], value["left_out"], sent["transport"]) == (TAPPED, "one", 0, transport.name)
    assert json.loads(sent["text"])[0]["data"] == "<b>"
    assert sent["bytes"] == len(writer.sent[-1])
    world.turn(LASTS_SECONDS + 2)
    assert world.hub.added is None
    told.clear()
    world.hub.dispatch([Message(2, 2, "/a", b"1")])
    world.turn(2)
    assert told == []
    assert len(writer.sent) >= 2


def test_a_connection_that_comes_later_is_shown_and_too_much_is_left_out(world: World) -> None:
    told: list[Any] = []
    taps = Taps(world.hub, lambda kind, value: told.append(value))
    taps.ask("one")
    follow(world, "one", "/a")
    for number in range(1, SHOWN_WRITES + 11):
        world.hub.dispatch([Message(number, number, "/a", b"1" * 5000)])
    world.turn(1.2)
    assert (len(told[0]["sent"]), told[0]["left_out"]) == (SHOWN_WRITES, 10)
    assert max(len(sent["text"]) for sent in told[0]["sent"]) == 1000


def test_no_admin_page_is_shown_and_no_more_clients_than_there_is_room_for(world: World) -> None:
    taps = Taps(world.hub, lambda kind, value: None)
    for client in ("admin:1", 7, None, *[f"c{number}" for number in range(2 * MOST_TAPS)]):
        taps.ask(client)
    assert len(taps._taps) == MOST_TAPS


def test_no_client_can_hide_by_its_id(world: World) -> None:
    told: list[Any] = []
    taps = Taps(world.hub, lambda kind, value: told.append(value["client_id"]))
    follow(world, "admin-1", "/a")
    taps.ask("admin-1")
    world.hub.dispatch([Message(1, 1, "/a", b"1")])
    world.turn(1.2)
    assert told == ["admin-1"]
    assert not CLIENT_ID.fullmatch(f"{OWN_IDS}1")


def test_the_headers_of_an_answer_are_not_shown_for_they_may_set_a_cookie(world: World) -> None:
    told: list[Any] = []
    taps = Taps(world.hub, lambda kind, value: told.append(value))
    follow(world, "one", "/a")
    taps.ask("one")
    [subscriber] = world.hub.membership.of_client("one")
    subscriber.head = b"HTTP/1.1 200 OK\r\nSet-Cookie: session=secret\r\n"
    world.hub.dispatch([Message(1, 1, "/a", b"1")])
    world.turn(1.2)
    assert told[0]["sent"][0]["text"] == "HTTP/1.1 200 OK"
    assert "secret" not in json.dumps(told)


def test_a_writer_that_is_watched_is_the_same_one_to_timers_and_outboxes(world: World) -> None:
    taps = Taps(world.hub, lambda kind, value: None)
    writer = follow(world, "one", "/a")
    taps.ask("one")
    [subscriber] = world.hub.membership.of_client("one")
    assert subscriber.writer is not writer
    known: dict[Any, int] = {writer: 1}
    assert known[subscriber.writer] == {subscriber.writer: 1}[cast(Any, writer)] == 1
    world.turn(LASTS_SECONDS + 2)
    assert subscriber.writer is writer


# --- sessions that end ---


def test_a_copied_cookie_is_worth_nothing_after_its_session_was_signed_out(client: Any) -> None:
    cookie = sign_in(client).headers["Set-Cookie"].split(";")[0]
    stranger = client.application.test_client(use_cookies=False)
    place = "/message-bus/admin/messages?channel=/a"
    assert stranger.get(place, headers={"Cookie": cookie}).status_code == 200
    client.post("/message-bus/admin/logout")
    assert stranger.get(place, headers={"Cookie": cookie}).status_code == 401


def test_a_session_that_ends_ends_its_open_pages_and_no_others() -> None:
    node = Bus(url="memory://", admin=True, admin_keys=[KEY])
    try:
        admin = admin_of(node._running_node())
        later = int(time.time()) + 1000
        world = World()
        writers = [follow(world, f"admin:{number}") for number in range(3)]
        subscribers = [next(iter(world.hub.membership.of_client(f"admin:{number}"))) for number in range(3)]
        sessions = [Session("gone", later), Session("there", later), Session("late", 1)]
        admin._watchers = [
            Watcher(subscriber, "", "", None, session)
            for subscriber, session in zip(subscribers, sessions, strict=True)
        ]
        admin._forget("gone")
        assert [each.state is Phase.OPEN for each in subscribers] == [False, True, False]
        assert len(writers) == 3
        world.reactor.abandon()
    finally:
        node.close()


def test_the_cookie_is_for_https_alone_where_the_browser_says_that_the_page_is(client: Any) -> None:
    answer = sign_in(client, headers={"Origin": "https://localhost"})
    assert "Secure" in answer.headers["Set-Cookie"].split("; ")


@pytest.mark.parametrize("place", ["login", "logout", "publish"])
def test_origins_that_may_connect_may_not_send_the_pages_forms(bus: Bus, place: str) -> None:
    bus.configure(allowed_origins=["*"])
    client = client_of(bus)
    answer = client.post(f"/message-bus/admin/{place}", headers={"Origin": "https://friend.example"}, data={"key": KEY})
    assert answer.status_code in (401, 403)
    assert "Set-Cookie" not in answer.headers


# --- channels ---


def test_a_prefix_finds_channels_wherever_they_stand_among_thousands(bus: Bus) -> None:
    bus.publish_many([(f"/c{number:04}", 1) for number in range(1500)])
    names, has_more, _ = Busiest(bus._running_node().store, "/c14").find(200)
    assert (names[0], names[-1], len(names), has_more) == ("/c1400", "/c1499", 100, False)


def test_of_many_channels_the_busiest_are_shown_in_the_order_of_their_names(bus: Bus) -> None:
    bus.publish_many([(f"/c{number}", 1) for number in range(9)] + [("/c0", 1)])
    busiest = Busiest(bus._running_node().store, "")
    assert busiest.find(1) == (["/c0"], True, set())
    bus.publish_many([("/c7", 1), ("/c7", 1), ("/c3", 1)])
    assert busiest.find(2) == (["/c3", "/c7"], True, set())
    assert busiest.find(20).has_more is False


def test_large_messages_are_read_within_a_bound(bus: Bus, client: Any) -> None:
    sign_in(client)
    for _ in range(3):
        bus.publish("/a", "x" * 3_000_000)
    found = client.get("/message-bus/admin/messages?channel=/a").get_json()
    assert ([each["message_id"] for each in found["messages"]], found["kept"]) == ([3], 3)
    assert found["messages"][0]["is_cut"]
