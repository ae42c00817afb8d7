"""Readers of channels in several partitions of a store: the same promises, and a partition is nobody else's matter."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator

import pytest

from messagebus import Bus
from messagebus.stores.redis_cluster import RedisClusterStore

from ..browser_events import Browser
from ..clients import Client, EventSource, WebSocket
from ..partitioned import PARTITIONS, PartitionedStore, name_in
from ..redis_cluster import RedisCluster
from ..redis_server import RedisServer
from ..servers import Server
from .conftest import APP, World, run

_numbers = itertools.count()
PIECE = 20_000


@pytest.fixture(scope="module", params=["partitions", "cluster"])
def world(request: pytest.FixtureRequest, redis_server: RedisServer) -> Iterator[World]:
    """Three stores as one, then a Redis Cluster of three nodes."""
    if request.param == "partitions":
        yield from run("partitions", redis_server, messagebus_max_catch_up_batch=str(PIECE))
        return
    cluster: RedisCluster = request.getfixturevalue("redis_cluster")
    cluster.empty()
    env = {"MESSAGEBUS_URL": cluster.url(PARTITIONS), "MESSAGEBUS_MAX_CATCH_UP_BATCH": str(PIECE)}
    with contextlib.closing(Bus(url=env["MESSAGEBUS_URL"])) as bus, Server("serve", APP, env=env) as server:
        yield World(server, bus)


@pytest.fixture
def names() -> list[str]:
    """A channel of each partition that no other test has."""
    number = next(_numbers)
    return [name_in(partition, PARTITIONS, f"/story-{number}-") for partition in range(PARTITIONS)]


def reset(world: World, partition: int) -> None:
    """A partition loses everything."""
    assert world._bus is not None
    store = world._bus._publisher_now().store
    if isinstance(store, PartitionedStore):
        store.parts[partition].reset()
    elif isinstance(store, RedisClusterStore):
        store._on(partition, lambda part: part.delete_fixed(ids=True))
        store._delete_matching(store._parts[partition].tag + b"__mb_backlog_*")


def data(client: Client, name: str) -> list[object]:
    return [message["data"] for message in client.received if message["channel"] == name]


def test_a_reader_of_all_partitions_gets_each_channel_in_order_and_goes_on_after_a_break(
    world: World, transport: type[Client], names: list[str]
) -> None:
    for name in names:
        world.publish(name, "kept")
    with transport.connect(world.url, dict.fromkeys(names, 0), epoch="") as client:
        client.messages(len(names))
        for number in range(4):
            for name in names:
                world.publish(name, number)
        client.messages(4 * len(names), resume=True)
        client.cut()
        for number in range(4, 8):
            for name in names:
                world.publish_from_elsewhere(name, number)
        client.reconnect()
        client.messages(4 * len(names), resume=True)
        for name in names:
            assert data(client, name) == ["kept", *range(8)]
        assert client.gaps == []


def test_a_browser_that_knows_only_event_ids_gets_every_message_once_however_often_it_is_cut(
    world: World, names: list[str]
) -> None:
    for number in range(30):
        for name in names:
            world.publish(name, f"{name} {number} {'x' * 1000}")
    browser = Browser(world.url, dict.fromkeys(names, 0), format="raw")
    found = [text.rpartition(" ")[0] for _ in range(18) for text, _ in browser.events(5)]
    assert browser.last_id.count(".") == PARTITIONS - 1
    for name in names:
        assert [text for text in found if text.startswith(f"{name} ")] == [f"{name} {number}" for number in range(30)]
    world.publish(names[1], "live")
    world.publish(names[0], "live, too")
    assert sorted(text for text, _ in browser.events(2)) == ["live", "live, too"]


def test_whoever_wants_only_new_messages_loses_none_of_a_partition_while_another_one_is_being_sent(
    world: World, names: list[str]
) -> None:
    for number in range(60):
        world.publish(names[0], f"{number} {'x' * 1000}")
    browser = Browser(world.url, {names[0]: 0, names[1]: -1}, format="raw")
    first = browser.events(3)
    world.publish(names[1], "meanwhile")
    rest = browser.events(58)
    texts = [text.partition(" ")[0] for text, _ in first + rest]
    assert sorted(texts, key=lambda text: int(text) if text.isdigit() else 99) == [*map(str, range(60)), "meanwhile"]


def test_a_reader_in_one_partition_has_a_plain_number_for_its_event_id(world: World, names: list[str]) -> None:
    world.publish(names[2], "one", "two")
    browser = Browser(world.url, {names[2]: 0}, format="raw")
    assert [text for text, _ in browser.events(1)] == ["one"]
    assert browser.last_id.isdigit()
    assert [text for text, _ in browser.events(1)] == ["two"]


def test_when_a_partition_loses_everything_only_its_readers_are_sent_back(
    world: World, transport: type[Client], names: list[str]
) -> None:
    for name in names:
        world.publish_and_hear(name, "before")
    with (
        transport.connect(world.url, {names[0]: 0, names[1]: 0}, epoch="") as both,
        transport.connect(world.url, {names[2]: 0}, epoch="") as other,
    ):
        both.messages(2)
        other.messages(1)
        reset(world, 1)
        world.publish(names[1], "another life")
        world.publish(names[0], "goes on")
        world.publish(names[2], "goes on")
        both.messages(2, resume=True)
        assert data(both, names[1]) == ["before", "another life"]
        assert data(both, names[0]) == ["before", "goes on"]
        assert [[*gap] for gap in both.gaps] == [[names[1]]], "nothing else was lost"
        connections = other.connections
        other.messages(1)  # without coming back
        assert (other.gaps, other.connections) == ([], connections)


def test_a_connection_is_told_the_epoch_of_each_partition_that_it_comes_to_follow(
    world: World, names: list[str]
) -> None:
    for name in names:
        world.publish_and_hear(name, "old 1", "old 2")
    with WebSocket.connect(world.url, {names[0]: -1}) as client:
        client.status()
        first = client.epoch or ""
        assert first.startswith("0-")
        client.positions[names[1]] = 1
        client.ask({"subscribe": {names[1]: 1}, "id": 1})
        client.messages(1)
        assert (client.epoch or "").startswith(f"{first}.1-")


def test_a_position_of_a_partition_that_began_another_life_while_none_of_its_channels_was_followed_is_none(
    world: World, names: list[str]
) -> None:
    for name in names:
        world.publish_and_hear(name, "old 1", "old 2")
    with WebSocket.connect(world.url, dict.fromkeys(names[:2], 0), epoch="") as client:
        client.messages(4)
        client.ask({"unsubscribe": [names[1]], "id": 1})
        reset(world, 1)
        world.publish_and_hear(names[1], "new 1", "new 2", "new 3")
        client.ask({"subscribe": {names[1]: 2}, "id": 2})
        assert [message["data"] for message in client.messages(3)] == ["new 1", "new 2", "new 3"]
        assert client.gaps == [{names[1]: {"after": None, "before": 1}}]
        assert client.connections <= 1


def test_batches_of_events_say_how_far_each_partition_is(world: World, names: list[str]) -> None:
    for name in names:
        world.publish(name, *range(3))
    with EventSource.connect(world.url, dict.fromkeys(names, 0), epoch="") as client:
        client.messages(9)
        assert str(client.last_event_id).count(".") == PARTITIONS - 1
        client.cut()
        for name in names:
            world.publish(name, 3)
        again = EventSource(world.url, dict.fromkeys(names, 0), epoch="", last_event_id=client.last_event_id)
        again.reconnect()
        again.messages(3)
        assert {message["data"] for message in again.received} == {3}
        again.cut()
