"""Stores on the network, opened as a test wants them and closed behind it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from messagebus.options import Options
from messagebus.stores.postgres import PostgresStore
from messagebus.stores.redis import RedisStore

OpenRedis = Callable[..., RedisStore]
OpenPostgres = Callable[..., PostgresStore]


@pytest.fixture
def open_redis() -> Iterator[OpenRedis]:
    opened: list[RedisStore] = []

    def make(url: str, **options: object) -> RedisStore:
        store = RedisStore(Options(url=url, **options))  # type: ignore[arg-type]
        opened.append(store)
        return store

    yield make
    for store in opened:
        store.close()


@pytest.fixture
def open_postgres() -> Iterator[OpenPostgres]:
    opened: list[PostgresStore] = []

    def make(url: str, **options: object) -> PostgresStore:
        store = PostgresStore(Options(url=url, **options))  # type: ignore[arg-type]
        opened.append(store)
        return store

    yield make
    for store in opened:
        store.close()
