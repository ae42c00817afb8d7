"""Channel classes on ``/cable``: the life of a subscription, its streams and its actions, one by one."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import abort, request, session

from messagebus import Bus, Channel
from messagebus.cable.turns import MAX_WAITING

from .cable_client import CableClient, served
from .eventually import eventually


class Log:
    """What the channels were called with, and what holds an action up."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.go_on = threading.Event()

    def count(self, call: Any) -> int:
        return self.calls.count(call)


def make_bus(log: Log, url: str = "memory://") -> Bus:
    bus = Bus(url=url)

    class Base(Channel):
        def inherited(self) -> None:
            log.calls.append("inherited")

    @bus.channel
    class RoomChannel(Base):
        def subscribed(self) -> None:
            log.calls.append("subscribed")
            if self.params.get("secret"):
                self.reject()
            if self.params.get("broken"):
                raise ZeroDivisionError("a detail")
            if self.params.get("forbidden"):
                abort(403, "members only")
            if "id" in self.params:
                self.stream_from(f"/rooms/{self.params['id']}", last_id=self.params.get("last_id", -1))
            self.transmit({"hello": self.user_id})

        def unsubscribed(self) -> None:
            log.calls.append(("unsubscribed", self.is_rejected))
            if "id" in self.params:
                self.broadcast(f"/rooms/{self.params['id']}", "left")

        def speak(self, data: dict[str, Any]) -> dict[str, bool]:
            self.broadcast(f"/rooms/{self.params['id']}", {"text": data["text"], "path": request.path})
            return {"ok": True}

        def whoami(self) -> None:
            self.transmit([self.client_id, session.get("name"), self.connection.address])

        def number(self, data: dict[str, Any]) -> None:
            log.calls.append(data["n"])

        def wait(self) -> None:
            log.calls.append("wait")
            log.go_on.wait(20)

        def fail(self) -> None:
            raise ValueError("a detail")

        def move(self, data: dict[str, Any]) -> None:
            self.stop_all_streams()
            self.stream_from(data["to"])
            self.transmit("moved")

        def stop(self, data: dict[str, Any]) -> None:
            self.stop_stream_from(data["channel"])
            self.transmit("stopped")

        def _private(self) -> None:
            log.calls.append("private")

        @staticmethod
        def static() -> None:
            log.calls.append("static")

        @property
        def shown(self) -> str:
            log.calls.append("shown")
            return ""

    @bus.channel
    class ClockChannel(Channel):
        @Channel.periodically(every=0.1)
        def tick(self) -> None:
            self.transmit("tick")

        def unsubscribed(self) -> None:
            log.calls.append("stopped")

    return bus


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
def bus(log: Log) -> Bus:
    return make_bus(log)


@pytest.fixture
def url(bus: Bus, log: Log) -> Iterator[str]:
    with served(bus) as url:
        yield url
        log.go_on.set()


@pytest.fixture
def client(url: str) -> Iterator[CableClient]:
    with CableClient(url) as client:
        assert client.next() == {"type": "welcome"}
        yield client


def test_a_subscription_is_confirmed_before_what_it_sends(client: CableClient) -> None:
    identifier = client.subscribe("RoomChannel", id=7)
    assert client.next() == {"type": "confirm_subscription", "identifier": identifier}
    assert client.next() == {"identifier": identifier, "message": {"hello": None}}


def test_an_action_runs_in_the_apps_context_and_its_broadcast_reaches_the_stream(client: CableClient) -> None:
    identifier = client.confirmed("RoomChannel", id=7)
    client.perform(identifier, "speak", text="hi")
    told = client.until(identifier=identifier, message={"text": "hi", "path": "/cable"})
    assert told == {"identifier": identifier, "message": {"text": "hi", "path": "/cable"}}


def test_a_stream_may_begin_in_the_backlog(client: CableClient, bus: Bus) -> None:
    for number in range(3):
        bus.publish("/rooms/7", number)
    identifier = client.confirmed("RoomChannel", id=7, last_id=-3)
    assert [client.until(identifier=identifier, message=number)["message"] for number in (1, 2)] == [1, 2]
    assert {"identifier": identifier, "message": 0} not in client.seen


def test_clients_with_the_same_identifier_share_their_bytes(client: CableClient, url: str, bus: Bus) -> None:
    with CableClient(url) as other:
        for each in (client, other):
            each.confirmed("RoomChannel", id=7)
        [followers] = [bus._running_node().hub.membership.followers("/rooms/7")]
        assert followers is not None
        [members] = followers.values()
        assert len(members) == 2


def test_actions_of_a_subscription_run_in_their_order(client: CableClient, log: Log) -> None:
    identifier = client.confirmed("RoomChannel")
    for number in range(30):
        client.perform(identifier, "number", n=number)
    eventually(lambda: 29 in log.calls)
    assert [call for call in log.calls if isinstance(call, int)] == list(range(30))


def test_an_action_that_waits_holds_no_other_subscription_up(client: CableClient) -> None:
    slow = client.confirmed("RoomChannel", id=1)
    client.perform(slow, "wait")
    other = client.confirmed("RoomChannel", id=2)
    client.perform(other, "speak", text="meanwhile")
    client.until(identifier=other, message={"text": "meanwhile", "path": "/cable"})


def test_streams_can_be_changed_by_an_action(client: CableClient, bus: Bus) -> None:
    identifier = client.confirmed("RoomChannel", id=7)
    client.perform(identifier, "move", to="/rooms/8")
    client.until(message="moved")
    bus.publish("/rooms/7", "no longer")
    bus.publish("/rooms/8", "now")
    assert client.next()["message"] == "now"
    client.perform(identifier, "stop", channel="/rooms/8")
    client.until(message="stopped")
    bus.publish("/rooms/8", "no longer")
    client.perform(identifier, "move", to="/rooms/7")
    assert client.next()["message"] == "moved"


def test_a_rejected_subscription_is_told_and_unsubscribed_once(client: CableClient, log: Log) -> None:
    identifier = client.subscribe("RoomChannel", secret=True)
    assert client.next() == {"type": "reject_subscription", "identifier": identifier}
    eventually(lambda: ("unsubscribed", True) in log.calls)
    client.perform(identifier, "number", n=1)
    assert client.next()["error"]["code"] == "not_subscribed"
    assert log.calls == ["subscribed", ("unsubscribed", True)]


def test_what_subscribed_raises_is_logged_and_told_without_details(
    client: CableClient, log: Log, caplog: pytest.LogCaptureFixture
) -> None:
    identifier = client.subscribe("RoomChannel", broken=True)
    told = client.next()
    error = {"code": "internal", "message": "RoomChannel.subscribed failed"}
    assert told == {"type": "reject_subscription", "identifier": identifier, "error": error}
    eventually(lambda: ("unsubscribed", True) in log.calls)
    assert "ZeroDivisionError: a detail" in caplog.text


def test_an_abort_is_told_with_its_description(client: CableClient) -> None:
    client.subscribe("RoomChannel", forbidden=True)
    assert client.next()["error"] == {"code": "forbidden", "message": "members only"}


def test_what_an_action_raises_ends_nothing_else(
    client: CableClient, log: Log, caplog: pytest.LogCaptureFixture
) -> None:
    identifier = client.confirmed("RoomChannel")
    client.perform(identifier, "fail")
    error = client.until(type="error")["error"]
    assert error["code"] == "internal"
    assert error["message"] == "RoomChannel.fail failed"
    assert error["identifier"] == identifier
    assert "ValueError: a detail" in caplog.text
    client.perform(identifier, "number", n=5)
    eventually(lambda: 5 in log.calls)


@pytest.mark.parametrize(
    ("action", "why"),
    [
        ("_private", "private"),
        ("__init__", "private"),
        ("inherited", "no action"),
        ("static", "no action"),
        ("shown", "no action"),
        ("subscribed", "no action"),
        ("transmit", "no action"),
        ("params", "has no action"),
        ("nothing", "has no action"),
    ],
)
def test_what_is_no_action_is_refused(client: CableClient, log: Log, action: str, why: str) -> None:
    identifier = client.confirmed("RoomChannel")
    client.perform(identifier, action)
    error = client.until(type="error")["error"]
    assert error["code"] == "unknown_action"
    assert error["field"] == "action"
    assert why in error["message"]
    assert log.calls == ["subscribed"]


def test_leaving_calls_unsubscribed_once(client: CableClient, log: Log, bus: Bus) -> None:
    identifier = client.confirmed("RoomChannel", id=7)
    client.say(command="unsubscribe", identifier=identifier)
    eventually(lambda: ("unsubscribed", False) in log.calls)
    bus.publish("/rooms/7", "no longer")
    client.confirmed("RoomChannel")
    assert "no longer" not in [told.get("message") for told in client.seen]
    assert log.count(("unsubscribed", False)) == 1


def test_a_connection_that_ends_calls_unsubscribed_for_each(url: str, log: Log) -> None:
    with CableClient(url) as client:
        for number in range(5):
            client.confirmed("RoomChannel", id=number)
    eventually(lambda: log.count(("unsubscribed", False)) == 5)
    assert log.count("subscribed") == 5


def test_a_client_that_leaves_during_an_action_is_unsubscribed_after_it(url: str, log: Log) -> None:
    with CableClient(url) as client:
        identifier = client.confirmed("RoomChannel")
        client.perform(identifier, "wait")
        client.perform(identifier, "number", n=1)
        client.confirmed("RoomChannel", id=2)
        eventually(lambda: log.count("wait") == 1)
    eventually(lambda: log.count(("unsubscribed", False)) == 1)
    log.go_on.set()
    eventually(lambda: log.count(("unsubscribed", False)) == 2)


def test_a_bus_that_is_closed_unsubscribes_everybody_who_may_still_publish(tmp_path: Path, log: Log) -> None:
    store = f"sqlite:///{tmp_path}/bus.db"
    bus = make_bus(log, store)
    with served(bus) as url, CableClient(url) as client:
        client.confirmed("RoomChannel", id=7)
        client.confirmed("RoomChannel", id=8)
        bus.close()
        assert log.count(("unsubscribed", False)) == 2
        assert client.until(type="disconnect") == {"type": "disconnect", "reason": "server_restart", "reconnect": True}
    other = Bus(url=store)
    assert [message.data for message in other.backlog("/rooms/7")] == ["left"]
    other.close()


def test_timers_run_until_the_subscription_ends(client: CableClient, log: Log) -> None:
    identifier = client.confirmed("ClockChannel")
    for _ in range(3):
        client.until(identifier=identifier, message="tick")
    client.say(command="unsubscribe", identifier=identifier)
    eventually(lambda: "stopped" in log.calls)
    client.perform(identifier, "tick")
    client.until(type="error")
    before = len(client.seen)
    with pytest.raises(TimeoutError):
        client.next(timeout=0.5)
    assert len(client.seen) == before


def test_a_repeated_subscribe_is_confirmed_again_and_not_repeated(client: CableClient, log: Log) -> None:
    client.confirmed("RoomChannel")
    client.confirmed("RoomChannel")
    assert log.calls == ["subscribed"]


def test_too_many_actions_that_wait_are_refused_by_name(client: CableClient, bus: Bus) -> None:
    identifier = client.confirmed("RoomChannel")
    client.perform(identifier, "wait")
    for number in range(MAX_WAITING + 20):
        client.perform(identifier, "number", n=number)
    error = client.until(type="error")["error"]
    assert (error["code"], error["retry_after"]) == ("too_many_actions", 1)
    assert str(MAX_WAITING) in error["message"]
