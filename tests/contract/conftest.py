"""Servers that the stories of the transports are told to, and what a test does to them."""

from __future__ import annotations

import contextlib
import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from messagebus import Bus
from messagebus.stores import Store
from tests.eventually import eventually
from tests.threads import alive, started_threads

from .. import publishing
from ..clients import TRANSPORTS, Client, EventSource, Polling, WebSocket, request
from ..partitioned import PARTITIONS, name_in, partitioned_bus
from ..redis_server import RedisServer
from ..servers import Server
from .stores import PostgresStore, RedisClusterStore, RedisStore, SqliteStore, StoreUnderTest

APP = "tests.apps.contract:app"
_numbers = itertools.count()


class World:
    """A server with the bus, and publishing on it."""

    def __init__(self, server: Server, bus: Bus | None, partitions: int = 1) -> None:
        """``bus``: the same store from this process, where it is shared."""
        self.partitions = partitions
        self.server = server
        self.url = server.url
        self._bus = bus

    def channel(self) -> str:
        """A channel that no other test has."""
        return f"/chat-{next(_numbers)}"

    def publish(self, channel: str, *data: Any, **options: Any) -> list[int]:
        """Publish messages one after the other; their ids."""
        return publishing.publish(self.url, channel, *data, **options)

    def publish_and_hear(self, channel: str, *data: Any) -> None:
        """As :meth:`publish`, until the server has heard the messages from its store: a process may be a moment behind
        what it has published itself."""
        self.publish(channel, *data)
        with Polling.connect(self.url, {channel: 0}) as reader:
            assert reader.data(len(data)) == list(data)

    def publish_from_elsewhere(self, channel: str, *data: Any, **options: Any) -> None:
        """As :meth:`publish`, but by another process than the server's where that is possible."""
        if self._bus is None:
            self.publish(channel, *data, **options)
        else:
            for item in data:
                self._bus.publish(channel, item, **options)

    def reset(self) -> None:
        """The store loses everything."""
        with request(self.url, "POST", "/reset") as response:
            assert response.status == 200, response.read()
        if self.partitions > 1:  # each begins its new life with the first message, and sends its readers back then
            for partition in range(self.partitions):
                self.publish_and_hear(name_in(partition, self.partitions, f"/reset-{next(_numbers)}-"), 0)


def run(kind: str, redis: RedisServer, app: str = APP, traceback: str = "", **env: str) -> Iterator[World]:
    """``serve`` on Redis, or on several as the partitions of one store, ``serve-sqlite`` on a file, everything else on
    the memory of its one process; or on what ``MESSAGEBUS_URL`` names. ``traceback``: the one error that may be in its
    log."""
    with contextlib.ExitStack() as stack:
        bus, partitions = None, PARTITIONS if kind == "partitions" else 1
        if kind in ("serve", "partitions"):
            with redis.client() as client:
                client.flushall()
            env = {"MESSAGEBUS_URL": redis.url, **env}
            bus = (
                Bus(url=redis.url)
                if kind == "serve"
                else partitioned_bus(PARTITIONS, url=redis.url, redis_announce="by_channel")
            )
            stack.enter_context(contextlib.closing(bus))
        elif kind == "serve-postgres":
            kind, bus = "serve", stack.enter_context(contextlib.closing(Bus(url=env["MESSAGEBUS_URL"])))
        elif kind == "serve-sqlite":
            url = f"sqlite:///{stack.enter_context(tempfile.TemporaryDirectory())}/bus.db"
            kind, env = "serve", {"MESSAGEBUS_URL": url, **env}
            bus = stack.enter_context(contextlib.closing(Bus(url=url)))
        if kind == "partitions":
            kind, app, env = "serve", "tests.apps.partitioned:app", {**env, "MESSAGEBUS_REDIS_ANNOUNCE": "by_channel"}
        settings = {name.upper(): value for name, value in env.items()}
        server = stack.enter_context(contextlib.closing(Server(kind, app, env=settings)))
        server.start()
        yield World(server, bus, partitions)
        tracebacks = server.output().count("Traceback")
        assert tracebacks == (server.output().count(traceback) if traceback else 0), server.output()[-5000:]


WITH_OTHER_STORES = {
    "partitions": (EventSource, WebSocket),
    "serve-postgres": (WebSocket,),
    "serve-sqlite": (WebSocket,),
}
"""Servers that differ from ``serve`` by their store alone, and with which transports: event ids say more where a store
has partitions. The others add nothing to what a store has to do."""
IN_MODULES = {"serve-postgres": ("test_transport",)}
"""Where not even all stories are told with them: what is left has thousands of messages, each of which PostgreSQL
confirms."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what costs minutes and tries nothing new."""
    left_out = []
    for item in items:
        params = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
        world = str(params.get("world"))
        transports, modules = WITH_OTHER_STORES.get(world), IN_MODULES.get(world, (item.path.stem,))
        is_told = transports is None or params.get("transport", WebSocket) in transports
        if not (is_told and item.path.stem in modules):
            left_out.append(item)
    config.hook.pytest_deselected(items=left_out)
    dropped = set(left_out)
    items[:] = [item for item in items if item not in dropped]


@pytest.fixture(
    scope="module",
    params=[
        "flask",
        "serve",
        "partitions",
        "serve-sqlite",
        pytest.param("serve-postgres", marks=pytest.mark.postgres),
    ],
)
def world(request: pytest.FixtureRequest, redis_server: RedisServer) -> Iterator[World]:
    """Flask's development server with the store in memory, then ``messagebus serve`` with Redis, with a store of
    partitions, with a file, and with PostgreSQL; default settings."""
    env = {}
    if request.param == "serve-postgres":
        postgres = request.getfixturevalue("postgres_server")
        postgres.empty()
        env["MESSAGEBUS_URL"] = postgres.url
    yield from run(request.param, redis_server, **env)


@pytest.fixture(scope="module")
def pages(redis_server: RedisServer) -> Iterator[World]:
    """A server whose pages may publish."""
    yield from run("gunicorn-gthread", redis_server, messagebus_client_publish="/*")


@pytest.fixture(params=TRANSPORTS, ids=lambda transport: transport.transport)
def transport(request: pytest.FixtureRequest) -> type[Client]:
    """Each transport's client in turn."""
    client: type[Client] = request.param
    return client


@pytest.fixture(
    params=[
        "memory",
        "sqlite",
        pytest.param("redis", marks=pytest.mark.redis),
        pytest.param("redis-by-channel", marks=pytest.mark.redis),
        pytest.param("redis-cluster", marks=pytest.mark.redis),
        pytest.param("postgres", marks=pytest.mark.postgres),
    ]
)
def harness(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StoreUnderTest]:
    if request.param == "memory":
        harness = StoreUnderTest()
    elif request.param == "sqlite":
        harness = SqliteStore(tmp_path / "bus.db")
    elif request.param == "redis-cluster":
        harness = RedisClusterStore(request.getfixturevalue("empty_cluster"))
    elif request.param.startswith("redis"):
        request.getfixturevalue("redis_url")
        harness = RedisStore(request.getfixturevalue("redis_server"))
        harness.announce = "by_channel" if request.param == "redis-by-channel" else "together"
    else:
        request.getfixturevalue("postgres_url")
        harness = PostgresStore(request.getfixturevalue("postgres_server"))
    with started_threads() as threads:
        yield harness
        for store in harness.stores:
            store.close()
    eventually(lambda: not alive(threads), message="a closed store left threads behind")


@pytest.fixture
def store(harness: StoreUnderTest) -> Store:
    return harness.open()
