"""Channel classes for the bus's own clients: ``enter``, ``perform`` and ``leave``, by requests and on a WebSocket."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import ClientConnection, connect

from messagebus import BackendUnavailable, Bus, Channel
from messagebus.cable import still_there
from messagebus.hub.permissions import read_grants

from .cable_client import served
from .clients import request
from .eventually import eventually


def make_bus(calls: list[Any], url: str = "memory://", **options: Any) -> Bus:
    bus = Bus(url=url, secret_key="of the tests", **options)

    @bus.channel
    class RoomChannel(Channel):
        def subscribed(self) -> None:
            calls.append("subscribed")
            self.number = 0
            if self.params.get("secret"):
                self.reject()
            if self.params.get("broken"):
                raise ValueError("a detail")
            self.stream_from("/rooms/7", last_id=self.params.get("last_id", -1))
            self.transmit("hello")

        def unsubscribed(self) -> None:
            calls.append("unsubscribed")

        def speak(self, data: dict[str, Any]) -> dict[str, Any]:
            self.number += 1
            self.broadcast("/rooms/7", data["text"])
            return {"number": self.number, "user": self.user_id}

        def may_see(self, data: dict[str, Any]) -> bool:
            return self.connection.is_granted(data["channel"])

        def move(self) -> None:
            self.stop_all_streams()
            self.stream_from("/rooms/8")

        def fail(self) -> None:
            raise ValueError("a detail")

        def lose(self) -> None:
            raise BackendUnavailable("the store")

        def _private(self) -> None: ...

    return bus


class Caller:
    """A client that calls by requests."""

    def __init__(self, url: str, client_id: str = "c1") -> None:
        self.url = url
        self.client_id = client_id

    def call(self, verb: str, **value: Any) -> tuple[int, Any]:
        path = f"/message-bus/{self.client_id}/{verb}"
        headers = {"Content-Type": "application/json"}
        with request(self.url, "POST", path, json.dumps(value), headers) as response:
            answer = json.loads(response.read())
            return response.status, answer.get("ok", answer.get("error"))

    def enter(self, **params: Any) -> dict[str, Any]:
        status, answer = self.call("enter", channel="RoomChannel", params=params)
        assert status == 200, answer
        found: dict[str, Any] = answer
        return found


@pytest.fixture
def calls() -> list[Any]:
    return []


@pytest.fixture
def bus(calls: list[Any]) -> Bus:
    return make_bus(calls)


@pytest.fixture
def url(bus: Bus) -> Iterator[str]:
    with served(bus) as url:
        yield url


@pytest.fixture
def client(url: str) -> Caller:
    return Caller(url)


def test_a_class_may_ask_for_the_grants_that_were_shown_when_it_was_entered(bus: Bus, url: str) -> None:
    caller = Caller(url)
    token = bus.grant("/vip", client_id="c1")
    status, entered = caller.call("enter", channel="RoomChannel", grants=["no token", token])
    assert status == 200

    def may_see(subscription: dict[str, Any], channel: str) -> Any:
        return caller.call("perform", id=subscription["id"], action="may_see", data={"channel": channel})[1]["result"]

    assert (may_see(entered, "/vip"), may_see(entered, "/other")) == (True, False)
    assert not may_see(caller.enter(), "/vip")
    for grants in (token, [token, 7], {"0": token}):
        status, error = caller.call("enter", channel="RoomChannel", grants=grants)
        assert (status, error["field"]) == (400, "grants")


def test_entering_names_the_streams_where_they_stand_and_grants_them(client: Caller, bus: Bus) -> None:
    bus.publish("/rooms/7", "before")
    entered = client.enter()
    assert entered["streams"] == {"/rooms/7": 1, entered["private"]: 0}
    read = [read_grants("of the tests", [token], client.client_id, None) for token in entered["grants"]]
    assert [grant(channel) for grant, channel in zip(read, entered["streams"], strict=True)] == [True, True]
    assert client.enter(last_id=-2)["streams"]["/rooms/7"] == 0
    assert client.enter(last_id=0)["streams"]["/rooms/7"] == 0


def test_what_a_class_transmits_comes_on_the_private_channel(client: Caller, bus: Bus) -> None:
    entered = client.enter()
    assert [message.data for message in bus.backlog(entered["private"])] == [{"message": "hello"}]
    client.call("perform", id=entered["id"], action="move")
    _, stop, follow = [message.data for message in bus.backlog(entered["private"])]
    assert stop == {"stop": ["/rooms/7"]}
    assert follow["streams"] == {"/rooms/8": 0}


def test_an_action_returns_its_result_and_the_instance_is_kept(client: Caller, bus: Bus) -> None:
    entered = client.enter()
    for number in (1, 2):
        answer = client.call("perform", id=entered["id"], action="speak", data={"text": number})
        assert answer == (200, {"result": {"number": number, "user": None}})
    assert [message.data for message in bus.backlog("/rooms/7")] == [1, 2]


def test_an_action_that_is_sent_again_runs_once(client: Caller, bus: Bus) -> None:
    entered = client.enter()
    said = {"id": entered["id"], "action": "speak", "data": {"text": "hi"}, "key": "k1"}
    assert client.call("perform", **said) == client.call("perform", **said)
    assert len(bus.backlog("/rooms/7")) == 1


def test_an_enter_that_is_sent_again_enters_once(client: Caller, calls: list[Any]) -> None:
    said = {"channel": "RoomChannel", "key": "k1"}
    assert client.call("enter", **said) == client.call("enter", **said)
    assert calls == ["subscribed"]


def test_who_has_entered_may_ask_whether_that_still_holds(client: Caller) -> None:
    entered = client.enter()
    assert client.call("enter", id=entered["id"]) == (200, entered)
    client.call("leave", id=entered["id"])
    status, error = client.call("enter", id=entered["id"])
    assert (status, error["code"]) == (410, "gone")


def test_leaving_calls_unsubscribed_once(client: Caller, calls: list[Any]) -> None:
    entered = client.enter()
    assert client.call("leave", id=entered["id"]) == (200, {})
    eventually(lambda: calls == ["subscribed", "unsubscribed"])
    assert client.call("leave", id=entered["id"])[1]["code"] == "gone"


def test_actions_that_wait_when_the_client_leaves_are_answered(bus: Bus, calls: list[Any]) -> None:
    go_on = threading.Event()

    @bus.channel
    class SlowChannel(Channel):
        def wait(self) -> None:
            calls.append("waits")
            go_on.wait(20)

    with served(bus) as url, websocket(url) as socket:
        entered = ask(socket, enter={"channel": "SlowChannel"})["ok"]
        for number in (2, 3):
            socket.send(json.dumps({"id": number, "perform": {"id": entered["id"], "action": "wait"}}))
        eventually(lambda: calls == ["waits"])
        assert ask(socket, leave={"id": entered["id"]})["ok"] == {}
        go_on.set()
        told = [answer(socket) for _ in range(2)]
        assert [(each["id"], each.get("error", {}).get("code")) for each in told] == [(2, None), (3, "not_subscribed")]
        assert calls == ["waits"]


def test_a_class_that_cannot_be_made_is_told_as_one_that_fails(bus: Bus, calls: list[Any]) -> None:
    @bus.channel
    class BrokenChannel(Channel):
        def __init__(self, *arguments: Any) -> None:
            raise ValueError("a detail")

        def unsubscribed(self) -> None:
            calls.append("unsubscribed")

    with served(bus) as url:
        status, error = Caller(url).call("enter", channel="BrokenChannel")
        assert (status, error["message"]) == (500, "BrokenChannel.subscribed failed")
    assert calls == []


def test_a_rejected_client_is_told(client: Caller, calls: list[Any]) -> None:
    status, error = client.call("enter", channel="RoomChannel", params={"secret": True})
    assert (status, error["code"]) == (403, "rejected")
    eventually(lambda: calls == ["subscribed", "unsubscribed"])


def test_what_a_class_raises_is_told_without_details(client: Caller, caplog: pytest.LogCaptureFixture) -> None:
    status, error = client.call("enter", channel="RoomChannel", params={"broken": True})
    assert (status, error) == (500, {"code": "internal", "message": "RoomChannel.subscribed failed"})
    entered = client.enter()
    status, error = client.call("perform", id=entered["id"], action="fail")
    assert (status, error) == (500, {"code": "internal", "message": "RoomChannel.fail failed"})
    assert caplog.text.count("ValueError: a detail") == 2


@pytest.mark.parametrize(
    ("verb", "value", "code", "field"),
    [
        ("enter", {}, "bad_request", "channel"),
        ("enter", {"channel": "NoChannel"}, "unknown_channel", "channel"),
        ("enter", {"channel": "RoomChannel", "params": []}, "bad_request", "params"),
        ("enter", {"channel": "RoomChannel", "params": {"a": "x" * 3000}}, "params_too_long", "params"),
        ("enter", {"channel": "RoomChannel", "more": 1}, "bad_request", None),
        ("perform", {"action": "speak"}, "bad_request", "id"),
        ("perform", {"id": "nobody.1", "action": "speak"}, "gone", None),
        ("perform", {"id": "", "action": "speak"}, "gone", None),
        ("perform", {"id": "ID", "action": "_private"}, "unknown_action", "action"),
        ("perform", {"id": "ID", "action": "subscribed"}, "unknown_action", "action"),
        ("perform", {"id": "ID", "action": "speak", "data": [1]}, "bad_request", "data"),
        ("leave", {"id": 7}, "bad_request", "id"),
    ],
)
def test_what_cannot_be_is_refused_by_name(
    client: Caller, verb: str, value: dict[str, Any], code: str, field: str | None
) -> None:
    entered = client.enter()
    if value.get("id") == "ID":
        value = {**value, "id": entered["id"]}
    status, error = client.call(verb, **value)
    assert status in (400, 410)
    assert (error["code"], error.get("field")) == (code, field)


def test_a_subscription_is_its_clients_alone(client: Caller, url: str) -> None:
    entered = client.enter()
    assert Caller(url, "c2").call("perform", id=entered["id"], action="move")[1]["code"] == "gone"


def test_more_subscriptions_of_a_client_than_allowed_are_refused_by_name(calls: list[Any]) -> None:
    with served(make_bus(calls, max_channels=2)) as url:
        client = Caller(url)
        for _ in range(2):
            client.enter()
        error = client.call("enter", channel="RoomChannel")[1]
        assert (error["code"], error["message"]) == ("too_many_channels", "max_channels allows 2 subscriptions")


def test_where_no_class_is_registered_nobody_enters() -> None:
    with served(Bus(url="memory://")) as url:
        assert Caller(url).call("enter", channel="RoomChannel")[1]["code"] == "unknown_channel"


def test_the_connect_hook_is_asked_here_as_well(bus: Bus) -> None:
    answers: list[Any] = [False, {"user_id": 7}]

    @bus.connect
    def connect(request: Any) -> Any:
        return answers.pop(0)

    with served(bus) as url:
        client = Caller(url)
        assert client.call("enter", channel="RoomChannel")[1]["code"] == "forbidden"
        entered = client.enter()
        answer = client.call("perform", id=entered["id"], action="speak", data={"text": "hi"})[1]
        assert answer["result"]["user"] == 7


@contextlib.contextmanager
def websocket(url: str, client_id: str = "c1") -> Iterator[ClientConnection]:
    with connect(f"{url.replace('http', 'ws', 1)}/message-bus/{client_id}/ws") as socket:
        yield socket


def ask(socket: ClientConnection, **command: Any) -> dict[str, Any]:
    socket.send(json.dumps({"id": 1, **command}))
    return answer(socket)


def answer(socket: ClientConnection) -> dict[str, Any]:
    """The next answer; batches are read over."""
    while True:
        told: Any = json.loads(socket.recv(20))
        if isinstance(told, dict):
            return told


def test_those_that_enter_while_the_connect_hook_is_asked_meet_the_same_limit_and_key(calls: list[Any]) -> None:
    bus = make_bus(calls, max_channels=2)
    go_on = threading.Event()

    @bus.connect
    def connect(request: Any) -> dict[str, Any]:
        calls.append("connect")
        assert go_on.wait(30)
        return {"user_id": 7}

    found: list[tuple[int, Any]] = []
    with served(bus) as url:
        client = Caller(url)
        threads = [
            threading.Thread(
                target=lambda key=key: found.append(client.call("enter", channel="RoomChannel", params={}, key=key))
            )
            for key in ("same", "same", "other", "third")
        ]
        for thread in threads:
            thread.start()
        eventually(lambda: calls.count("connect") == 4)
        go_on.set()
        for thread in threads:
            thread.join(30)
    entered = [answer["id"] for status, answer in found if status == 200]
    refused = [answer["code"] for status, answer in found if status != 200]
    assert len({*entered}) == 2
    assert len(entered) + len(refused) == 4
    assert {*refused} <= {"too_many_channels"}
    assert calls.count("subscribed") == 2


def test_the_same_goes_over_an_open_websocket(url: str) -> None:
    with websocket(url) as socket:
        entered = ask(socket, enter={"channel": "RoomChannel"})["ok"]
        done = ask(socket, perform={"id": entered["id"], "action": "speak", "data": {"text": "hi"}})
        assert done["ok"]["result"]["number"] == 1
        assert ask(socket, perform={"id": entered["id"], "action": "nothing"})["error"]["code"] == "unknown_action"
        assert ask(socket, leave={"id": entered["id"]})["ok"] == {}


def test_a_call_that_comes_to_another_worker_is_passed_on(tmp_path: Path, calls: list[Any]) -> None:
    store, others = f"sqlite:///{tmp_path}/bus.db", list[Any]()
    with served(make_bus(calls, store)) as here, served(make_bus(others, store)) as there:
        entered = Caller(here).enter()
        client = Caller(there)
        answer = eventually(
            lambda: client.call("perform", id=entered["id"], action="speak", data={"text": "hi"})[1].get("result")
        )
        assert answer == {"number": 1, "user": None}
        assert client.call("perform", id=entered["id"], action="_private")[1]["code"] == "unknown_action"
        status, error = client.call("perform", id=entered["id"], action="lose")
        assert (status, error["code"], error["retry_after"]) == (503, "unavailable", 2)
        assert client.call("enter", id=entered["id"]) == (200, entered)
        assert client.call("leave", id=entered["id"]) == (200, {})
        assert (calls, others) == (["subscribed", "unsubscribed"], [])


def test_a_client_that_is_nowhere_for_a_while_has_left(
    monkeypatch: pytest.MonkeyPatch, calls: list[Any], tmp_path: Path
) -> None:
    monkeypatch.setattr(still_there, "LOOK_SECONDS", 0.2)
    monkeypatch.setattr(still_there, "GONE_SECONDS", 1.0)
    store = f"sqlite:///{tmp_path}/bus.db"
    with served(make_bus(calls, store)) as here, served(make_bus([], store)) as there:
        Caller(here, "gone").enter()
        stays = Caller(here, "stays").enter()
        with websocket(there, "stays"):  # connected to the other worker
            eventually(lambda: calls == ["subscribed", "subscribed", "unsubscribed"])
            assert Caller(here, "stays").call("enter", id=stays["id"])[0] == 200
        eventually(lambda: calls.count("unsubscribed") == 2)


def test_a_closed_bus_unsubscribes_own_clients_as_well(bus: Bus, calls: list[Any]) -> None:
    with served(bus) as url:
        Caller(url).enter()
        bus.close()
        assert calls == ["subscribed", "unsubscribed"]


def test_a_client_that_the_application_disconnects_is_unsubscribed(bus: Bus, calls: list[Any]) -> None:
    @bus.connect
    def connect(request: Any) -> dict[str, Any]:
        return {"user_id": 7 if "c1" in request.path else 8}

    with served(bus) as url:
        Caller(url, "c1").enter()
        Caller(url, "c2").enter()
        eventually(lambda: bus._running_node().workers.reports())
        bus.disconnect(user_ids=[7])
        eventually(lambda: calls.count("unsubscribed") == 1)
        bus.disconnect(client_ids=["c2"])
        eventually(lambda: calls.count("unsubscribed") == 2)


def test_more_subscriptions_than_a_process_may_hold_are_refused_by_name(calls: list[Any]) -> None:
    with served(make_bus(calls, max_active_clients=1)) as url:
        Caller(url, "c1").enter()
        status, error = Caller(url, "c2").call("enter", channel="RoomChannel")
        assert (status, error["code"]) == (503, "unavailable")
        assert "max_active_clients" in error["message"]


def test_what_a_class_sends_to_one_client_is_for_that_client(client: Caller, bus: Bus) -> None:
    [message] = bus.backlog(client.enter()["private"])
    assert message.client_ids == ("c1",)
