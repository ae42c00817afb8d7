"""What a connected client may have is asked again, on every transport that is held."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from messagebus import Bus

from ..clients import Client, EventSource, LongPolling, Streaming, WebSocket, request
from ..eventually import eventually
from ..redis_server import RedisServer
from .conftest import World, run


@pytest.fixture(scope="module", params=["flask", "serve"])
def rechecking(request: pytest.FixtureRequest, redis_server: RedisServer) -> Iterator[World]:
    yield from run(
        request.param,
        redis_server,
        "tests.apps.rechecked:app",
        traceback="LookupError: no answer",
        messagebus_recheck_interval="0.4",
        messagebus_protected_channels="/private-*",
    )


@pytest.fixture(params=[LongPolling, Streaming, EventSource, WebSocket], ids=lambda held: held.transport)
def held(request: pytest.FixtureRequest) -> type[Client]:
    client: type[Client] = request.param
    return client


def grant(channel: str, ttl: float) -> str:
    return Bus(url="memory://", secret_key="a secret for tests").grant(channel, ttl=ttl)


def post(world: World, path: str) -> None:
    with request(world.url, "POST", path) as response:
        assert response.status == 200


def read_until_refused(client: Client) -> dict[str, object]:
    while not client.refused:
        client.next_batch()
    return dict(client.refused)


def test_a_permission_that_is_gone_ends_its_channel_and_no_other(rechecking: World, held: type[Client]) -> None:
    one, two = rechecking.channel(), rechecking.channel()
    with held.connect(rechecking.url, {one: 0, two: 0}, takes_refusals=True) as client:
        rechecking.publish(two, "open")
        assert client.data(1, resume=True) == ["open"]
        post(rechecking, f"/forbid{one}")
        told = read_until_refused(client)
        message = f"{one}: this client may not subscribe to it"
        assert told == {one: {"code": "forbidden", "message": message, "retry": False}}
        del client.positions[one]
        rechecking.publish(one, "not for it")
        rechecking.publish(two, "for it")
        assert client.data(1, resume=True) == ["for it"]


def test_a_grant_that_expires_ends_its_channel_and_a_new_one_brings_it_back(
    rechecking: World, held: type[Client]
) -> None:
    public, name = rechecking.channel(), rechecking.channel().replace("/chat", "/private")
    token = grant(name, ttl=1.5)
    with held.connect(rechecking.url, {public: 0, name: 0}, takes_refusals=True, grants=[token]) as client:
        rechecking.publish(name, "granted")
        assert client.data(1, resume=True) == ["granted"]
        told = read_until_refused(client)
        assert {*told} == {name}
        client.refused.clear()
        rechecking.publish(name, "missed")
        client.grants = [grant(name, ttl=60)]
        if isinstance(client, WebSocket):
            command = {"subscribe": {name: client.positions[name]}, "grants": client.grants}
            assert client.ask(command) == {"ok": {}}
        else:
            client.reconnect()
        rechecking.publish(public, "for it")
        assert sorted(client.data(2, resume=True)) == ["for it", "missed"]


def test_where_a_hook_gives_no_answer_the_client_keeps_what_it_has(rechecking: World) -> None:
    one, two = rechecking.channel(), rechecking.channel()
    with WebSocket.connect(rechecking.url, {one: 0, two: 0}, takes_refusals=True) as client:
        client.next_batch()
        post(rechecking, f"/break{one}")
        post(rechecking, f"/forbid{two}")
        assert {*read_until_refused(client)} == {two}
        rechecking.publish(one, "still")
        assert client.data(1) == ["still"]


def test_a_user_whose_session_is_over_comes_back_as_nobody(rechecking: World) -> None:
    channel = rechecking.channel()
    name = channel[1:]
    with WebSocket.connect(rechecking.url, {channel: 0}, headers={"X-User": name}) as client:
        rechecking.publish(channel, "for the user", user_ids=[name])
        assert client.data(1) == ["for the user"]
        post(rechecking, f"/end/{name}")
        assert client.closed() == 4000
        client.reconnect()
        rechecking.publish(channel, "for the user", user_ids=[name])
        rechecking.publish(channel, "for all")
        assert client.data(1) == ["for all"]


def test_who_has_gone_is_asked_about_no_more(rechecking: World) -> None:
    with EventSource.connect(rechecking.url, {rechecking.channel(): 0}) as client:
        client.next_batch()
    eventually(lambda: rechecking.server.get("/subscribers")[1] == b"0")
