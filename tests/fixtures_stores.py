"""Fixtures of the stores: a Redis and a PostgreSQL for the whole run, and such that a test may break."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from messagebus import Bus

from .postgres_server import PostgresServer
from .redis_cluster import RedisCluster
from .redis_server import RedisServer


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """A Redis that lives as long as the test run. Do not kill it; see ``mortal_redis``."""
    server = RedisServer()
    try:
        yield server.start()
    finally:
        server.stop()


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """The URL of an empty Redis."""
    with redis_server.client() as client:
        client.flushall()
    return redis_server.url


@pytest.fixture
def mortal_redis() -> Iterator[RedisServer]:
    """A Redis of this test alone, without persistence: killed and started again it is empty."""
    server = RedisServer()
    try:
        yield server.start()
    finally:
        server.stop()


@pytest.fixture(scope="session")
def redis_cluster() -> Iterator[RedisCluster]:
    """A cluster that lives as long as the test run. Kill none of its nodes; see ``mortal_cluster``."""
    with RedisCluster() as cluster:
        yield cluster


@pytest.fixture
def empty_cluster(redis_cluster: RedisCluster) -> RedisCluster:
    """It, without data."""
    redis_cluster.empty()
    return redis_cluster


@pytest.fixture
def cluster_url(empty_cluster: RedisCluster) -> str:
    """The URL of an empty bus of several partitions."""
    return empty_cluster.url(8)


@pytest.fixture
def mortal_cluster() -> Iterator[RedisCluster]:
    """A cluster of this test alone, which soon replaces a node that is down."""
    with RedisCluster(node_timeout=1500) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A PostgreSQL that lives as long as the test run. Do not kill it; see ``mortal_postgres``."""
    server = PostgresServer()
    try:
        yield server.start()
    finally:
        server.stop()


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> str:
    """The URL of an empty database."""
    postgres_server.empty()
    return postgres_server.url


@pytest.fixture
def mortal_postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL of this test alone: killed and started again it has its data."""
    server = PostgresServer()
    try:
        yield server.start()
    finally:
        server.stop()


@pytest.fixture(
    params=[
        "memory",
        pytest.param("redis", marks=pytest.mark.redis),
        pytest.param("postgres", marks=pytest.mark.postgres),
    ]
)
def bus_on_each_store(request: pytest.FixtureRequest) -> Iterator[Bus]:
    """A bus, on each store in turn; the store is empty."""
    url = "memory://" if request.param == "memory" else request.getfixturevalue(f"{request.param}_url")
    with_store = Bus(url=url)
    yield with_store
    with_store.close()
