"""Fixtures of the stores: a Redis for the whole run, and one that a test may break."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

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
