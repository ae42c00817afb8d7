"""What is published once is stored once, also where the store's answer never arrives."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator

import pytest

from messagebus import BackendUnavailable, Bus
from tests.eventually import eventually
from tests.postgres_server import PostgresServer
from tests.proxies import LosingProxy
from tests.redis_server import RedisServer


class Lossy:
    """A bus behind a proxy that loses answers, and one that is right at the store."""

    def __init__(self, url: str, proxy: LosingProxy, port: int) -> None:
        self.proxy = proxy
        self.bus = Bus(url=url.replace(f":{port}/", f":{proxy.port}/"), store_timeout=1.0, publish_queue_size=5000)
        self.direct = Bus(url=url)

    def stored(self, channel: str) -> list[object]:
        eventually(lambda: not len(self.bus._publisher_now().queue))
        return [message.data for message in self.direct.backlog(channel)]


@pytest.fixture(
    params=[pytest.param("redis", marks=pytest.mark.redis), pytest.param("postgres", marks=pytest.mark.postgres)]
)
def lossy(request: pytest.FixtureRequest) -> Iterator[Lossy]:
    url = request.getfixturevalue(f"{request.param}_url")
    server: RedisServer | PostgresServer = request.getfixturevalue(f"{request.param}_server")
    with LosingProxy(server.port) as proxy:
        lossy = Lossy(url, proxy, server.port)
        try:
            yield lossy
        finally:
            lossy.bus.close()
            lossy.direct.close()


def test_one_by_one_and_from_the_queue_each_is_stored_once_and_in_order(lossy: Lossy) -> None:
    data = [f"lose-{number}" if number % 2 else f"{number}" for number in range(50)]
    for each in data:
        lossy.bus.publish("/a", each)
        eventually(lambda: not len(lossy.bus._publisher_now().queue))
    assert len(lossy.proxy.lost) == 25
    assert lossy.stored("/a") == data


def test_those_that_wait_behind_a_lost_answer_are_stored_once_and_in_order(lossy: Lossy) -> None:
    data = [f"lose-{number}" if number % 10 == 0 else f"{number}" for number in range(300)]
    for each in data:
        lossy.bus.publish("/a", each)
    assert lossy.stored("/a") == data
    assert lossy.proxy.lost


def test_many_at_once_are_stored_once_and_in_order(lossy: Lossy) -> None:
    data = [f"lose-{number}" if number == 1500 else f"{number}" for number in range(3000)]
    given = lossy.bus.publish_many([(f"/{number % 3}", each) for number, each in enumerate(data)])
    # The first thousand was answered; what became of the second was not known yet.
    assert given[:4] == [1, 1, 1, 2]
    assert given[999] is not None
    assert given[1000:] == [None] * 2000
    for channel in range(3):
        assert lossy.stored(f"/{channel}") == data[channel::3]


def test_several_threads_lose_answers_at_the_same_time_and_nothing_is_stored_twice(lossy: Lossy) -> None:
    def work(first: int) -> None:
        for number in range(first, first + 25):
            lossy.bus.publish(f"/{first}", f"lose-{number}" if number % 5 == 0 else f"{number}")

    threads = [threading.Thread(target=work, args=(first,)) for first in range(0, 200, 25)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for first in range(0, 200, 25):
        stored = lossy.stored(f"/{first}")
        assert [count for count in Counter(stored).values() if count != 1] == []
        assert [int(str(each).removeprefix("lose-")) for each in stored] == list(range(first, first + 25))


def test_a_caller_who_repeats_a_publish_under_his_own_key_gets_the_first_ids(lossy: Lossy) -> None:
    with pytest.raises(BackendUnavailable):
        lossy.bus.publish("/a", "lose-1", queue_in_memory=False, idempotency_key="order 17")
    # Another process, and with other words for the same thing.
    assert lossy.direct.publish("/a", "again", idempotency_key="order 17") == 1
    assert lossy.bus.publish("/a", "and again", idempotency_key="order 17") == 1
    assert lossy.stored("/a") == ["lose-1"]


def test_under_a_key_it_is_written_once_also_from_the_queue(lossy: Lossy) -> None:
    assert lossy.bus.publish("/a", "lose-1", idempotency_key="order 17") is None  # it waits
    for data in ("lose-1 again", "lose-1 once more"):
        assert lossy.bus.publish("/a", data, idempotency_key="order 17") in (None, 1)
    lossy.bus.publish("/a", "next")
    assert lossy.stored("/a") == ["lose-1", "next"]
    assert lossy.direct.publish("/a", "by another process", idempotency_key="order 17") == 1
    assert lossy.stored("/a") == ["lose-1", "next"]


def test_a_key_counts_for_its_channels_and_its_site(lossy: Lossy) -> None:
    def publish(channel: str, site_id: str | None = None) -> int | None:
        ids = lossy.bus.publish_ids(channel, 1, site_id=site_id, idempotency_key="k")
        return ids and ids.global_id

    assert [publish("/a"), publish("/b"), publish("/a", "s"), publish("/a"), publish("/a", "s")] == [1, 2, 3, 1, 3]


def test_many_under_one_key_are_repeated_together(lossy: Lossy) -> None:
    messages = [(f"/{number % 2}", f"lose-{number}" if number == 1100 else number) for number in range(1200)]
    with pytest.raises(BackendUnavailable):
        lossy.bus.publish_many(messages, idempotency_key="import", queue_in_memory=False)
    expected = [number // 2 + 1 for number in range(1200)]
    for bus in (lossy.bus, lossy.direct):
        assert bus.publish_many(messages, idempotency_key="import") == expected
    assert len(lossy.stored("/0")) == len(lossy.stored("/1")) == 600
