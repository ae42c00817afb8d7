"""A server that ends tells its clients to move: they open the next connection before the one that they have ends."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from messagebus import AsyncClient, Bus, Client
from messagebus.client import ClientMessage
from messagebus.client.types import ConnectionState, StateInfo, Transport
from tests.event_loops import run
from tests.eventually import eventually
from tests.fixtures_servers import ServeApp
from tests.servers import ROOT, Server

from .conftest import APP, QUICK, follows

STREAMS: tuple[Transport, ...] = ("websocket", "eventsource", "streaming")
pytestmark = pytest.mark.redis


@pytest.fixture
def bus(redis_url: str) -> Iterator[Bus]:
    with contextlib.closing(Bus(url=redis_url)) as bus:
        yield bus


class Follower:
    """A client, what it received, and the states that it was in."""

    def __init__(self, url: str, transport: Transport, channel: str) -> None:
        self.got: list[Any] = []
        self.states: list[ConnectionState] = []
        self.client = Client(url, transports=(transport,), on_state_change=self._note, **QUICK)
        self.client.subscribe(channel, lambda message: self.got.append(message.data))

    def _note(self, state: ConnectionState, info: StateInfo) -> None:
        self.states.append(state)


def test_clients_move_to_the_new_workers_of_a_reload_and_are_never_without_a_connection(
    serve_app: ServeApp, redis_url: str, bus: Bus, channel: str
) -> None:
    server = serve_app("serve", APP, args=("--drain", "2"), env={"MESSAGEBUS_URL": redis_url})
    old = server.worker_pids()
    with contextlib.ExitStack() as stack:
        followers = [Follower(server.url, transport, channel) for transport in STREAMS]
        for follower in followers:
            stack.enter_context(follower.client)
        for follower in followers:
            eventually(follows(follower.client, channel))
        os.kill(server.pid, signal.SIGHUP)
        published = 0
        while set(old) & set(server.worker_pids()):
            bus.publish(channel, published)
            published += 1
        bus.publish(channel, published)
        for follower in followers:
            eventually(lambda follower=follower: len(follower.got) > published)  # type: ignore[misc]
            assert follower.got == list(range(published + 1))
            assert follower.states == ["connecting", "connected"]
            assert follower.client.stats.reconnects == 0
            assert follower.client.stats.requests == 2
            assert follower.client.stats.last_error is None


@pytest.mark.parametrize("kind", ["gunicorn-gthread", "gunicorn-gevent", "gunicorn-geventwebsocket"])
def test_clients_move_to_the_new_workers_of_gunicorn_with_our_hook(
    kind: str, serve_app: ServeApp, redis_url: str, bus: Bus, channel: str
) -> None:
    args = ("-c", str(ROOT / "deploy/gunicorn/gunicorn.conf.py"))
    server = serve_app(kind, APP, args=args, env={"MESSAGEBUS_URL": redis_url})
    old = server.worker_pids()
    with contextlib.ExitStack() as stack:
        followers = [Follower(server.url, transport, channel) for transport in STREAMS]
        for follower in followers:
            stack.enter_context(follower.client)
        for follower in followers:
            eventually(follows(follower.client, channel))
        os.kill(server.pid, signal.SIGHUP)
        published = 0
        while set(old) & set(server.worker_pids()):
            bus.publish(channel, published)
            published += 1
        for follower in followers:
            eventually(lambda follower=follower: len(follower.got) == published)  # type: ignore[misc]
            assert follower.got == list(range(published))
            assert follower.states == ["connecting", "connected"]
    assert "Traceback" not in server.output()


def test_a_client_in_an_event_loop_moves_as_well(
    serve_app: ServeApp, redis_url: str, bus: Bus, channel: str, got: list[ClientMessage]
) -> None:
    server = serve_app("serve", APP, args=("--drain", "1"), env={"MESSAGEBUS_URL": redis_url})
    old = server.worker_pids()
    states: list[ConnectionState] = []

    async def follow() -> None:
        async with AsyncClient(server.url, on_state_change=lambda state, info: states.append(state)) as client:
            client.subscribe(channel, got.append, 0)
            while client.stats.state != "connected":
                await asyncio.sleep(0.01)
            os.kill(server.pid, signal.SIGHUP)
            while client.stats.requests < 2 or set(old) & set(server.worker_pids()):
                await asyncio.sleep(0.01)
            bus.publish(channel, "after")
            while not got:
                await asyncio.sleep(0.01)

    run(follow())
    assert states == ["connecting", "connected", "stopped"]


def test_a_client_with_nowhere_to_go_stays_until_the_server_ends_and_comes_back_to_the_next(
    serve_app: ServeApp, redis_url: str, bus: Bus, channel: str, got: list[ClientMessage]
) -> None:
    server: Server = serve_app("serve", APP, args=("--drain", "2"), env={"MESSAGEBUS_URL": redis_url})
    with Client(server.url, **QUICK) as client:
        client.subscribe(channel, got.append)
        eventually(follows(client, channel))
        os.kill(server.pid, signal.SIGTERM)
        eventually(lambda: client.stats.requests > 1)
        bus.publish(channel, "while it looks for another")
        eventually(lambda: len(got) == 1)
        assert client.stats.state == "connected"
        eventually(lambda: client.stats.state == "reconnecting")
        assert server.stop() == 0
        bus.publish(channel, "while there is none")
        server.start()
        eventually(lambda: len(got) == 2)
    assert [one.message_id for one in got] == [1, 2]


def test_a_publish_that_waits_for_its_answer_is_not_cut_off(
    serve_app: ServeApp, redis_url: str, channel: str, got: list[ClientMessage]
) -> None:
    env = {"MESSAGEBUS_URL": redis_url, "MESSAGEBUS_CLIENT_PUBLISH": "/client-*", "MESSAGEBUS_MAX_COMMANDS": "100000"}
    server = serve_app("serve", APP, args=("--drain", "1"), env=env)
    old = server.worker_pids()
    with Client(server.url, transports=("websocket",), **QUICK) as client:
        client.subscribe(channel, got.append, 0)
        eventually(lambda: client.stats.state == "connected")
        os.kill(server.pid, signal.SIGHUP)
        ids: list[int | None] = []
        while set(old) & set(server.worker_pids()):
            ids.append(client.publish(channel, len(ids)))
        eventually(lambda: len(got) == len(ids))
    assert ids == list(range(1, len(ids) + 1))
