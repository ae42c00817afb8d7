"""What was won in speed, kept by counting instead of timing: work that must not grow with the number of subscribers."""

from __future__ import annotations

import _socket
import contextlib
import gc
import socket
import sys
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from types import FrameType
from typing import Any

import pytest
from werkzeug.test import EnvironBuilder
from werkzeug.wrappers import Request

import messagebus.message
from messagebus import Bus
from messagebus.http.routes import Answer, answer
from messagebus.hub.history import Cursor, view_of_page
from messagebus.hub.hub import Hub
from messagebus.hub.joining import join_when_ready
from messagebus.hub.permissions import Access
from messagebus.hub.subscribe_request import SubscriptionPlan
from messagebus.hub.subscriber import Identity, Subscriber
from messagebus.loop.outboxes import Outboxes
from messagebus.loop.reactor import Reactor
from messagebus.loop.socket_writer import SocketWriter
from messagebus.loop.writer import Writer
from messagebus.message import Ids, Message, decode_stored, encode_envelope, encode_stored, id_key
from messagebus.options import Options
from messagebus.stores import BacklogPage, StoreState
from messagebus.stores.redis_connection import Connections
from messagebus.transports import EVENT_SOURCE, STREAMING, WEBSOCKET, Transport

from .clients import EventSource
from .crowd import Crowd, message_ids
from .eventually import eventually
from .fixtures_servers import ServeApp
from .planning import StubPlanner, request_for
from .recording_writer import RecordingWriter
from .redis_server import RedisServer
from .threads import started_threads

CHANNEL = "/chat"
SUBSCRIBERS = 100
STREAMS = (EVENT_SOURCE, STREAMING, WEBSOCKET)


class World:
    """A hub whose loop does not run: its methods are called as the loop would."""

    def __init__(self) -> None:
        self.reactor = Reactor()
        self.hub = Hub(Options(), self.reactor, 10_000, Access(), lambda error, where: None)
        self.hub.start(StoreState(0, "epoch"))

    def connect(self, number: int, transport: Transport, backlog: list[Message] | None = None) -> RecordingWriter:
        """A subscriber that has seen nothing of the backlog yet."""
        writer = RecordingWriter()
        self.open(number, transport, lambda subscriber: writer, backlog)
        return writer

    def open(
        self,
        number: int,
        transport: Transport,
        connect: Callable[[Subscriber], Writer],
        backlog: list[Message] | None = None,
    ) -> None:
        key = id_key(number)
        subscriber = Subscriber(self.hub, transport, Identity(f"c{number}", key, frozenset([key])), b"", None)
        subscriber.writer = connect(subscriber)
        messages = backlog or []
        self.hub.windows.enter(CHANNEL)
        page = view_of_page(BacklogPage(messages, 0, len(messages), len(messages), 1), self.reactor.clock())
        cursor = Cursor(CHANNEL, CHANNEL, 0)
        plan = SubscriptionPlan(request_for(cursor, epoch="epoch"), [cursor], {CHANNEL: page}, [])
        join_when_ready(StubPlanner(self.hub, lambda: plan), subscriber, plan)


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    world.reactor.abandon()


class Sockets:
    """Real connections, and their peers, who read nothing."""

    def __init__(self, reactor: Reactor) -> None:
        self._reactor = reactor
        self._peers: list[socket.socket] = []

    def connect(self, owner: Subscriber) -> SocketWriter:
        mine, peer = socket.socketpair()
        self._peers.append(peer)
        outboxes = Outboxes(1_000_000_000, self._reactor.clock)
        return SocketWriter(_socket.socket(fileno=mine.detach()), self._reactor, owner, 1_000_000, outboxes)

    def close(self) -> None:
        for peer in self._peers:
            peer.close()


@pytest.fixture
def sockets(world: World) -> Iterator[Sockets]:
    sockets = Sockets(world.reactor)
    yield sockets
    sockets.close()


def messages(first: int, count: int) -> list[Message]:
    envelope = encode_envelope(b'"hello"')
    return [decode_stored(encode_stored(Ids(n, n), CHANNEL, envelope)) for n in range(first, first + count)]


def count_calls(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> list[tuple[Any, ...]]:
    """Have every call of a function or method noted; returns the notes."""
    calls: list[tuple[Any, ...]] = []
    original = getattr(owner, name)

    def noted(*arguments: Any) -> Any:
        calls.append(arguments)
        return original(*arguments)

    monkeypatch.setattr(owner, name, noted)
    return calls


def test_a_message_is_encoded_once_for_each_transport(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    writers = [world.connect(n, transport) for transport in STREAMS for n in range(SUBSCRIBERS)]
    before = [len(writer.sent) for writer in writers]
    calls = [count_calls(monkeypatch, type(transport), "encode") for transport in (EVENT_SOURCE, WEBSOCKET, STREAMING)]
    world.hub.dispatch(messages(1, 1))
    assert [len(of_transport) for of_transport in calls] == [1, 1, 1]
    assert [len(writer.sent) for writer in writers] == [count + 1 for count in before]


def test_a_burst_is_one_batch_for_each_transport(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    writers = [world.connect(n, WEBSOCKET) for n in range(SUBSCRIBERS)]
    before = [len(writer.sent) for writer in writers]
    calls = count_calls(monkeypatch, type(WEBSOCKET), "encode")
    world.hub.dispatch(messages(1, 10))
    assert len(calls) == 1
    assert [len(writer.sent) for writer in writers] == [count + 1 for count in before]


def test_subscribers_of_a_transport_share_the_bytes(world: World) -> None:
    writers = [world.connect(n, WEBSOCKET) for n in range(SUBSCRIBERS)]
    world.hub.dispatch(messages(1, 1))
    assert len({id(writer.sent[-1]) for writer in writers}) == 1


def count_python_calls(call: Callable[[], object]) -> int:
    """Python functions that run while ``call`` does, on this thread."""
    count = 0

    def note(frame: FrameType, event: str, argument: object) -> None:
        nonlocal count
        count += event == "call"

    sys.setprofile(note)
    try:
        call()
    finally:
        sys.setprofile(None)
    return count


def test_a_delivery_is_one_call_to_put_and_one_to_flush(world: World, sockets: Sockets) -> None:
    counts = []
    assert messages(1, 1)[0].json  # from here on the channel's name is kept as JSON
    for number, batch in enumerate((messages(2, 1), messages(3, 1)), 1):
        for _ in range(SUBSCRIBERS):
            world.open(0, WEBSOCKET, sockets.connect)
        world.reactor.turn(0)
        put = count_python_calls(partial(world.hub.dispatch, batch))
        flush = count_python_calls(partial(world.reactor.turn, 0))
        counts.append((put - number * SUBSCRIBERS, flush - number * SUBSCRIBERS))
    assert counts[0] == counts[1]  # twice as many subscribers: one call more for each


def test_a_message_that_waits_for_the_end_of_the_turn_takes_no_memory_for_each_subscriber(
    world: World, sockets: Sockets
) -> None:
    for _ in range(SUBSCRIBERS):
        world.open(0, WEBSOCKET, sockets.connect)
    world.reactor.turn(0)
    one, other = messages(1, 1), messages(2, 1)
    world.hub.dispatch(one)
    world.reactor.turn(0)
    before = sys.getallocatedblocks()
    world.hub.dispatch(other)
    assert sys.getallocatedblocks() - before < SUBSCRIBERS // 2


@pytest.mark.parametrize(
    "target", [{"client_ids": ["c7"]}, {"user_ids": [7]}, {"group_ids": [7]}], ids=["client", "user", "group"]
)
def test_a_message_for_one_takes_the_same_calls_however_many_listen(world: World, target: dict[str, Any]) -> None:
    counts = []
    for number in range(1, 3):
        first = 1 if number == 1 else 1000
        for n in range(first, first + SUBSCRIBERS):
            world.connect(n, WEBSOCKET)
        envelope = encode_envelope(b'"hello"', **target)
        message = decode_stored(encode_stored(Ids(number, number), CHANNEL, envelope))
        counts.append(count_python_calls(partial(world.hub.dispatch, [message])))
    assert counts[1] <= counts[0]


def test_a_message_for_one_encodes_nothing_for_transports_that_do_not_get_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for transport in STREAMS:
        for n in range(SUBSCRIBERS):
            world.connect(n + 1000 * (transport is not WEBSOCKET), transport)
    calls = [count_calls(monkeypatch, type(transport), "encode") for transport in STREAMS]
    envelope = encode_envelope(b'"hello"', client_ids=["c7"])
    world.hub.dispatch([decode_stored(encode_stored(Ids(1, 1), CHANNEL, envelope))])
    assert [len(of_transport) for of_transport in calls] == [transport is WEBSOCKET for transport in STREAMS]


HANDSHAKE = [
    ("Connection", "Upgrade"),
    ("Upgrade", "websocket"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA=="),
]


@pytest.mark.parametrize("transport", ["sse", "poll", "ws"])
def test_what_is_held_keeps_no_request(transport: str) -> None:
    """A crowd may have asked before the first of them is taken in, and each request is some kilobytes."""
    with contextlib.closing(Bus(url="memory://")) as bus, socket.socket() as mine:
        method = "POST" if transport == "poll" else "GET"
        environ = EnvironBuilder(method=method, headers=HANDSHAKE if transport == "ws" else []).get_environ()
        environ["werkzeug.socket"] = mine
        request = Request(environ)
        answered = answer(bus._running_node(), request, f"somebody/{transport}")
        assert isinstance(answered, Answer)
        assert answered.streaming
        kept = weakref.ref(request)
        del request, environ
        gc.collect()
        assert kept() is None


def test_subscribers_are_served_in_the_order_in_which_they_came(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    writers = [world.connect(number, WEBSOCKET) for number in range(SUBSCRIBERS)]
    calls = count_calls(monkeypatch, RecordingWriter, "put")
    world.hub.dispatch(messages(1, 1))
    assert [writer for writer, _ in calls] == writers


def test_the_json_of_a_message_is_made_once_for_all_subscribers(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    backlog = messages(1, 20)
    world.hub.windows.reached[0] = 20
    made = count_calls(monkeypatch, messagebus.message, "_encode_channel")
    writers = [world.connect(n, transport, backlog) for transport in STREAMS for n in range(SUBSCRIBERS)]
    assert len(made) == 20  # for those who catch up
    world.hub.dispatch(messages(21, 1))
    assert len(made) == 21  # and for those who are there
    assert all(message_ids(b"".join(writer.sent)) == list(range(1, 22)) for writer in writers)


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
                asked = calls(client, "zcount")  # one for each backlog that is read
                with Crowd(server.connect, transport, CHANNEL, 200) as crowd:
                    crowd.read_until(lambda received: len(message_ids(received)) == 20)
                    assert calls(client, "zcount") == asked
                with Crowd(server.connect, transport, "/cold", 1):
                    eventually(lambda: calls(client, "zcount") > asked, message="the count tells nothing")
    finally:
        bus.close()


def calls(client: Any, command: str) -> int:
    """How often Redis has carried it out, for whomever."""
    return int(client.info("commandstats").get(f"cmdstat_{command}", {"calls": 0})["calls"])


def scripts_run(client: Any) -> int:
    """By Redis, without those that write a worker's report every few seconds: they alone use HSET."""
    stats = client.info("commandstats")
    found = {name: stats.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("evalsha", "hset")}
    return int(found["evalsha"] - found["hset"])


@pytest.mark.redis
def test_all_cold_channels_of_a_subscription_cost_one_round_trip(
    redis_server: RedisServer, redis_url: str, serve_app: ServeApp
) -> None:
    server = serve_app("serve", args=("--url", redis_url))
    with contextlib.closing(Bus(url=redis_url)) as bus, redis_server.client() as client:
        names = [f"/cold-{number}" for number in range(150)]
        bus.publish_many([(name, name) for name in names])
        with EventSource.connect(server.url, {"/another": 0}) as reader:
            reader.next_batch()  # from now on Redis has the script
        before = scripts_run(client)
        with EventSource.connect(server.url, dict.fromkeys(names[::2], 0) | dict.fromkeys(names[1::2], -2)) as reader:
            assert sorted(reader.data(150)) == sorted(names)
        assert scripts_run(client) == before + 1


@pytest.mark.redis
@pytest.mark.parametrize("transport", ["streaming", "eventsource", "websocket"])
@pytest.mark.parametrize("published", [300, 600], ids=["from 0", "beyond the backlog"])
def test_a_crowd_that_is_further_behind_than_anybody_was_costs_a_few_readings(
    transport: str, published: int, redis_server: RedisServer, redis_url: str, serve_app: ServeApp
) -> None:
    server = serve_app("serve", args=("--url", redis_url))
    with contextlib.closing(Bus(url=redis_url)) as bus, redis_server.client() as client:
        with EventSource.connect(server.url, {"/another": 0}) as reader:
            reader.next_batch()  # a feed that begins amid what is published cannot read what the backlog has dropped
        bus.publish_many([(CHANNEL, number) for number in range(published)], max_backlog_size=400)
        kept = min(published, 400)
        before = scripts_run(client)
        with Crowd(server.connect, transport, CHANNEL, 200) as crowd:
            crowd.read_until(lambda received: len(message_ids(received)) == kept)
        assert scripts_run(client) - before <= 4


@pytest.mark.redis
def test_a_process_that_only_publishes_and_reads_starts_no_thread_and_hears_nothing(
    redis_server: RedisServer, redis_url: str
) -> None:
    bus = Bus(url=redis_url)
    with contextlib.closing(bus), started_threads() as threads:
        bus.publish(CHANNEL, 1)
        bus.publish_many([(CHANNEL, 2), (CHANNEL, 3)])
        assert bus.last_id(CHANNEL) == len(bus.backlog(CHANNEL)) == bus.newest_global_id() == 3
        with redis_server.client() as client:
            assert threads == []
            assert client.pubsub_channels() == []
            bus.subscribe(CHANNEL, lambda message: None)
            eventually(lambda: client.pubsub_channels() != [])  # it would have been seen


@pytest.mark.redis
def test_what_is_published_at_once_is_one_command_and_names_each_channel_once(
    redis_server: RedisServer, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands = count_calls(monkeypatch, Connections, "call")
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
