"""Clients that the application disconnects or unsubscribes learn it at once, on every transport that is held."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from ..clients import Client, Ended, EventSource, LongPolling, Streaming, WebSocket, request
from ..eventually import eventually
from .conftest import World

JSON = {"Content-Type": "application/json"}


@pytest.fixture(params=[LongPolling, Streaming, EventSource, WebSocket], ids=lambda held: held.transport)
def held(request: pytest.FixtureRequest) -> type[Client]:
    client: type[Client] = request.param
    return client


def hears(world: World, client: Client, **order: Any) -> dict[str, dict[str, Any]]:
    """What a client is refused by an order, which is given until the connection has been there to hear it."""

    def read() -> None:
        while not client.refused:
            client.next_batch()

    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(read)

        def ordered() -> bool:
            with request(world.url, "POST", "/revoke", json.dumps(order), JSON) as response:
                assert response.status == 200, response.read()
            return reading.done()

        eventually(ordered, timeout=20)
        reading.result()
    return client.refused


def test_a_user_that_is_disconnected_is_refused_all_and_the_connection_ends(world: World, held: type[Client]) -> None:
    one, two = world.channel(), world.channel()
    with held.connect(world.url, {one: 0, two: 0}, takes_refusals=True, headers={"X-User": one}) as client:
        refusal = {"code": "disconnected", "message": "logged out", "retry": False}
        assert hears(world, client, user_ids=[one], reason="logged out") == {one: refusal, two: refusal}
        assert client.waits[-1] == 0, "it is no fault"
        if isinstance(client, WebSocket):
            assert client.closed() == 4403
        elif isinstance(client, EventSource):  # the others ask again in any case
            with pytest.raises(Ended):
                client.next_batch()


def test_a_user_that_is_unsubscribed_keeps_the_other_channels(world: World, held: type[Client]) -> None:
    one, two = world.channel(), world.channel()
    with held.connect(world.url, {one: 0, two: 0}, takes_refusals=True, headers={"X-User": one}) as client:
        assert {*hears(world, client, user_ids=[one], channel=one)} == {one}
        del client.positions[one]
        world.publish(one, "not for it")
        world.publish(two, "for it")
        assert client.data(1, resume=True) == ["for it"]
