"""The limits fit each other: what one of them allows, no other one forbids; with the defaults."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest

from messagebus import Bus, Options

from ..clients import Client, EventSource, LongPolling, Polling, Streaming, WebSocket
from ..redis_server import RedisServer
from .conftest import World, run

LONGEST = 255
SECRET = "a secret for tests"


@pytest.fixture(scope="module")
def protected(redis_server: RedisServer) -> Iterator[World]:
    yield from run("serve", redis_server, messagebus_protected_channels="/long-*", messagebus_secret_key=SECRET)


def longest_channels(count: int) -> list[str]:
    """Channels that take a grant each."""
    return [f"/long-{secrets.token_hex(8)}-{number}".ljust(LONGEST, "x") for number in range(count)]


def grants(channels: list[str], client_id: str) -> list[str]:
    bus = Bus(url="memory://", secret_key=SECRET)
    return [bus.grant(channel, client_id=client_id) for channel in channels]


@pytest.mark.parametrize("transport", [Polling, LongPolling, Streaming])
def test_a_poll_follows_as_many_of_the_longest_channels_as_it_may_with_a_grant_for_each(
    protected: World, transport: type[Client]
) -> None:
    channels = longest_channels(Options().max_channels)
    client_id = secrets.token_hex(16)
    with transport.connect(
        protected.url,
        dict.fromkeys(channels, 0),
        client_id=client_id,
        takes_refusals=True,
        grants=grants(channels, client_id),
    ) as client:
        protected.publish(channels[-1], "the last one")
        assert client.data(1) == ["the last one"]
        assert client.refused == {}


def test_a_websocket_opens_without_channels_and_its_first_frame_carries_them_all(protected: World) -> None:
    channels = longest_channels(Options().max_channels)
    client_id = secrets.token_hex(16)
    with WebSocket.connect(protected.url, {}, client_id=client_id, epoch="", takes_refusals=True) as client:
        client.positions.update(dict.fromkeys(channels, 0))
        client.send({"subscribe": client.positions, "grants": grants(channels, client_id), "id": 1})
        assert client.answer() == {"id": 1, "ok": {}}
        protected.publish(channels[-1], "the last one")
        assert client.data(1) == ["the last one"]


def test_an_event_source_follows_what_fits_into_eight_kilobytes_of_url(protected: World) -> None:
    channels = [f"/room/{secrets.token_hex(8)}" for _ in range(Options().max_channels)]
    with EventSource.connect(protected.url, dict.fromkeys(channels, 0), takes_refusals=True) as client:
        protected.publish(channels[-1], "the last one")
        assert client.data(1) == ["the last one"]
        assert client.refused == {}
