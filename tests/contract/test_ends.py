"""A response that ends before its time says so, and when to come back; on every transport."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator

import pytest

from ..clients import Client, Ended, EventSource, LongPolling, Polling, Streaming, WebSocket, request
from ..eventually import eventually
from ..redis_server import RedisServer
from ..servers import Server
from .conftest import World, run

APP = "tests.apps.judge:app"
HELD = [LongPolling, Streaming, EventSource, WebSocket]


@pytest.fixture(scope="module", params=["flask", "serve"])
def turning(request: pytest.FixtureRequest, redis_server: RedisServer) -> Iterator[World]:
    yield from run(request.param, redis_server, APP)


def turn_away(url: str) -> None:
    """Have the server send everybody away, as a worker does that is recycled."""
    with request(url, "POST", "/turn-away") as response:
        assert response.status == 200


def subscribers(url: str) -> int:
    with request(url, "GET", "/subscribers") as response:
        return int(response.read())


def hold(client: Client) -> None:
    """Be held, with nothing left to be told."""
    if isinstance(client, LongPolling):
        client.status()
        client.reconnect()
        eventually(lambda: subscribers(client.url) == 1)
    else:
        client.status()


@pytest.mark.parametrize("transport", HELD, ids=lambda transport: transport.transport)
def test_who_is_sent_away_is_told_to_come_back_at_once(turning: World, transport: type[Client]) -> None:
    channel = turning.channel()
    with transport.connect(turning.url, {channel: -1}) as client:
        hold(client)
        seen = len(client.batches)
        turn_away(turning.url)
        if transport in (LongPolling, Streaming):
            client.next_batch()
        else:
            client.next_batch()
            with pytest.raises(Ended) as ended:
                client.next_batch()
            assert ended.value.code == (1001 if transport is WebSocket else None)
        assert len(client.waits) == 1
        assert 0 <= client.waits[0] < 1000
        assert len(client.batches) == seen + 1, "it takes the place of the empty batch"
        client.reconnect()
        turning.publish(channel, "afterwards")
        assert client.data(1) == ["afterwards"]


@pytest.mark.parametrize("transport", [LongPolling, Streaming, EventSource], ids=lambda kind: kind.transport)
def test_so_is_who_is_held_by_a_server_that_keeps_its_sockets(transport: type[Client]) -> None:
    with contextlib.closing(Server("waitress", APP)) as server:
        server.start()
        with transport.connect(server.url, {"/chat": -1}) as client:
            hold(client)
            turn_away(server.url)
            client.next_batch()
            assert len(client.waits) == 1
            assert "Traceback" not in server.output(), server.output()[-5000:]


@pytest.mark.parametrize("transport", HELD, ids=lambda transport: transport.transport)
def test_a_server_that_shuts_down_tells_everybody(redis_server: RedisServer, transport: type[Client]) -> None:
    with contextlib.closing(Server("serve", APP, env={"MESSAGEBUS_URL": redis_server.url})) as server:
        server.start()
        with transport.connect(server.url, {"/chat": -1}) as client:
            hold(client)
            server.stop()
            with contextlib.suppress(Ended):
                client.next_batch()
            assert len(client.waits) == 1


def test_a_poll_that_is_replaced_by_its_own_client_ends_with_an_empty_batch(turning: World) -> None:
    channel = turning.channel()
    with LongPolling.connect(turning.url, {channel: -1}, client_id="the-same") as first:
        hold(first)
        with Polling.connect(turning.url, {channel: 0}, client_id="the-same") as other:
            other._sequence = 10
            other.next_batch()
            assert first.next_batch() == []
        assert first.waits == []


def test_a_poll_whose_time_is_over_ends_with_an_empty_batch(redis_server: RedisServer) -> None:
    for world in run("serve", redis_server, messagebus_long_polling_interval="0.3"):
        for transport in (LongPolling, Streaming):
            with transport.connect(world.url, {world.channel(): 0}) as client:
                while len(client.batches) < 2:
                    client.next_batch()
                assert client.batches[-1] == []
                assert client.waits == []


def test_many_are_told_to_come_back_at_different_times(turning: World) -> None:
    with contextlib.ExitStack() as stack:
        clients = [
            stack.enter_context(WebSocket.connect(turning.url, {turning.channel(): -1}, client_id=f"c{number}"))
            for number in range(60)
        ]
        for client in clients:
            hold(client)
        turn_away(turning.url)
        for client in clients:
            client.closed()
        waits = [wait for client in clients for wait in client.waits]
        assert len(waits) == 60
        assert len(set(waits)) > 10, json.dumps(waits)
