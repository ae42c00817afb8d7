"""What ``/cable`` says on its wire: to handshakes, to what is malformed or too much, and to AnyCable's clients."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask, session
from websockets.exceptions import ConnectionClosed, InvalidStatus

from messagebus import Bus, Channel, Member
from messagebus.cable.commands import MAX_IDENTIFIER

from .cable_client import EXTENDED, CableClient, identifier_of, served
from .eventually import eventually


def make_bus(**options: Any) -> Bus:
    bus = Bus(url="memory://", **options)

    @bus.channel
    class NewsChannel(Channel):
        def subscribed(self) -> None:
            self.stream_from(self.params.get("from", "/news"))

        def echo(self, data: dict[str, Any]) -> None:
            self.transmit(data)

        def who(self) -> None:
            self.transmit([self.user_id, self.connection.identifiers, self.connection.is_granted("/vip")])

    return bus


@pytest.fixture
def bus() -> Bus:
    return make_bus(secret_key="of the tests")


@pytest.fixture
def url(bus: Bus) -> Iterator[str]:
    with served(bus) as url:
        yield url


@pytest.fixture
def client(url: str) -> Iterator[CableClient]:
    with CableClient(url) as client:
        client.until(type="welcome")
        yield client


def refused(url: str, **arguments: Any) -> tuple[int, dict[str, Any]]:
    with pytest.raises(InvalidStatus) as raised, CableClient(url, **arguments):
        pass
    response = raised.value.response
    return response.status_code, json.loads(response.body)["error"]


# --- the handshake ---


def test_a_page_of_another_origin_is_refused_before_the_101(url: str) -> None:
    status, error = refused(url, Origin="https://evil.example")
    assert (status, error["code"], error["field"]) == (403, "forbidden_origin", "Origin")


def test_another_subprotocol_is_refused_by_name(url: str) -> None:
    status, error = refused(url, protocol="graphql-ws")
    assert (status, error["field"]) == (400, "Sec-WebSocket-Protocol")
    assert "actioncable-v1-json" in error["message"]


def test_without_a_channel_class_there_is_no_cable() -> None:
    with served(Bus(url="memory://")) as url:
        assert refused(url)[0] == 404


def test_the_path_and_the_prefix_are_the_apps() -> None:
    bus = make_bus(cable_path="/live/cable")
    with served(bus) as url, CableClient(url, path="/live/cable") as client:
        client.until(type="welcome")


def test_a_page_of_the_app_at_the_same_path_stays_its_own() -> None:
    app = Flask(__name__)
    bus = make_bus()
    app.add_url_rule("/cable", "mine", lambda: "mine")
    with served(bus, app) as url, CableClient(url) as client:
        client.until(type="welcome")
        assert app.test_client().get("/cable").text == "mine"


def cookie_of(app: Flask, **values: Any) -> str:
    """The session cookie of somebody who is signed in."""
    serializer = app.session_interface.get_signing_serializer(app)  # type: ignore[attr-defined]
    return f"session={serializer.dumps(values)}"


def test_the_connect_hook_identifies_by_the_session_or_refuses() -> None:
    bus, app = make_bus(), Flask(__name__)
    app.secret_key = "of the tests"

    @bus.connect
    def connect(request: Any) -> dict[str, Any] | bool:
        return {"user_id": session["user"], "plan": "free"} if "user" in session else False

    with served(bus, app) as url:
        assert refused(url) == (403, {"code": "forbidden", "message": "this client may not connect"})
        with CableClient(url, Cookie=cookie_of(app, user=7)) as client:
            identifier = client.confirmed("NewsChannel")
            client.perform(identifier, "who")
            assert client.next()["message"] == [7, {"user_id": 7, "plan": "free"}, False]
            bus.publish("/news", "for you", user_ids=[7])
            bus.publish("/news", "for others", user_ids=[8])
            bus.publish("/news", "for all")
            assert [client.next()["message"] for _ in range(2)] == ["for you", "for all"]
            bus.disconnect(user_ids=[7], reason="signed out")
            assert client.until(type="disconnect") == {"type": "disconnect", "reason": "remote", "reconnect": False}


def test_a_grant_is_known_to_the_channels(url: str, bus: Bus) -> None:
    with CableClient(url, path=f"/cable?__grants={bus.grant('/vip')}") as client:
        identifier = client.confirmed("NewsChannel")
        client.perform(identifier, "who")
        assert client.next()["message"] == [None, {}, True]


def test_more_clients_than_allowed_are_refused_by_name() -> None:
    with served(make_bus(max_active_clients=0)) as url:
        status, error = refused(url)
        assert status == 503
        assert "max_active_clients" in error["message"]


# --- what is malformed ---


@pytest.mark.parametrize(
    ("identifier", "code"),
    [
        ("", "bad_request"),
        ("[]", "bad_request"),
        ('{"id":1}', "bad_request"),
        ('{"channel":7}', "bad_request"),
        ("[" * 2000, "bad_request"),
        ('{"channel":"NoChannel"}', "unknown_channel"),
        ('{"channel":"Channel"}', "unknown_channel"),
        (identifier_of("NewsChannel", filler="x" * MAX_IDENTIFIER), "identifier_too_long"),
    ],
)
def test_a_subscription_that_cannot_be_is_rejected_with_the_reason(
    client: CableClient, identifier: str, code: str
) -> None:
    client.say(command="subscribe", identifier=identifier)
    told = client.next()
    assert (told["type"], told["identifier"]) == ("reject_subscription", identifier)
    assert told["error"]["code"] == code
    assert told["error"]["field"] == "identifier"
    client.confirmed("NewsChannel")


@pytest.mark.parametrize(
    ("command", "field"),
    [
        ({}, None),
        ([], None),
        ({"command": 7}, None),
        ({"command": "dance"}, None),
        ({"command": "history"}, None),
        ({"command": "unsubscribe", "identifier": "nothing"}, None),
        ({"command": "message", "identifier": "nothing"}, None),
        ({"command": "message", "identifier": identifier_of("NewsChannel"), "data": "[]"}, "data"),
        ({"command": "message", "identifier": identifier_of("NewsChannel"), "data": "no JSON"}, "data"),
        ({"command": "message", "identifier": identifier_of("NewsChannel"), "data": {"action": "echo"}}, "data"),
        ({"command": "message", "identifier": identifier_of("NewsChannel"), "data": '{"action": 7}'}, "action"),
    ],
)
def test_a_command_that_cannot_be_is_answered_and_changes_nothing(
    client: CableClient, command: Any, field: str | None
) -> None:
    identifier = client.confirmed("NewsChannel")
    client.send(json.dumps(command))
    told = client.next()
    assert told["type"] == "error"
    assert told["identifier"] == "", "ActionCable's client takes it for a message"
    assert told["error"].get("field") == field
    client.perform(identifier, "echo", n=1)
    assert client.next()["message"] == {"n": 1}


@pytest.mark.parametrize(
    ("sent", "code", "reason"),
    [
        ("no JSON", 1007, "malformed JSON"),
        (b"bytes", 1003, "text frames only"),
        ("x" * 300_000, 1009, "max_frame_size"),
    ],
)
def test_what_is_no_command_at_all_ends_the_connection_with_its_reason(
    client: CableClient, sent: str | bytes, code: int, reason: str
) -> None:
    client.send(sent)
    assert client.next()["reason"] == reason
    with pytest.raises(ConnectionClosed):
        client.next()
    assert client.close_code == code


def test_subscriptions_beyond_the_limit_are_rejected_by_name() -> None:
    with served(make_bus(max_channels=5)) as url, CableClient(url) as client:
        for number in range(5):
            client.confirmed("NewsChannel", id=number)
        client.subscribe("NewsChannel", id=5)
        error = client.until(type="reject_subscription")["error"]
        assert error == {"code": "too_many_channels", "message": "max_channels allows 5 subscriptions of a connection"}


def test_a_thousand_subscriptions_at_once_end_with_the_limits_name() -> None:
    with (
        served(make_bus(max_channels=10, max_commands=20)) as url,
        CableClient(url) as other,
        CableClient(url) as client,
    ):
        identifier = other.confirmed("NewsChannel")
        with contextlib.suppress(ConnectionClosed):
            for number in range(1000):
                client.subscribe("NewsChannel", id=number)
        told = client.until(type="disconnect")
        assert told == {"type": "disconnect", "reason": "max_commands", "reconnect": True}
        with pytest.raises(ConnectionClosed):
            client.next()
        assert client.close_code == 1008
        other.perform(identifier, "echo", n=1)
        assert other.until(message={"n": 1})


def test_who_follows_a_stream_is_a_member_of_its_room() -> None:
    bus = make_bus(presence_grace=0.1)

    @bus.presence.member("/news")
    def who(request: Any, channel: str) -> Member:
        return Member(request.args["name"])

    with served(bus) as url:
        with CableClient(url, path="/cable?name=ann") as client:
            client.confirmed("NewsChannel")
            eventually(lambda: [member.id for member in bus.presence.members("/news")] == ["ann"])
        eventually(lambda: bus.presence.members("/news") == [])


# --- pings ---


def test_pings_come_every_three_seconds(client: CableClient) -> None:
    with pytest.raises(TimeoutError):
        client.next(timeout=7)
    assert 1 <= client.pings <= 3


# --- AnyCable's protocol ---


@pytest.fixture
def extended(url: str) -> Iterator[CableClient]:
    with CableClient(url, EXTENDED) as client:
        welcome = client.next()
        assert welcome["type"] == "welcome"
        assert welcome["sid"]
        yield client


def subscribe(client: CableClient, history: Any = None, **params: Any) -> str:
    identifier = identifier_of("NewsChannel", **params)
    client.say(command="subscribe", identifier=identifier, history=history)
    return identifier


def test_messages_have_stream_epoch_and_offset(extended: CableClient, bus: Bus) -> None:
    bus.publish("/news", "before")
    identifier = extended.confirmed("NewsChannel")
    bus.publish("/news", {"n": 1})
    told = extended.next()
    assert told["identifier"] == identifier
    assert told["message"] == {"n": 1}
    assert (told["stream_id"], told["offset"]) == ("/news", 2)
    assert told["epoch"] == bus._running_node().hub.epochs[0]


def test_a_client_resumes_from_its_position(extended: CableClient, url: str, bus: Bus) -> None:
    extended.confirmed("NewsChannel")
    bus.publish("/news", 1)
    position = extended.next()
    for number in (2, 3):
        bus.publish("/news", number)
    streams = {"/news": {"epoch": position["epoch"], "offset": position["offset"]}}
    with CableClient(url, EXTENDED) as again:
        identifier = subscribe(again, {"since": None, "streams": streams})
        again.until(type="confirm_subscription", identifier=identifier)
        told = [again.next() for _ in range(3)]
        assert {"type": "confirm_history", "identifier": identifier} in told
        assert [each["message"] for each in told if "message" in each] == [2, 3]


def test_a_client_resumes_from_a_moment(url: str, bus: Bus) -> None:
    cable = bus._running_node().guests["cable"]
    before = time.time()
    eventually(lambda: cable.times.at(time.time() + 1, 0) is not None)  # type: ignore[attr-defined]
    bus.publish("/news", 1)
    with CableClient(url, EXTENDED) as client:
        identifier = subscribe(client, {"since": before + 0.5, "streams": {}})
        client.until(type="confirm_subscription", identifier=identifier)
        told = [client.next() for _ in range(2)]
        assert {"type": "confirm_history", "identifier": identifier} in told
        assert [each["message"] for each in told if "message" in each] == [1]


def test_a_moment_that_nobody_remembers_is_a_history_that_is_refused(extended: CableClient) -> None:
    identifier = subscribe(extended, {"since": 1_000_000, "streams": {}})
    extended.until(type="confirm_subscription", identifier=identifier)
    assert extended.next() == {"type": "reject_history", "identifier": identifier}


def test_a_position_of_another_epoch_is_a_history_that_is_refused(extended: CableClient, bus: Bus) -> None:
    bus.publish("/news", 1)
    identifier = subscribe(extended, {"since": None, "streams": {"/news": {"epoch": "another", "offset": 5}}})
    extended.until(type="reject_history", identifier=identifier)


def test_the_history_of_an_open_subscription_can_be_asked_for(extended: CableClient, bus: Bus) -> None:
    identifier = extended.confirmed("NewsChannel")
    for number in (1, 2):
        bus.publish("/news", number)
    epoch = [extended.next() for _ in range(2)][-1]["epoch"]
    extended.say(
        command="history",
        identifier=identifier,
        history={"since": None, "streams": {"/news": {"epoch": epoch, "offset": 1}}},
    )
    told = [extended.next() for _ in range(2)]
    assert sorted(str(each.get("message")) for each in told) == ["2", "None"]


@pytest.mark.parametrize(
    "history",
    [
        7,
        {"since": "now"},
        {"streams": []},
        {"streams": {"/news": 7}},
        {"streams": {"/news": {"epoch": 1, "offset": 1}}},
        {"streams": {"/news": {"epoch": "e", "offset": -1}}},
        {"streams": {"news": {"epoch": "e", "offset": 1}}},
    ],
)
def test_a_malformed_history_is_rejected_by_name(extended: CableClient, history: Any) -> None:
    subscribe(extended, history)
    told = extended.next()
    assert told["type"] == "reject_subscription"
    assert told["error"]["field"] == "history"


def test_a_history_of_nothing_is_an_error_and_changes_nothing(extended: CableClient, bus: Bus) -> None:
    identifier = extended.confirmed("NewsChannel")
    extended.say(command="history", identifier=identifier)
    told = extended.next()["error"]
    assert (told["code"], told["field"]) == ("bad_request", "history")
    bus.publish("/news", 1)
    assert extended.next()["message"] == 1


def test_a_pong_needs_no_answer(extended: CableClient) -> None:
    extended.say(command="pong")
    extended.confirmed("NewsChannel")
    assert [told["type"] for told in extended.seen] == ["welcome", "confirm_subscription"]
