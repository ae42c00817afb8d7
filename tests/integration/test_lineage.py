"""A Redis with another replication history: who has seen what is gone is told, and nobody else notices anything."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from messagebus import Bus
from messagebus.stores import StoreState
from messagebus.stores.advice import redis_rights
from tests.client_base import Client
from tests.clients import TRANSPORTS
from tests.eventually import eventually
from tests.fixtures_servers import ServeApp
from tests.redis_server import RedisServer
from tests.sentinels import SentinelGroup
from tests.store_helpers import listen, publish

from .conftest import OpenRedis
from .test_went_back import CHANNEL, Crowd

pytestmark = pytest.mark.redis


@pytest.fixture
def stack() -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.fixture
def group() -> Iterator[SentinelGroup]:
    with SentinelGroup() as group:
        yield group


def who_was_away(crowd: Crowd, position: int) -> list[Client]:
    """Clients that have seen everything up to a position, know the epoch, and have gone."""
    clients = []
    for kind in TRANSPORTS:
        client = kind.connect(crowd.servers[0].url, {CHANNEL: position}, epoch="")
        while client.epoch == "":
            client.next_batch()
        client.cut()
        clients.append(client)
    return clients


def come_back(clients: list[Client], url: str, expected: list[object], gaps: list[int | None]) -> None:
    for client in clients:
        client.url = url
        client.reconnect()
        before = len(client.gaps)
        assert client.data(len(expected)) == expected, client.transport
        assert [gap[CHANNEL]["after"] for gap in client.gaps[before:]] == gaps, client.transport
        client.cut()


def nobody_was_sent_back(crowd: Crowd) -> None:
    for server in crowd.servers:
        assert "disconnecting" not in server.output(), server.output()


def test_a_restart_that_lost_nothing_is_noticed_by_nobody(serve_app: ServeApp, stack: contextlib.ExitStack) -> None:
    server = RedisServer(aof=True)
    stack.callback(server.stop)
    crowd = Crowd(serve_app, server.start().url, stack)
    crowd.publish(*range(10))
    crowd.have_heard(*range(10))
    away = who_was_away(crowd, 8)
    epoch = crowd.bus.seen()
    server.kill()
    server.start()
    crowd.publish(*range(10, 20))
    crowd.have_heard(*range(20))
    nobody_was_sent_back(crowd)
    now = crowd.bus.seen()
    assert epoch is not None
    assert now is not None
    assert now.epoch != epoch.epoch
    come_back(away, crowd.servers[1].url, list(range(8, 20)), [])
    # The connected ones know the new epoch by now.
    assert {follower.client.epoch for follower in crowd.followers} == {now.epoch}


def test_an_older_snapshot_is_told_to_those_who_have_seen_more_and_to_nobody_else(
    serve_app: ServeApp, mortal_redis: RedisServer, stack: contextlib.ExitStack
) -> None:
    crowd = Crowd(serve_app, mortal_redis.url, stack)
    crowd.publish(*range(10))
    crowd.have_heard(*range(10))
    early = who_was_away(crowd, 10)
    with mortal_redis.client() as client:
        client.save()
    crowd.publish(*range(10, 15))
    crowd.have_heard(*range(15))
    late = who_was_away(crowd, 15)
    mortal_redis.kill()
    # All that knew the lost messages is gone as well.
    for server in crowd.servers:
        server.stop()
    mortal_redis.start(hidden=True)
    new = [100 + number for number in range(30)]
    with contextlib.closing(Bus(url=mortal_redis.unix_url)) as publisher:
        publisher.publish_many([(CHANNEL, data) for data in new])
    mortal_redis.show()
    for server in crowd.servers:
        server.start()
    crowd.hear_once(*new)
    crowd.everybody_was_told()
    come_back(early, crowd.servers[0].url, list(new), [])
    come_back(late, crowd.servers[1].url, [*range(10), *new], [None])


def test_a_failover_that_lost_messages_is_told_to_those_who_have_seen_them_though_their_ids_were_given_again(
    group: SentinelGroup, serve_app: ServeApp, stack: contextlib.ExitStack
) -> None:
    crowd = Crowd(serve_app, group.url, stack)
    crowd.publish(*range(10))
    crowd.have_heard(*range(10))
    group.settle()
    early = who_was_away(crowd, 10)
    before = group.primary()
    group.stop_replication()
    crowd.publish(*range(10, 15))
    crowd.have_heard(*range(15))
    late = who_was_away(crowd, 15)
    before.kill()
    new = [100 + number for number in range(30)]
    crowd.publish(*new)  # waits in memory, and is written before any feed has looked
    group.wait_for_another(before)
    crowd.hear_once(*new)
    crowd.everybody_was_told()
    come_back(early, crowd.servers[0].url, list(new), [])
    come_back(late, crowd.servers[1].url, [*range(10), *new], [None])


@pytest.mark.parametrize("announce", ["together", "by_channel"])
def test_a_failover_in_order_gives_a_new_name_and_nothing_else(
    group: SentinelGroup, open_redis: OpenRedis, announce: str
) -> None:
    store = open_redis(group.url, redis_announce=announce)
    recorder = listen(store)
    publish(store, "/a", 1)
    eventually(lambda: recorder.data == [1])
    epoch = store.state().epoch
    group.settle()
    group.fail_over_without_loss()
    eventually(lambda: publish(store, "/a", 2).message_id == 2)
    eventually(lambda: recorder.data == [1, 2])
    eventually(lambda: len(recorder.told("renewed")) == 1)
    assert recorder.told("resync") == []
    [state] = recorder.told("renewed")
    assert isinstance(state, StoreState)
    assert epoch in state.lineage
    assert store.state() == StoreState(2, state.epoch, {str(epoch): 1})


def test_programs_that_only_publish_notice_a_history_that_nobody_listened_to(
    mortal_redis: RedisServer, open_redis: OpenRedis
) -> None:
    with mortal_redis.client() as client:
        publisher = open_redis(mortal_redis.url)
        for number in range(5):
            publish(publisher, "/a", number)
        client.save()
        epochs = [publisher.state().epoch]
        for _ in range(3):
            publish(publisher, "/a", 0)
            mortal_redis.kill()
            mortal_redis.start()
            assert publish(open_redis(mortal_redis.url), "/a", 1).message_id == 6
            state = publisher.state()
            assert state.lineage == {epochs[0]: 5}
            assert state.epoch not in epochs
            epochs.append(state.epoch)
        client.save()
        mortal_redis.kill()
        mortal_redis.start()
        publish(publisher, "/a", 1)
        assert publisher.state().lineage == {epochs[0]: 5, epochs[-1]: 6}


def test_a_history_that_changes_on_an_open_connection_costs_a_publish_nothing(
    redis_server: RedisServer, redis_url: str, open_redis: OpenRedis
) -> None:
    store, other = open_redis(redis_url), open_redis(redis_url)
    recorder = listen(store)
    publish(store, "/a", 1)
    with redis_server.client() as client:
        for _ in range(2):  # promoted, without ever having had another primary
            client.execute_command("REPLICAOF", "127.0.0.1", "1")
            client.execute_command("REPLICAOF", "NO", "ONE")
        publish(store, "/a", 2)
        publish(other, "/a", 3)  # a new connection, which sees the new history
        publish(store, "/a", 4)
    eventually(lambda: recorder.data == [1, 2, 3, 4])
    assert recorder.told("resync") == []
    assert len(recorder.told("renewed")) == 1


def test_a_user_who_may_not_ask_for_the_history_publishes_without(
    redis_server: RedisServer, redis_url: str, open_redis: OpenRedis
) -> None:
    rules = [rule for rule in redis_rights("_message_bus_0").split() if rule != "+info"]
    with redis_server.client() as client:
        client.execute_command("ACL", "SETUSER", "old", "reset", "on", ">pw", *rules)
        try:
            store = open_redis(redis_url.replace("://", "://old:pw@"))
            recorder = listen(store)
            publish(store, "/a", 1)
            eventually(lambda: recorder.data == [1])
            assert client.exists("__mb_history") == 0
            # Who may ask publishes beside it.
            other = open_redis(redis_url)
            publish(other, "/a", 2)
            publish(store, "/a", 3)
            eventually(lambda: recorder.data == [1, 2, 3])
            assert recorder.told("resync") == []
        finally:
            client.execute_command("ACL", "DELUSER", "old")


def test_a_replica_is_given_no_epoch(group: SentinelGroup, open_redis: OpenRedis) -> None:
    store = open_redis(group.servers[0].url)
    publish(store, "/a", 1)
    group.settle()
    replica = open_redis(group.servers[1].url)
    recorder = listen(replica)
    eventually(lambda: recorder.told("started"))
    assert recorder.told("started") == [store.state()]
    assert replica.renew_epoch(store.state().epoch) == store.state()
