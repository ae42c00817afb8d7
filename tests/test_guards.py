"""What was won in speed, kept by counting instead of timing: work that must not grow with the number of subscribers."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

import messagebus.backends.redis
import messagebus.message
from messagebus import Bus
from messagebus.access import Access
from messagebus.backends import Backlog, State
from messagebus.catchup import Want
from messagebus.channel import Reading
from messagebus.hub import Hub
from messagebus.message import Ids, Message, decode_stored, encode_envelope, encode_stored
from messagebus.opening import open_subscriber
from messagebus.options import Options
from messagebus.reactor import Reactor
from messagebus.runtime import Prepared
from messagebus.subscriber import Identity, Subscriber
from messagebus.transports import EVENT_SOURCE, STREAMING, WEBSOCKET, Transport

from .crowd import Crowd, message_ids
from .eventually import eventually
from .fixtures_servers import ServeApp
from .outlet import Outlet
from .redis_server import RedisServer

CHANNEL = "/chat"
SUBSCRIBERS = 100
STREAMS = (EVENT_SOURCE, STREAMING, WEBSOCKET)


class World:
    """A hub whose loop does not run: its methods are called as the loop would."""

    def __init__(self) -> None:
        self.reactor = Reactor()
        self.hub = Hub(Options(), self.reactor, 10_000, Access(), lambda error, where: None)
        self.hub.start(State(0, "epoch"))

    def connect(self, number: int, transport: Transport, backlog: list[Message] | None = None) -> Outlet:
        """A subscriber that has seen nothing of the backlog yet."""
        subscriber = Subscriber(self.hub, transport, Identity(f"c{number}"), b"", None)
        outlet = subscriber.outlet = Outlet()
        messages = backlog or []
        reading = Reading(self.hub.enter(CHANNEL), 0, Backlog(messages, len(messages), 1))
        open_subscriber(self.hub, subscriber, [Want(CHANNEL, CHANNEL, 0)], Prepared({CHANNEL: reading}, 0), False)
        return outlet


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    world.reactor.abandon()


def messages(first: int, count: int) -> list[Message]:
    envelope = encode_envelope(b'"hello"')
    return [decode_stored(encode_stored(Ids(n, n), CHANNEL, envelope)) for n in range(first, first + count)]


def count_calls(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> list[object]:
    """Have every call of a function or method noted; returns the notes."""
    calls: list[object] = []
    original = getattr(owner, name)

    def noted(*arguments: Any) -> Any:
        calls.append(arguments)
        return original(*arguments)

    monkeypatch.setattr(owner, name, noted)
    return calls


def test_a_message_is_encoded_once_for_each_transport(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    outlets = [world.connect(n, transport) for transport in STREAMS for n in range(SUBSCRIBERS)]
    before = [len(outlet.sent) for outlet in outlets]
    calls = [count_calls(monkeypatch, type(transport), "encode") for transport in (EVENT_SOURCE, WEBSOCKET, STREAMING)]
    world.hub.dispatch(messages(1, 1))
    assert [len(of_transport) for of_transport in calls] == [1, 1, 1]
    assert [len(outlet.sent) for outlet in outlets] == [count + 1 for count in before]


def test_a_burst_is_one_batch_for_each_transport(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    outlets = [world.connect(n, WEBSOCKET) for n in range(SUBSCRIBERS)]
    before = [len(outlet.sent) for outlet in outlets]
    calls = count_calls(monkeypatch, type(WEBSOCKET), "encode")
    world.hub.dispatch(messages(1, 10))
    assert len(calls) == 1
    assert [len(outlet.sent) for outlet in outlets] == [count + 1 for count in before]


def test_subscribers_of_a_transport_share_the_bytes(world: World) -> None:
    outlets = [world.connect(n, WEBSOCKET) for n in range(SUBSCRIBERS)]
    world.hub.dispatch(messages(1, 1))
    assert len({id(outlet.sent[-1]) for outlet in outlets}) == 1


def test_the_json_of_a_message_is_made_once_for_all_subscribers(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    backlog = messages(1, 20)
    world.hub.global_id = 20
    made = count_calls(monkeypatch, messagebus.message, "encode_json")
    outlets = [world.connect(n, transport, backlog) for transport in STREAMS for n in range(SUBSCRIBERS)]
    assert len(made) == 20  # for those who catch up
    world.hub.dispatch(messages(21, 1))
    assert len(made) == 21  # and for those who are there
    assert all(message_ids(b"".join(outlet.sent)) == list(range(1, 22)) for outlet in outlets)


@pytest.mark.redis
@pytest.mark.parametrize("transport", ["streaming", "eventsource", "websocket"])
def test_clients_that_reconnect_a_little_behind_cost_the_store_nothing(
    transport: str, redis_server: RedisServer, redis_url: str, serve_app: ServeApp
) -> None:
    server = serve_app("serve", args=("--url", redis_url))
    bus = Bus(url=redis_url)
    try:
        for number in range(20):
            bus.publish(CHANNEL, number)
        with Crowd(server.connect, transport, CHANNEL, 1) as first:
            first.read_until(lambda received: len(message_ids(received)) == 20)
            with redis_server.client() as client:

                def commands() -> int:
                    stats: Any = client.info("commandstats")
                    return sum(
                        entry["calls"]
                        for name, entry in stats.items()
                        # The feeds ask now and then whether Redis is still there.
                        if name not in ("cmdstat_info", "cmdstat_ping")
                    )

                asked = commands()
                with Crowd(server.connect, transport, CHANNEL, 200) as crowd:
                    crowd.read_until(lambda received: len(message_ids(received)) == 20)
                    assert commands() == asked
                bus.publish(CHANNEL, 20)
                first.read_until(lambda received: len(message_ids(received)) == 21)
                eventually(lambda: commands() > asked, message="publishing is not counted: the count tells nothing")
    finally:
        bus.close()


@pytest.mark.redis
def test_a_process_that_only_publishes_and_reads_starts_no_thread_and_hears_nothing(
    redis_server: RedisServer, redis_url: str
) -> None:
    before = set(threading.enumerate())
    bus = Bus(url=redis_url)
    try:
        bus.publish(CHANNEL, 1)
        bus.publish_many([(CHANNEL, 2), (CHANNEL, 3)])
        assert bus.last_id(CHANNEL) == len(bus.backlog(CHANNEL)) == bus.newest_global_id() == 3
        with redis_server.client() as client:
            assert set(threading.enumerate()) == before
            assert client.pubsub_channels() == []
            bus.subscribe(CHANNEL, lambda message: None)
            eventually(lambda: client.pubsub_channels() != [])  # it would have been seen
    finally:
        bus.close()


@pytest.mark.redis
def test_what_is_published_at_once_is_one_command_and_names_each_channel_once(
    redis_server: RedisServer, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands = count_calls(monkeypatch, messagebus.backends.redis, "_call")
    bus = Bus(url=redis_url)
    try:
        bus.publish(CHANNEL, 0)  # Redis has the script from here on
        with redis_server.client() as client:

            def scripts() -> int:
                stats: Any = client.info("commandstats")
                return int(stats["cmdstat_evalsha"]["calls"])

            before = scripts()
            for data in ([1], range(100)):
                commands.clear()
                bus.publish_many([(f"/guard-{number % 10}", number) for number in data])
                assert len(commands) == 1
            assert scripts() == before + 2
        command: Any = commands[0]
        for number in range(10):
            # Once as key names have it, once as messages have it.
            assert command[1].count(b"/guard-%d" % number) == 2
    finally:
        bus.close()
