"""Redis that dies, hangs, comes back or has forgotten."""

from __future__ import annotations

import logging
import signal
from contextlib import ExitStack

import pytest
import redis

from messagebus import Bus
from messagebus.errors import BackendUnavailable, PublishQueueFull
from messagebus.message import Ids
from messagebus.publishing.publish_queue import PublishQueue
from messagebus.stores import StoreState, redis_feed
from tests.eventually import eventually
from tests.queued import publish as queued
from tests.recorder import Recorder
from tests.redis_server import RedisServer
from tests.store_helpers import listen, publish

from .conftest import OpenRedis

pytestmark = pytest.mark.redis


def test_redis_killed_and_back_with_its_data_no_message_is_missed_and_the_queued_ones_come_in_order(
    open_redis: OpenRedis, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "messagebus")
    server = RedisServer(aof=True)
    try:
        store = open_redis(server.start().url)
        other = open_redis(server.url)
        queue = PublishQueue(store, 20)
        recorder = listen(store)
        for number in range(5):
            assert queued(queue, number) is not None
        eventually(lambda: len(recorder.messages) == 5)
        server.kill()
        eventually(lambda: recorder.told("healthy") == [False])
        with pytest.raises(BackendUnavailable):
            queued(queue, -1, queue_in_memory=False)
        for number in range(5, 25):
            assert queued(queue, number) is None
        with pytest.raises(PublishQueueFull):
            queued(queue, -1)
        with pytest.raises(BackendUnavailable, match="wait"):
            queued(queue, -1, queue_in_memory=False)
        server.start()
        eventually(lambda: len(queue) == 0)
        assert queued(queue, 25) == Ids(26, 26)
        eventually(lambda: len(recorder.messages) == 26)
        assert recorder.data == list(range(26))
        assert recorder.told("resync") == []
        eventually(lambda: recorder.told("healthy") == [False, True])
        assert [message.data for message in other.backlog("/a").messages] == list(range(26))
        feed_log = [record.levelname for record in caplog.records if "feed from" in record.message]
        assert feed_log == ["WARNING", "WARNING"]
        queue.close(1)
    finally:
        server.stop()


def test_redis_killed_and_back_without_its_data_is_noticed_as_a_reset(
    mortal_redis: RedisServer, open_redis: OpenRedis
) -> None:
    store = open_redis(mortal_redis.url)
    recorder = listen(store)
    for number in range(3):
        publish(store, "/a", number)
    eventually(lambda: len(recorder.messages) == 3)
    mortal_redis.kill()
    mortal_redis.start()
    eventually(lambda: recorder.told("healthy") == [False, True])
    assert recorder.told("resync") == [StoreState(0, store.state().epoch)]
    assert publish(store, "/a", 7) == Ids(1, 1)
    eventually(lambda: recorder.data == [0, 1, 2, 7])


def test_a_feed_begins_when_redis_comes_up_later(open_redis: OpenRedis) -> None:
    server = RedisServer()
    try:
        store = open_redis(server.url)
        recorder = Recorder()
        store.listen(recorder)
        eventually(lambda: recorder.told("healthy") == [False])
        server.start()
        eventually(lambda: recorder.events[1:] == [("started", store.state()), ("healthy", True)])
    finally:
        server.stop()


def test_a_redis_that_turned_read_only_makes_publishes_wait_until_it_takes_them(
    mortal_redis: RedisServer, open_redis: OpenRedis
) -> None:
    store = open_redis(mortal_redis.url)
    queue = PublishQueue(store, 10)
    recorder = listen(store)
    assert queued(queue, 1) == Ids(1, 1)
    with mortal_redis.client() as client:
        client.replicaof("127.0.0.1", 1)  # nothing is there: it keeps its data, and takes no writes
        with pytest.raises(BackendUnavailable, match=r"(?i)read.?only"):
            publish(store, "/a", 0)
        assert queued(queue, 2) is None
        assert queued(queue, 3) is None
        client.replicaof("NO", "ONE")
    eventually(lambda: recorder.data == [1, 2, 3])
    queue.close(1)


def test_a_server_that_hangs_is_noticed_by_the_feed(
    mortal_redis: RedisServer, open_redis: OpenRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("messagebus.stores.redis_feed.QUIET", 0.2)
    store = open_redis(mortal_redis.url, store_timeout=1.0)
    recorder = listen(store)
    assert mortal_redis.process is not None
    mortal_redis.process.send_signal(signal.SIGSTOP)
    try:
        eventually(lambda: recorder.told("healthy") == [False])
    finally:
        mortal_redis.process.send_signal(signal.SIGCONT)
    eventually(lambda: recorder.told("healthy") == [False, True])
    publish(store, "/a", 1)
    eventually(lambda: recorder.data == [1])


def test_a_quiet_feed_stays_up_by_asking_now_and_then(
    redis_url: str, open_redis: OpenRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("messagebus.stores.redis_feed.QUIET", 0.02)
    store = open_redis(redis_url)
    with redis.Redis.from_url(redis_url) as client:
        before = client.info("commandstats").get("cmdstat_ping", {"calls": 0})["calls"]
        recorder = listen(store)
        eventually(lambda: client.info("commandstats").get("cmdstat_ping", {"calls": 0})["calls"] >= before + 5)
    publish(store, "/a", 1)
    eventually(lambda: recorder.data == [1])
    assert recorder.told("healthy") == []


def test_a_feed_comes_back_however_busy_all_other_connections_are(
    redis_url: str, open_redis: OpenRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("messagebus.stores.redis_connection.MAX_CONNECTIONS", 2)
    store, other = open_redis(redis_url), open_redis(redis_url)
    recorder = listen(store)
    publish(store, "/a", 1)
    eventually(lambda: recorder.data == [1])
    with ExitStack() as stack, redis.Redis.from_url(redis_url) as client:
        pipeline = stack.enter_context(store._client().pipeline())
        pipeline.watch("held")  # holds on to its connection; the other one is kept for commands
        client.client_kill_filter(_type="pubsub")
        publish(other, "/a", 2)
        eventually(lambda: recorder.data == [1, 2])


def test_what_the_global_backlog_no_longer_has_is_said_to_be_lost(redis_url: str, open_redis: OpenRedis) -> None:
    store = open_redis(redis_url, max_global_backlog_size=3)
    recorder = listen(store)
    publish(store, "/a", 1)
    eventually(lambda: recorder.data == [1])
    # One transaction: the feed cannot be back before all of it is done.
    with redis.Redis.from_url(redis_url) as client, client.pipeline(transaction=True) as pipeline:
        pipeline.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
        pipeline.set("__mb_global_id_n", 9)
        pipeline.zadd("__mb_global_backlog_n", {"9|/a": 9})
        pipeline.execute()
    eventually(lambda: recorder.told("healthy") == [False, True])
    assert recorder.told("resync") == [StoreState(9, store.state().epoch)]
    publish(store, "/a", 2)
    eventually(lambda: recorder.data == [1, 2])


def test_a_feed_that_is_open_and_dead_says_so_and_loses_nothing(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # What others publish is announced under another name than the one that this process listens to.
    monkeypatch.setattr(redis_feed, "QUIET", 0.1)
    deaf = Bus(url=redis_url, redis_pubsub_channel="nobody-publishes-here")
    publisher = Bus(url=redis_url)
    heard: list[object] = []
    deaf.subscribe("/chat", lambda message: heard.append(message.data))
    for number in range(3):
        publisher.publish("/chat", number)
        eventually(lambda number=number: heard == list(range(number + 1)))  # type: ignore[misc]
    eventually(lambda: "does not deliver what is published" in caplog.text)
    deaf.close()
    publisher.close()
