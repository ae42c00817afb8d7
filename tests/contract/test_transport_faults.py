"""Connections that break, readers that stop, and silence: nothing is lost over any transport."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from functools import partial

import pytest

from ..clients import Client, Ended, EventSource, LongPolling, Polling, Streaming, WebSocket
from ..eventually import eventually
from ..redis_server import RedisServer
from .conftest import World, run

MESSAGES = 10_000
CHUNK = 200


@pytest.fixture(scope="module", params=["flask", "serve"])
def limited(request: pytest.FixtureRequest, redis_server: RedisServer) -> Iterator[World]:
    """Servers that let little wait for a slow reader, hold polls briefly and are never silent for long."""
    yield from run(
        request.param,
        redis_server,
        messagebus_max_outbox="50000",
        messagebus_long_polling_interval="0.3",
        messagebus_heartbeat_interval="0.2",
    )


def test_ten_thousand_messages_arrive_once_and_in_order_while_the_client_is_cut_off_at_random(
    world: World, transport: type[Client]
) -> None:
    channel = world.channel()
    dice = random.Random(f"{world.server.kind} {transport.transport}")
    client = transport(world.url, {channel: 0})
    failures: list[BaseException] = []

    def is_close(start: int) -> bool:
        return len(client.received) >= start - 3 * CHUNK

    def publish() -> None:
        try:
            for start in range(0, MESSAGES, CHUNK):
                # Not too far ahead of the reader, so that there is something live to be cut off from.
                eventually(partial(is_close, start), interval=0.001)
                world.publish_from_elsewhere(channel, *range(start, start + CHUNK), max_backlog_size=2 * MESSAGES)
        except BaseException as failure:
            failures.append(failure)

    publisher = threading.Thread(target=publish)
    publisher.start()
    cuts = 0
    with client:
        while len(client.received) < MESSAGES:
            client.reconnect()
            cuts += 1
            for _ in range(dice.randrange(6)):
                if len(client.received) < MESSAGES:
                    client.next_batch()
    publisher.join()
    assert not failures, failures
    assert [message["message_id"] for message in client.received] == list(range(1, MESSAGES + 1))
    assert [message["data"] for message in client.received] == list(range(MESSAGES))
    assert client.gaps == []
    assert cuts > 5


def test_a_reader_that_stops_is_cut_off_at_the_bound_and_loses_nothing(limited: World, transport: type[Client]) -> None:
    channel = limited.channel()
    text = "x" * 100_000
    with transport.connect(limited.url, {channel: -1}, receive_buffer=4096) as client:
        client.status()
        before = client.connections
        for start in range(0, 150, 10):
            limited.publish(channel, *[[number, text] for number in range(start, start + 10)])
        received = client.messages(150, resume=True)
        assert [message["data"][0] for message in received] == list(range(150))
        assert client.gaps == []
        if transport in (EventSource, WebSocket):
            # The others end their responses all the time.
            assert client.connections > before


def test_a_reader_that_stops_is_told_so_over_websocket(limited: World) -> None:
    channel = limited.channel()
    with WebSocket.connect(limited.url, {channel: 0}, receive_buffer=4096) as client:
        for _ in range(15):
            limited.publish(channel, *["x" * 100_000] * 10)
        with pytest.raises(Ended) as ended:
            client.messages(150)
        assert ended.value.code == 1013


def test_a_message_over_the_bound_reaches_a_reader_that_keeps_up(limited: World, transport: type[Client]) -> None:
    channel = limited.channel()
    with transport.connect(limited.url, {channel: -1}) as client:
        client.status()
        before = client.connections
        limited.publish(channel, "x" * 1_000_000)
        assert len(client.data(1)[0]) == 1_000_000
        assert client.connections == before or transport in (Polling, LongPolling, Streaming)


def test_a_client_gets_a_backlog_over_the_bound_if_it_asks_for_it(limited: World, transport: type[Client]) -> None:
    channel = limited.channel()
    limited.publish(channel, *["x" * 10_000] * 100)
    with transport.connect(limited.url, {channel: 0}) as client:
        client.messages(100)
        assert len({len(message["data"]) for message in client.received}) == 1


def test_no_transport_stays_silent_for_longer_than_its_interval(limited: World, transport: type[Client]) -> None:
    channel = limited.channel()
    with transport.connect(limited.url, {channel: 0}) as client:
        for _ in range(4):
            client.next_batch()
        # All but the epoch, which the first may tell.
        assert client.batches[1:] == [[], [], []]
        limited.publish(channel, "still here")
        assert client.data(1) == ["still here"]
