"""``publish(…, durable=N)``: it returns when N replicas have the message, or says that they have not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from messagebus import Bus
from messagebus.errors import BackendUnavailable, InvalidOption, NotDurable, PublishRefused
from messagebus.stores.advice import redis_rights
from tests.redis_server import RedisServer
from tests.sentinels import SentinelGroup

pytestmark = pytest.mark.redis


@pytest.fixture
def group() -> Iterator[SentinelGroup]:
    with SentinelGroup() as group:
        yield group


@pytest.fixture
def bus(group: SentinelGroup) -> Iterator[Bus]:
    with closing(Bus(url=group.servers[0].url, store_timeout=4.0)) as bus:
        yield bus


def test_what_is_durable_is_in_the_replica_when_publish_returns(bus: Bus, group: SentinelGroup) -> None:
    replica = group.servers[1]
    with replica.client() as client:
        for number in range(1, 20):
            assert bus.publish("/a", number, durable=1) == number
            assert client.get("__mb_backlog_id_n_/a") == b"%d" % number
        assert bus.publish_many([("/a", 1)] * 1500, durable=1)[-1] == 1519
        assert client.get("__mb_backlog_id_n_/a") == b"1519"


def test_a_durable_message_survives_the_primary_that_is_killed_at_once(group: SentinelGroup) -> None:
    with closing(Bus(url=group.url)) as bus:
        bus.publish("/a", 1, durable=1)
        before = group.servers[0]
        before.kill()
        group.wait_for_another(before)
        assert bus.publish("/a", 2, queue_in_memory=False) == 2
        assert [message.data for message in bus.backlog("/a")] == [1, 2]


def test_too_few_replicas_are_told_with_the_ids_of_what_is_stored(bus: Bus, group: SentinelGroup) -> None:
    bus.publish("/a", 0)
    group.cut_off(group.servers[1])
    with pytest.raises(NotDurable, match="0 of 1 replicas") as raised:
        bus.publish("/a", 1, durable=1, idempotency_key="k")
    assert (raised.value.ids, raised.value.wanted, raised.value.reached) == (((2, 2),), 1, 0)
    # The same once more stores nothing, and waits again. Nothing else was written on this connection.
    with closing(Bus(url=group.servers[0].url, store_timeout=1.0)) as other, pytest.raises(NotDurable):
        other.publish("/a", 1, durable=1, idempotency_key="k")
    group.go_on(group.servers[1])
    with closing(Bus(url=group.servers[0].url, store_timeout=40.0)) as patient:
        assert patient.publish("/a", 1, durable=1, idempotency_key="k") == 2
    assert [message.data for message in bus.backlog("/a")] == [0, 1]


def test_a_durable_message_does_not_wait_in_memory(bus: Bus, group: SentinelGroup) -> None:
    group.servers[0].kill()
    with pytest.raises(BackendUnavailable):
        bus.publish("/a", 1, durable=1)
    assert bus.publish("/a", 2) is None
    with pytest.raises(BackendUnavailable, match="earlier messages still wait"):
        bus.publish("/a", 3, durable=1)


def test_a_user_who_may_not_wait_is_told_before_anything_is_stored(redis_server: RedisServer, redis_url: str) -> None:
    with redis_server.client() as client:
        rules = redis_rights("_message_bus_0").split()
        client.execute_command("ACL", "SETUSER", "waiter", "reset", "on", ">pw", *rules)
        try:
            with closing(Bus(url=redis_url.replace("://", "://waiter:pw@"))) as bus:
                with pytest.raises(PublishRefused, match=r"\+wait") as raised:
                    bus.publish("/a", 1, durable=1)
                assert raised.value.reason == "forbidden"
                assert client.exists("__mb_global_id_n") == 0
                client.execute_command("ACL", "SETUSER", "waiter", "+wait")
                with pytest.raises(NotDurable):
                    bus.publish("/a", 1, durable=1)
        finally:
            client.execute_command("ACL", "DELUSER", "waiter")


@pytest.mark.parametrize("url", ["memory://", "sqlite:////tmp/never-made.db", "postgresql://h/db"])
def test_other_stores_have_no_replicas_to_wait_for(url: str) -> None:
    with closing(Bus(url=url)) as bus, pytest.raises(InvalidOption, match="only a store in Redis"):
        bus.publish("/a", 1, durable=1)


@pytest.mark.parametrize("given", [{"durable": -1}, {"durable": True}, {"durable": "1"}, {"durable": 1001}])
def test_a_number_of_replicas_that_is_none_is_refused(given: dict[str, object]) -> None:
    with closing(Bus(url="redis://127.0.0.1:1/0")) as bus, pytest.raises(InvalidOption, match="0 to 1000"):
        bus.publish("/a", 1, **given)  # type: ignore[arg-type]


@pytest.mark.parametrize("given", [{"queue_in_memory": True}, {"transient": True}])
def test_what_cannot_be_durable_is_refused(given: dict[str, object]) -> None:
    with closing(Bus(url="redis://127.0.0.1:1/0")) as bus, pytest.raises(InvalidOption, match="replica"):
        bus.publish("/a", 1, durable=1, **given)  # type: ignore[arg-type]
