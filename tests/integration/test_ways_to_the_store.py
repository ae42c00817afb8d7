"""What lies between a process and its store: boxes that forget connections, names that lead to another server."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis

from messagebus import Bus
from messagebus.stores.redis_connection import explain
from tests.eventually import eventually
from tests.postgres_server import PostgresServer
from tests.proxies import ForgetfulProxy
from tests.redis_server import RedisServer

TIMEOUT = 3.0
LONG_TIMEOUT = 6.0


@pytest.fixture(
    params=[pytest.param("redis", marks=pytest.mark.redis), pytest.param("postgres", marks=pytest.mark.postgres)]
)
def way(request: pytest.FixtureRequest) -> Iterator[Callable[[float], tuple[Bus, ForgetfulProxy]]]:
    """``way(store_timeout)``: a bus that reaches its store through a proxy."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    server: RedisServer | PostgresServer = request.getfixturevalue(f"{request.param}_server")
    with contextlib.ExitStack() as stack:
        proxy = stack.enter_context(ForgetfulProxy(server.port))

        def open_bus(store_timeout: float) -> tuple[Bus, ForgetfulProxy]:
            bus = Bus(url=url.replace(str(server.port), str(proxy.port)), store_timeout=store_timeout)
            stack.callback(bus.close)
            return bus, proxy

        yield open_bus


def at_once(count: int, publish: Callable[[int], object]) -> None:
    with ThreadPoolExecutor(count) as executor:
        list(executor.map(publish, range(count)))


def test_connections_that_a_firewall_has_forgotten_are_not_waited_for(
    way: Callable[[float], tuple[Bus, ForgetfulProxy]], monkeypatch: pytest.MonkeyPatch
) -> None:
    bus, proxy = way(LONG_TIMEOUT)
    for store in ("redis", "postgres"):
        monkeypatch.setattr(f"messagebus.stores.{store}_connection.MAX_IDLE", 0.2)
        monkeypatch.setattr(f"messagebus.stores.{store}_feed.QUIET", 0.5)
    heard: list[object] = []
    bus.subscribe("/a", lambda message: heard.append(message.data))
    bus.start()
    at_once(16, lambda number: bus.publish("/a", number))
    eventually(lambda: len(heard) == 16)
    proxy.forget()
    quiet = time.monotonic() + 0.3
    eventually(lambda: time.monotonic() > quiet)
    began = time.monotonic()
    at_once(16, lambda number: bus.publish("/a", 100 + number, queue_in_memory=False))
    for number in range(10):
        bus.publish("/a", 200 + number, queue_in_memory=False)
    assert bus.last_id("/a") == 42
    assert len(bus.backlog("/a")) == 42
    assert time.monotonic() - began < LONG_TIMEOUT
    eventually(lambda: len(heard) == 42, timeout=5 * LONG_TIMEOUT)
    assert sorted(map(str, heard)) == sorted(set(map(str, heard)))


def test_a_dead_connection_costs_one_timeout_and_closes_the_idle_ones(
    way: Callable[[float], tuple[Bus, ForgetfulProxy]],
) -> None:
    bus, proxy = way(TIMEOUT)
    at_once(16, lambda number: bus.publish("/a", number))
    proxy.forget()
    began = time.monotonic()
    for number in range(10):
        bus.publish("/a", number)
    eventually(lambda: bus.last_id("/a") == 26)
    assert TIMEOUT * 0.5 < time.monotonic() - began < TIMEOUT * 8, "each of them would have waited"


@pytest.mark.redis
def test_a_name_that_leads_to_another_primary_is_followed() -> None:
    old, new = RedisServer(), RedisServer()
    with contextlib.ExitStack() as stack:
        for server in (old, new):
            stack.callback(server.stop)
            server.start()
        proxy = stack.enter_context(ForgetfulProxy(old.port))
        bus = stack.enter_context(
            contextlib.closing(Bus(url=old.url.replace(str(old.port), str(proxy.port)), store_timeout=TIMEOUT))
        )
        primary, replica = stack.enter_context(old.client()), stack.enter_context(new.client())
        replica.replicaof("127.0.0.1", str(old.port))
        eventually(lambda: replica.info("replication")["master_link_status"] == "up")
        heard: list[object] = []
        bus.subscribe("/a", lambda message: heard.append(message.data))
        bus.start()
        at_once(8, lambda number: bus.publish("/a", number))
        eventually(lambda: len(heard) == 8)
        eventually(lambda: replica.get("__mb_global_id_n") == b"8")
        # The old primary is told first, as by Sentinel after the loss of a network: its clients stay connected.
        primary.replicaof("127.0.0.1", str(new.port))
        assert bus.publish("/a", 8) is None
        replica.replicaof("NO", "ONE")
        proxy.upstream = new.port
        eventually(lambda: bus.publish("/a", 9) is not None)
        eventually(lambda: {str(number) for number in range(10)} <= set(map(str, heard)))
        assert replica.zcard("__mb_backlog_n_/a") >= 10


def test_a_replica_is_known_by_the_words_of_every_version() -> None:
    refusal = "You can't write against a read only replica."
    for error in (
        redis.ReadOnlyError(refusal),  # version 7, whose word the library takes away
        redis.ResponseError(
            f"Error running script (call to f_0): @user_script:1: @user_script: 1: -READONLY {refusal}"
        ),  # version 6
    ):
        assert getattr(explain(error, "here"), "reason", None) == "read-only"
