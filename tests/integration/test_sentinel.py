"""A bus whose Redis is found by sentinels: it follows a failover by itself, and says what is wrong with a URL."""

from __future__ import annotations

import logging
import re
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from messagebus import Bus
from messagebus.errors import BackendUnavailable, InvalidOption, PublishRefused
from messagebus.stores.redis import RedisStore
from tests.eventually import eventually
from tests.redis_server import RedisServer
from tests.sentinels import SentinelGroup
from tests.store_helpers import check_all, listen, publish

from .conftest import OpenRedis

pytestmark = pytest.mark.redis


@pytest.fixture
def group() -> Iterator[SentinelGroup]:
    with SentinelGroup() as group:
        yield group


@pytest.fixture(scope="module")
def still() -> Iterator[SentinelGroup]:
    """One that no test fails over."""
    with SentinelGroup(password="s3cret", rules=RULES) as group:
        yield group


RULES = (
    "+auth +ping +subscribe +sentinel|get-master-addr-by-name +sentinel|master +sentinel|masters "
    "&+promoted-slave &+switch-master"
)


def test_the_line_of_the_documentation_is_the_one_that_is_tested() -> None:
    how_to = (Path(__file__).parents[2] / "docs/how-to/redis-sentinel.md").read_text().replace("\\\n", "")
    found = re.search(r"ACL SETUSER asker on >\S+ (.+)", how_to)
    assert found
    assert {*found[1].split()} == {*RULES.split()} - {"+auth"}


def own_url(group: SentinelGroup) -> str:
    return f"{group.url}?sentinel_username=asker&sentinel_password=s3ntinel"


def test_the_primary_is_found_by_its_name_with_passwords_of_its_own_and_of_the_sentinels(
    still: SentinelGroup, open_redis: OpenRedis
) -> None:
    store = open_redis(own_url(still))
    store.reset()
    check_all(store)
    with still.servers[0].client() as client:
        assert client.get("__mb_global_id_n") == b"1"
    assert "s3" not in store.where


def test_a_sentinel_that_does_not_answer_is_passed_over(still: SentinelGroup, open_redis: OpenRedis) -> None:
    url = own_url(still).replace("127.0.0.1", "127.0.0.1:1,127.0.0.1", 1)
    store = open_redis(url)
    publish(store, "/a", 1)


def test_an_unknown_name_is_told_with_those_that_are_known(still: SentinelGroup, open_redis: OpenRedis) -> None:
    store = open_redis(own_url(still).replace("/bus/", "/other/"))
    with pytest.raises(BackendUnavailable, match="no primary of the name other, but bus"):
        publish(store, "/a", 1)


def test_a_sentinel_that_lets_nobody_ask_is_told_with_what_mends_it(
    still: SentinelGroup, open_redis: OpenRedis, caplog: pytest.LogCaptureFixture
) -> None:
    for url in (still.url, own_url(still).replace("s3ntinel", "wr0ng")):
        with pytest.raises(PublishRefused, match=r"does not let this process ask.*sentinel_password") as raised:
            publish(open_redis(url), "/a", 1)
        assert raised.value.reason == "unauthenticated"
        for secret in ("s3", "wr0ng"):
            assert secret not in str(raised.value) + caplog.text


def test_a_redis_in_the_place_of_a_sentinel_is_told_as_what_it_is(redis_server: RedisServer) -> None:
    url = f"redis+sentinel://127.0.0.1:{redis_server.port}/bus/0"
    with closing(Bus(url=url)) as bus:
        with pytest.raises(InvalidOption, match="expected to be a sentinel, but is a serv"):
            bus.publish("/a", 1)
        with pytest.raises(InvalidOption, match="expected to be a sentinel"):
            bus.check_store()


def test_a_sentinel_in_the_place_of_a_redis_is_told_as_what_it_is(group: SentinelGroup) -> None:
    with closing(Bus(url=f"redis://127.0.0.1:{group.sentinels[0].port}/0")) as bus:
        with pytest.raises(InvalidOption, match=r"is a sentinel.*redis\+sentinel://"):
            bus.check_store()
        with pytest.raises(InvalidOption, match=r"is a sentinel.*redis\+sentinel://"):
            bus.publish("/a", 1)
        with pytest.raises(BackendUnavailable, match="is a sentinel"):
            bus.backlog("/a")


def test_a_failover_in_order_loses_nothing_and_sends_nobody_back(
    group: SentinelGroup, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    bus, publisher = Bus(url=group.url), Bus(url=group.url)
    heard: list[object] = []
    bus.subscribe("/a", lambda message: heard.append(message.data))
    stop = threading.Event()
    numbers = iter(range(1_000_000))

    def publish_on() -> None:
        while not stop.wait(0.005):
            publisher.publish("/a", next(numbers))

    thread = threading.Thread(target=publish_on)
    thread.start()
    try:
        eventually(lambda: len(heard) > 20)
        group.fail_over_without_loss()
        so_far = len(heard)
        eventually(lambda: len(heard) > so_far + 100)
    finally:
        stop.set()
        thread.join()
    total = next(numbers)
    eventually(lambda: heard == list(range(total)), message=f"{len(heard)} of {total}")
    for each in (bus, publisher):
        each.close()


@pytest.mark.parametrize("how", ["killed", "silent"])
def test_who_publishes_and_who_listens_are_at_the_new_primary_within_a_second_of_its_promotion(
    group: SentinelGroup, open_redis: OpenRedis, how: str
) -> None:
    # Less than a second is shown by the time; what could pass it, store_timeout, is far longer.
    listener, publisher = open_redis(group.url, store_timeout=30.0), Bus(url=group.url, store_timeout=30.0)
    recorder = listen(listener)
    publisher.publish("/a", 0)
    eventually(lambda: recorder.data == [0])
    group.settle()
    before = group.primary()
    if how == "killed":
        before.kill()
    else:
        group.cut_off(before)
    thread = threading.Thread(target=publisher.publish, args=("/a", 1))
    thread.start()
    group.wait_for_another(before)
    promoted = time.monotonic()
    eventually(lambda: recorder.data == [0, 1], timeout=20)
    assert time.monotonic() - promoted < 15
    thread.join()
    publisher.close()


def test_a_sentinel_that_was_cut_off_during_the_failover_misleads_nobody(open_redis: OpenRedis) -> None:
    with SentinelGroup(sentinels=3) as group:
        store = open_redis(group.url)
        publish(store, "/a", 1)
        group.settle()
        stale = group.sentinels.pop(0)
        assert stale.process
        stale.process.send_signal(signal.SIGSTOP)  # it hears nothing of it
        new = group.fail_over()
        stale.process.send_signal(signal.SIGCONT)
        group.sentinels.insert(0, stale)
        primary = store._primary
        assert primary
        eventually(lambda: primary._newest and primary._newest.address[1] == new.port)
        assert primary.get_master_address()[1] == new.port
        assert publish(store, "/a", 2).message_id == 2
        with new.client() as client:
            assert client.get("__mb_global_id_n") == b"2"


def test_a_closed_store_hears_the_sentinels_no_more(still: SentinelGroup) -> None:
    from messagebus.options import Options

    store = RedisStore(Options(url=own_url(still)))
    publish(store, "/a", 1)
    assert store._primary
    threads = [watch.thread for watch in store._primary._watches]
    assert threads
    store.close()
    assert not any(thread.is_alive() for thread in threads)
