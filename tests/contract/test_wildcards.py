"""Subscriptions to all channels that begin alike, over every transport."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from ..clients import Client, EventSource, Refused, WebSocket
from ..redis_server import RedisServer
from .conftest import World, run

KEPT, WINDOW = 50, 8
_numbers = itertools.count()


@pytest.fixture(scope="module", params=["flask", "serve"])
def world(request: pytest.FixtureRequest, redis_server: RedisServer) -> Iterator[World]:
    allowed = ",".join(f"/w{number}/*" for number in range(40))
    yield from run(
        request.param,
        redis_server,
        messagebus_wildcard_subscriptions=allowed,
        messagebus_max_global_backlog_size=str(KEPT),
        messagebus_window_size=str(WINDOW),
    )


@pytest.fixture
def below() -> str:
    """What the channels of a pattern begin with that no other test has."""
    return f"/w{next(_numbers)}/"


def test_a_pattern_brings_new_messages_and_after_a_break_the_missed_ones_once_and_in_order(
    world: World, transport: type[Client], below: str
) -> None:
    world.publish(f"{below}a", "before")
    with transport.connect(world.url, {f"{below}*": -1}, epoch="") as client:
        client.status()
        for number in range(3):
            world.publish(f"{below}{number % 2}", number)
            world.publish(f"/else{below}", "for others")
        assert client.data(3) == [0, 1, 2]
        assert [message["channel"] for message in client.received] == [f"{below}0", f"{below}1", f"{below}0"]
        client.cut()
        world.publish_from_elsewhere(f"{below}1", 3)
        world.publish_from_elsewhere(f"{below}new", 4)
        client.reconnect()
        assert client.data(2) == [3, 4]
        world.publish(f"{below}0", 5)
        assert client.data(1) == [5]
        assert [message["message_id"] for message in client.received] == [1, 1, 2, 2, 1, 3]
        assert client.gaps == []


def test_what_the_global_backlog_no_longer_has_is_told_as_a_gap(
    world: World, transport: type[Client], below: str
) -> None:
    pattern = f"{below}*"
    with transport.connect(world.url, {pattern: -1}, epoch="") as client:
        seen = client.status()[pattern]
        client.cut()
        world.publish(f"{below}a", *range(WINDOW * 2))
        world.publish("/many", *range(KEPT))
        world.publish(f"{below}a", "last")
        client.reconnect()
        came: list[object] = []
        while came[-1:] != ["last"]:
            came += client.data(1)
        # The process's own memory reaches back somewhat further.
        assert came == [*range(WINDOW * 2 - len(came) + 1, WINDOW * 2), "last"]
        [gap] = client.gaps
        assert gap[pattern]["after"] == seen
        world.publish(f"{below}a", "more")
        assert client.data(1) == ["more"]


def test_who_follows_a_quiet_pattern_stands_where_the_store_does(world: World, below: str) -> None:
    with WebSocket.connect(world.url, {f"{below}*": -1}, epoch="") as client:
        begin = client.status()[f"{below}*"]
        world.publish("/many", *range(KEPT * 4))
        while client.position(f"{below}*") < begin + KEPT * 3:  # type: ignore[operator]
            client.status()
        client.cut()
        client.reconnect()
        world.publish(f"{below}a", "mine")
        assert client.data(1) == ["mine"]
        assert client.gaps == []


def test_a_browser_comes_back_with_the_id_of_the_last_event(world: World, below: str) -> None:
    with EventSource.connect(world.url, {f"{below}*": -1}) as client:
        client.next_batch()
        [seen] = world.publish(f"{below}a", "one")
        assert client.data(1) == ["one"]
        client.cut()
        world.publish(f"{below}b", "two")
        client.positions[f"{below}*"] = -1
        client.reconnect()
        assert client.data(1) == ["two"]
        assert seen == 1


def test_a_websocket_follows_and_leaves_a_pattern_by_commands(world: World, below: str) -> None:
    with WebSocket.connect(world.url, {}, epoch="") as client:
        client.positions[f"{below}*"] = -1
        client.send({"subscribe": {f"{below}*": -1}, "id": 1})
        assert client.answer() == {"id": 1, "ok": {}}
        world.publish(f"{below}a", 1)
        assert client.data(1) == [1]
        client.send({"subscribe": {f"{below}a": 0}, "id": 2})
        assert client.answer()["error"]["code"] == "invalid_channel"
        client.send({"unsubscribe": [f"{below}*"], "id": 3})
        assert client.answer() == {"id": 3, "ok": {}}
        client.positions[f"{below}a"] = 1
        client.send({"subscribe": {f"{below}a": 1}, "id": 4})
        assert client.answer() == {"id": 4, "ok": {}}
        world.publish(f"{below}b", 2)
        world.publish(f"{below}a", 3)
        assert client.data(1) == [3]


def refusal_of(client: Client) -> Refused:
    try:
        client.reconnect()
        client.next_batch()
    except Refused as refused:
        return refused
    raise AssertionError("it was not refused")


def test_a_pattern_that_is_not_allowed_is_refused(world: World, transport: type[Client]) -> None:
    for pattern in ("/*", "/w1*", "/w1/a*"):
        with transport(world.url, {pattern: -1}) as client:
            refused = refusal_of(client)
        assert (refused.status, refused.error["code"]) == (403, "forbidden")
        assert "wildcard_subscriptions" in refused.error["message"]
    with transport.connect(world.url, {"/w1*": -1, "/chat": -1}, takes_refusals=True) as client:
        client.next_batch()
        assert client.refused["/w1*"]["code"] == "forbidden"
