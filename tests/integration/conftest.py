"""Stores on the network, opened as a test wants them and closed behind it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from messagebus.stores.postgres import PostgresBackend
from messagebus.stores.redis import RedisBackend
from messagebus.options import Options

OpenRedis = Callable[..., RedisBackend]
OpenPostgres = Callable[..., PostgresBackend]


@pytest.fixture
def open_redis() -> Iterator[OpenRedis]:
    opened: list[RedisBackend] = []

    def make(url: str, **options: object) -> RedisBackend:
        backend = RedisBackend(Options(url=url, store_timeout=1.0, **options))  # type: ignore[arg-type]
        opened.append(backend)
        return backend

    yield make
    for backend in opened:
        backend.close()


@pytest.fixture
def open_postgres() -> Iterator[OpenPostgres]:
    opened: list[PostgresBackend] = []

    def make(url: str, **options: object) -> PostgresBackend:
        backend = PostgresBackend(Options(url=url, store_timeout=2.0, **options))  # type: ignore[arg-type]
        opened.append(backend)
        return backend

    yield make
    for backend in opened:
        backend.close()
