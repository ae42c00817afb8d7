"""Feeds with an interest: what is wanted comes without a hole, whether the store leaves out the rest or not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from messagebus.stores import Store
from tests.eventually import eventually
from tests.interested import Interested
from tests.redis_server import RedisServer
from tests.store_helpers import publish

from .stores import PostgresStore, RedisStore, SqliteStore, StoreUnderTest


@pytest.fixture(
    params=[
        pytest.param("redis", marks=pytest.mark.redis),
        pytest.param("postgres", marks=pytest.mark.postgres),
        "sqlite",
    ]
)
def by_channel(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StoreUnderTest]:
    """The stores that leave out what is not wanted."""
    harness: StoreUnderTest
    if request.param == "sqlite":
        harness = SqliteStore(tmp_path / "bus.db")
    elif request.param == "postgres":
        request.getfixturevalue("postgres_url")
        harness = PostgresStore(request.getfixturevalue("postgres_server"))
    else:
        request.getfixturevalue("redis_url")
        harness = RedisStore(request.getfixturevalue("redis_server"))
        harness.announce = "by_channel"
    yield harness
    for store in harness.stores:
        store.close()


@pytest.fixture
def on_redis(redis_server: RedisServer, redis_url: str) -> Iterator[RedisStore]:
    """The one that others share who announce all messages together."""
    harness = RedisStore(redis_server)
    harness.announce = "by_channel"
    yield harness
    for store in harness.stores:
        store.close()


def test_what_is_wanted_comes_and_what_came_before_does_not(store: Store) -> None:
    publish(store, "/a", 1)
    recorder = Interested(store, "/a")
    for number in (2, 3):
        publish(store, "/b", number)
        publish(store, "/a", number)
    eventually(lambda: recorder.of("/a") == [2, 3])
    assert recorder.told("resync") == []


def test_a_name_that_comes_to_be_wanted_is_heard_from_then_on(store: Store) -> None:
    recorder = Interested(store, "/a")
    publish(store, "/a", 1)
    recorder.want("/b", "/c$|$site")
    for number in range(10):
        publish(store, ("/a", "/b", "/c$|$site")[number % 3], number)
    eventually(lambda: recorder.of("/b") == [1, 4, 7])
    eventually(lambda: recorder.of("/c$|$site") == [2, 5, 8])
    eventually(lambda: recorder.of("/a") == [1, 0, 3, 6, 9])
    ids = [message.global_id for message in recorder.messages]
    assert ids == sorted(ids)


def test_a_name_that_is_wanted_by_another_is_heard_by_both(store: Store) -> None:
    first, second = Interested(store, "/a"), Interested(store, "/a", "/b")
    publish(store, "/a", 1)
    publish(store, "/b", 2)
    eventually(lambda: first.of("/a") == second.of("/a") == [1])
    eventually(lambda: second.of("/b") == [2])


def test_nothing_comes_of_what_is_not_wanted_or_no_longer(by_channel: StoreUnderTest) -> None:
    store = by_channel.open()
    recorder = Interested(store, "/a", "/b")
    publish(store, "/stranger", 1)
    publish(store, "/b", 2)
    recorder.catch_up()
    assert recorder.data == [2]
    recorder.let_go("/b")
    publish(store, "/b", 3)
    publish(store, "/a", 4)
    recorder.catch_up()
    assert recorder.data == [2, 4]
    assert recorder.reached == 4
    recorder.want("/b")
    publish(store, "/b", 5)
    recorder.catch_up()
    assert recorder.data == [2, 4, 5]
    assert recorder.told("resync") == []


def test_what_was_missed_while_the_connection_was_away_comes_once_and_in_order(by_channel: StoreUnderTest) -> None:
    store = by_channel.open(max_global_backlog_size=1)
    recorder = Interested(store, "/a", "/b")
    publish(store, "/a", 0)
    for number in range(1, 300):
        if number % 50 == 0:
            by_channel.cut_feeds()
        publish(store, ("/a", "/b", "/stranger")[number % 3], number)
    eventually(lambda: len(recorder.messages) == 200)
    assert recorder.data == [number for number in range(300) if number % 3 != 2]
    assert recorder.told("resync") == []  # although the global backlog has lost all of it


@pytest.mark.redis
def test_what_is_no_longer_kept_after_the_connection_was_away_is_said_to_be_lost(mortal_redis: RedisServer) -> None:
    harness = RedisStore(mortal_redis)
    with closing(harness.open()) as store:
        recorder = Interested(store, "/a")
        publish(store, "/a", 0)
        recorder.catch_up()
        with mortal_redis.client() as client:
            client.config_set("maxclients", 1)  # nobody comes back
            client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
            eventually(lambda: False in recorder.told("healthy"))
            for _ in range(3):
                store.publish("/a", b'{"data":1}', max_backlog_size=1, max_backlog_age=100)
            client.config_set("maxclients", 1000)
        eventually(lambda: recorder.told("resync"))
        assert recorder.data == [0]


def test_many_names_at_once_are_all_heard(by_channel: StoreUnderTest) -> None:
    store = by_channel.open()
    names = [f"/many/{number}" for number in range(2500)]
    recorder = Interested(store)
    recorder.want(*names)
    for number in (0, 999, 1000, 2499):
        publish(store, names[number], number)
    eventually(lambda: recorder.data == [0, 999, 1000, 2499])
    by_channel.cut_feeds()
    publish(store, names[7], 7)
    eventually(lambda: recorder.data[-1:] == [7])


@pytest.mark.redis
def test_who_announces_on_the_common_channel_alone_is_noticed_and_heard(
    on_redis: RedisStore, caplog: pytest.LogCaptureFixture
) -> None:
    store, other = on_redis.open(), on_redis.open(redis_announce="together")
    recorder = Interested(store, "/a")
    publish(store, "/a", 1)
    publish(other, "/a", 2)
    # The next message shows it as well as the next look.
    publish(store, "/a", 3)
    eventually(lambda: recorder.data == [1, 2, 3])
    eventually(lambda: recorder.told("resync"), 20)
    assert recorder.interest.everything
    publish(other, "/a", 4)
    publish(other, "/stranger", 5)
    eventually(lambda: recorder.data == [1, 2, 3, 4, 5])
    assert "redis_announce" in caplog.text
    # Who comes later hears all from the beginning.
    later = Interested(store, "/a")
    publish(other, "/a", 6)
    eventually(lambda: later.of("/a") == [6])


@pytest.mark.redis
def test_who_announces_by_channel_is_heard_by_those_who_do_not(on_redis: RedisStore) -> None:
    store, other = on_redis.open(), on_redis.open(redis_announce="together")
    recorder = Interested(other, "/a")
    publish(store, "/a", 1)
    publish(store, "/b", 2)
    eventually(lambda: recorder.data == [1, 2])


def test_who_comes_to_want_everything_hears_everything(by_channel: StoreUnderTest) -> None:
    store = by_channel.open()
    recorder = Interested(store, "/a")
    recorder.interest.want_everything()
    eventually(lambda: recorder.told("resync"))
    publish(store, "/stranger", 1)
    eventually(lambda: recorder.data == [1])


def test_a_store_that_was_reset_or_given_another_epoch_calls_resync(by_channel: StoreUnderTest) -> None:
    store = by_channel.open()
    recorder = Interested(store, "/a")
    publish(store, "/a", 1)
    recorder.catch_up()
    store.renew_epoch(store.state().epoch)
    eventually(lambda: len(recorder.told("resync")) == 1)
    store.reset()
    publish(store, "/a", 1)
    eventually(lambda: len(recorder.told("resync")) == 2)
    publish(store, "/a", 2)
    eventually(lambda: recorder.data[-1] == 2)
