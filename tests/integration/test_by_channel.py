"""Servers that hear only what their own clients follow: each client gets what it is due."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from messagebus import Bus
from tests.clients import EventSource, LongPolling, Polling, Streaming, WebSocket
from tests.eventually import eventually
from tests.redis_server import RedisServer
from tests.servers import Server

CONNECTED = [LongPolling, Streaming, EventSource, WebSocket]
APP = "tests.apps.contract:app"


class World:
    """A store whose feeds leave out what nobody follows."""

    def __init__(self, url: str, redis: RedisServer | None) -> None:
        self.url = url
        self.redis = redis
        self.env = {"MESSAGEBUS_URL": url, "MESSAGEBUS_REDIS_ANNOUNCE": "by_channel"}

    def bus(self) -> Bus:
        return Bus(url=self.url, redis_announce="by_channel")

    def followed(self) -> int | None:
        """How many channels all processes together are told of; ``None``: the store does not say."""
        if self.url.startswith("postgresql:"):
            return None
        if self.redis is not None:
            with self.redis.client() as client:
                return len(client.pubsub_channels("_message_bus_0:*")) - 1
        marks = Path(self.url.removeprefix("sqlite://") + "-listeners").glob("*.marks")
        return sum(int.from_bytes(each.read_bytes(), "big").bit_count() for each in marks)


@pytest.fixture(
    params=[
        pytest.param("redis", marks=pytest.mark.redis),
        pytest.param("postgres", marks=pytest.mark.postgres),
        "sqlite",
    ]
)
def world(request: pytest.FixtureRequest, tmp_path: Path) -> World:
    if request.param == "sqlite":
        return World(f"sqlite:///{tmp_path}/bus.db", None)
    if request.param == "postgres":
        return World(request.getfixturevalue("postgres_url"), None)
    return World(request.getfixturevalue("redis_url"), request.getfixturevalue("redis_server"))


@pytest.fixture
def servers(world: World) -> Iterator[list[Server]]:
    """One that is under gevent, one that has threads."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(Server(kind, APP, env=world.env)) for kind in ("serve", "flask")]


@pytest.fixture
def bus(world: World) -> Iterator[Bus]:
    with contextlib.closing(world.bus()) as bus:
        yield bus


def test_clients_on_every_transport_get_what_they_follow_and_go_on_by_message_id_or_global_id(
    servers: list[Server], bus: Bus
) -> None:
    with contextlib.ExitStack() as stack:
        clients = []
        for server in servers:
            for number, kind in enumerate(CONNECTED):
                client = kind.connect(server.url, {f"/room/{number}": 0, "/all": -1}, epoch="")
                clients.append((number, stack.enter_context(client)))
        for client in [client for _, client in clients]:
            client.status()
        for round_number in range(3):
            for stranger in range(50):
                bus.publish(f"/stranger/{stranger}", 0)
            for number in range(len(CONNECTED)):
                bus.publish(f"/room/{number}", round_number)
            bus.publish("/all", round_number)
            for number, client in clients:
                found = [message for message in client.messages(2, resume=True) if message["channel"][1] != "_"]
                assert sorted(message["channel"] for message in found) == ["/all", f"/room/{number}"]
                assert {message["data"] for message in found} == {round_number}
            if round_number == 1:
                for _, client in clients:
                    client.cut()
                bus.publish("/stranger/1", 0)
                for _, client in clients:
                    client.reconnect()
        for _, client in clients:
            assert client.gaps == []


def test_a_page_goes_on_from_what_there_was_when_it_was_rendered_whoever_published_last(
    servers: list[Server], bus: Bus
) -> None:
    bus.publish("/chat", "old")
    bus.publish("/stranger", 1)
    seen = bus.seen()
    assert seen is not None
    assert seen.global_id == 2
    bus.publish("/stranger", 2)
    bus.publish("/chat", "new")
    for server in servers:
        with Polling.connect(server.url, {"/chat": "@2"}, epoch=seen.epoch) as page:
            assert page.data(1)[0] == "new"
        newest = bus.seen()
        assert newest is not None
        with WebSocket.connect(server.url, {"/chat": f"@{newest.global_id}"}, epoch=newest.epoch) as page:
            bus.publish("/chat", server.url)
            assert page.data(1) == [server.url]
            assert page.gaps == []


def test_what_nobody_follows_is_not_heard_and_channels_that_come_and_go_lose_nothing(
    servers: list[Server], bus: Bus, world: World
) -> None:
    server = servers[0]
    with WebSocket.connect(server.url, {"/a": -1}, epoch="") as client:
        client.status()
        assert world.followed() in (1, None)
        client.positions.update({f"/c/{number}": 0 for number in range(5)})

        def publish() -> None:
            for number in range(400):
                bus.publish(f"/c/{number % 5}", number)

        publishing = threading.Thread(target=publish)
        publishing.start()
        names = [f"/c/{number}" for number in range(5)]
        for _ in range(20):
            assert "ok" in client.ask({"subscribe": {name: client.positions[name] for name in names}})
            assert "ok" in client.ask({"unsubscribe": names})
        publishing.join()
        client.ask({"subscribe": {name: client.positions[name] for name in names}})
        bus.publish("/a", "end")
        while not client.received or client.received[-1]["data"] != "end":
            client.next_batch()
        for number in range(5):
            ids = [message["message_id"] for message in client.received if message["channel"] == f"/c/{number}"]
            assert ids == list(range(1, 81))
        assert client.gaps == []


def test_python_functions_hear_their_channel_from_the_moment_that_they_are_subscribed(bus: Bus, world: World) -> None:
    heard: list[object] = []
    with contextlib.closing(world.bus()) as listening:
        for number in range(20):
            listening.subscribe(f"/c/{number}", lambda message: heard.append(message.data))
            bus.publish(f"/c/{number}", number)
            bus.publish("/stranger", number)
        eventually(lambda: sorted(heard, key=str) == sorted(range(20), key=str))
        for number in range(20):
            listening.unsubscribe(f"/c/{number}")
        eventually(lambda: world.followed() in (0, None))
        everything: list[object] = []
        listening.subscribe(None, lambda message: everything.append(message.data))
        bus.publish("/stranger", "x")
        eventually(lambda: everything == ["x"])
        bus.publish("/stranger", "y")
        eventually(lambda: everything == ["x", "y"])


@pytest.mark.redis
def test_clients_lose_nothing_when_a_program_without_the_option_begins_to_publish(redis_url: str) -> None:
    env = {"MESSAGEBUS_URL": redis_url, "MESSAGEBUS_REDIS_ANNOUNCE": "by_channel"}
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(Server(kind, APP, env=env)) for kind in ("serve", "flask")]
        bus = stack.enter_context(contextlib.closing(Bus(url=redis_url, redis_announce="by_channel")))
        clients = [
            stack.enter_context(kind.connect(server.url, {"/chat": -1}, epoch=""))
            for server in servers
            for kind in CONNECTED
        ]
        for client in clients:
            client.status()
        gem = stack.enter_context(contextlib.closing(Bus(url=redis_url)))
        bus.publish("/chat", 1)
        gem.publish("/chat", 2)
        gem.publish("/stranger", 0)
        gem.publish("/chat", 3)
        for client in clients:
            assert client.data(3, resume=True) == [1, 2, 3]
        for number in range(4, 8):
            (gem if number % 2 else bus).publish("/chat", number)
        for client in clients:
            assert client.data(4, resume=True) == [4, 5, 6, 7]
            assert client.gaps == []
        later = stack.enter_context(Server("serve", APP, env=env))
        with WebSocket.connect(later.url, {"/chat": -1}, epoch="") as client:
            client.status()
            gem.publish("/chat", 8)
            assert client.data(1) == [8]


@pytest.mark.redis
def test_clients_lose_nothing_when_the_feeds_are_cut(mortal_redis: RedisServer) -> None:
    env = {"MESSAGEBUS_URL": mortal_redis.url, "MESSAGEBUS_REDIS_ANNOUNCE": "by_channel"}
    with (
        Server("serve", APP, env=env) as server,
        contextlib.closing(Bus(url=mortal_redis.url, redis_announce="by_channel")) as bus,
        WebSocket.connect(server.url, {"/a": 0, "/b": 0}, epoch="") as client,
    ):
        client.next_batch()
        for number in range(100):
            if number % 20 == 10:
                with mortal_redis.client() as redis:
                    redis.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
            bus.publish("/b" if number % 2 else "/a", number)
        assert sorted(client.data(100)) == list(range(100))
        assert client.gaps == []
