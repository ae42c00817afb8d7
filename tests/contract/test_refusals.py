"""A channel that is refused by itself: the others of the same request flow, on every transport."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator

import pytest

from messagebus import Bus

from ..clients import FORM, Client, LongPolling, Refused, WebSocket, request
from ..redis_server import RedisServer
from .conftest import World, run

MAX_CHANNELS = 5


@pytest.fixture(scope="module", params=["flask", "serve"])
def refusing(request: pytest.FixtureRequest, redis_server: RedisServer) -> Iterator[World]:
    yield from run(request.param, redis_server, "tests.apps.refusing:app", traceback="LookupError: a mistake in a hook")


def grant(channel: str) -> str:
    return Bus(url="memory://", secret_key="a secret for tests").grant(channel)


REFUSED = {
    "/private-1": {"code": "forbidden", "retry": False},
    "/never-1": {"code": "forbidden", "retry": False},
    "/aborted-1": {"code": "forbidden", "retry": False},
    "/broken-1": {"code": "internal", "retry": True},
    "/away-1": {"code": "unavailable", "retry": True, "retry_after": 2},
    "no-slash": {"code": "invalid_channel", "retry": False},
}


@pytest.mark.parametrize("refused", [*REFUSED, "/position"])
def test_a_refused_channel_is_told_and_the_others_flow(refusing: World, transport: type[Client], refused: str) -> None:
    channel = refusing.channel()
    position = "x" if refused == "/position" else 0
    with transport.connect(refusing.url, {channel: 0, refused: position}, takes_refusals=True) as client:
        while not client.refused:
            client.next_batch()
        told = client.refused[refused]
        assert refused in told.pop("message")
        assert told == REFUSED.get(refused, {"code": "invalid_position", "retry": False})
        assert client.batches[0][0]["channel"] == "/__refused", "it is told in the first batch"
        del client.positions[refused]
        refusing.publish(channel, "for whom it is meant")
        assert client.data(1) == ["for whom it is meant"]


def test_what_a_hook_says_is_told(refusing: World, transport: type[Client]) -> None:
    with transport.connect(refusing.url, {"/aborted-1": 0}, takes_refusals=True) as client:
        client.next_batch()
        assert client.refused["/aborted-1"]["message"] == "/aborted-1: log in first"


def test_where_every_channel_is_refused_the_answer_comes_at_once(refusing: World, transport: type[Client]) -> None:
    with transport.connect(refusing.url, {"/never-1": 0, "/never-2": 0}, takes_refusals=True) as client:
        client.next_batch()
        assert set(client.refused) == {"/never-1", "/never-2"}


def test_a_client_that_does_not_ask_is_refused_as_a_whole(refusing: World, transport: type[Client]) -> None:
    with pytest.raises(Refused) as refused, transport.connect(refusing.url, {"/a": 0, "/never-1": 0}) as client:
        client.next_batch()
    assert refused.value.status == 403
    assert refused.value.error["field"] == "/never-1"


def test_channels_beyond_the_limit_are_refused_one_by_one(refusing: World, transport: type[Client]) -> None:
    channels = [refusing.channel() for _ in range(MAX_CHANNELS + 2)]
    with transport.connect(refusing.url, dict.fromkeys(channels, 0), takes_refusals=True) as client:
        client.next_batch()
        assert {name: why["code"] for name, why in client.refused.items()} == dict.fromkeys(
            channels[MAX_CHANNELS:], "too_many_channels"
        )
        for channel in channels[MAX_CHANNELS:]:
            del client.positions[channel]
        refusing.publish(channels[MAX_CHANNELS - 1], "the last that fits")
        assert client.data(1) == ["the last that fits"]


def test_as_many_grants_are_read_as_there_may_be_channels(refusing: World, transport: type[Client]) -> None:
    channels = [f"/private-{number}" for number in range(MAX_CHANNELS)]
    tokens = [grant(channel) for channel in channels]
    with transport.connect(refusing.url, dict.fromkeys(channels, 0), takes_refusals=True, grants=tokens) as client:
        refusing.publish(channels[-1], "granted")
        assert client.data(1) == ["granted"]
        assert client.refused == {}


def test_a_grant_beyond_that_is_named_as_the_reason(refusing: World, transport: type[Client]) -> None:
    tokens = [*(grant(f"/private-x{number}") for number in range(MAX_CHANNELS)), grant("/private-1")]
    positions = {"/open": 0, "/private-1": 0}
    with transport.connect(refusing.url, positions, takes_refusals=True, grants=tokens) as client:
        client.next_batch()
        assert "of 6 grants, the first 5 were read" in client.refused["/private-1"]["message"]


def test_a_request_that_names_ten_times_too_many_channels_is_not_read(refusing: World) -> None:
    channels = [f"/{number}" for number in range(10 * MAX_CHANNELS + 1)]
    asked = dict.fromkeys(channels, 0)
    with LongPolling.connect(refusing.url, asked, takes_refusals=True) as client, pytest.raises(Refused) as refused:
        client.next_batch()
    assert refused.value.error["code"] == "too_many_channels"


def test_json_polls_ask_for_refusals_by_true_as_well(refusing: World) -> None:
    for value in (True, "t"):
        body = json.dumps({"/never-1": 0, "/a": 0, "__refusals": value})
        headers = {"Content-Type": "application/json"}
        with request(refusing.url, "POST", "/message-bus/x/poll?dlp=t", body, headers) as response:
            assert set(json.loads(response.read())[0]["data"]) == {"/never-1"}


def test_a_poll_may_ask_for_refusals_in_its_query(refusing: World) -> None:
    with request(
        refusing.url, "POST", "/message-bus/x/poll?dlp=t&__refusals=t", "/never-1=0", {"Content-Type": FORM}
    ) as response:
        assert set(json.loads(response.read())[0]["data"]) == {"/never-1"}


# --- later, on an open WebSocket ---


def test_a_later_subscribe_takes_what_it_may_and_names_the_rest(refusing: World) -> None:
    channel = refusing.channel()
    with WebSocket.connect(refusing.url, {}, takes_refusals=True) as client:
        client.next_batch()
        client.positions[channel] = 0
        answer = client.ask({"subscribe": {channel: 0, "/never-1": 0, "/broken-1": 0, "x": 0, "/y": "z"}})
        refused = answer["ok"]["refused"]
        assert {name: why["code"] for name, why in refused.items()} == {
            "/never-1": "forbidden",
            "/broken-1": "internal",
            "x": "invalid_channel",
            "/y": "invalid_position",
        }
        refusing.publish(channel, 1)
        assert client.data(1) == [1]


def test_a_later_subscribe_takes_grants_and_goes_up_to_the_limit(refusing: World) -> None:
    held = [refusing.channel() for _ in range(MAX_CHANNELS - 1)]
    with WebSocket.connect(refusing.url, dict.fromkeys(held, 0), takes_refusals=True) as client:
        client.next_batch()
        asked = {held[0]: 0, "/private-1": 0, "/one-too-many": 0}
        client.positions.update(asked)
        answer = client.ask({"subscribe": asked, "grants": [grant("/private-1")]})
        assert {name: why["code"] for name, why in answer["ok"]["refused"].items()} == {
            "/one-too-many": "too_many_channels"
        }
        refusing.publish("/private-1", "granted later")
        assert client.data(1) == ["granted later"]


def test_a_client_that_does_not_ask_has_the_command_fail_as_a_whole(refusing: World) -> None:
    channel = refusing.channel()
    with WebSocket.connect(refusing.url, {}) as client:
        client.next_batch()
        answer = client.ask({"subscribe": {channel: 0, "/never-1": 0}})
        assert answer["error"]["code"] == "forbidden"
        refusing.publish(channel, 1)
        assert client.ask({"ping": 1}) == {"ok": {"pong": 1}}
        assert client.received == []


def test_a_slow_hook_of_some_clients_makes_no_other_client_wait(refusing: World) -> None:
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(WebSocket.connect(refusing.url, {})) for _ in range(10)]
        other = stack.enter_context(WebSocket.connect(refusing.url, {}))
        for client in slow:
            client.send({"subscribe": {"/slow-1": -1}, "id": 1})
            client.send({"ping": "behind it", "id": 2})
            client.positions["/slow-1"] = -1
        other.positions["/private-1"] = -1
        assert other.ask({"subscribe": {"/private-1": -1}, "grants": [grant("/private-1")]}) == {"ok": {}}
        with request(refusing.url, "POST", "/hurry") as response:
            assert response.status == 200
        # One client's commands are carried out in their order, however long one takes.
        for client in slow:
            assert [client.answer()["id"], client.answer()["id"]] == [1, 2]
