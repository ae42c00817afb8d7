"""A browser's own EventSource on channels in several hundred partitions comes back through a proxy without a loss."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from itertools import count, islice
from typing import Any

import pytest
import redis

from messagebus import Bus
from messagebus.stores.hash_tags import hash_tags
from messagebus.stores.partitions import MAX_PARTITIONS, partition_of
from messagebus.transports.event_ids import LONGEST
from tests.browser_events import Browser
from tests.eventually import eventually
from tests.fixtures_servers import Proxy, ServeApp
from tests.redis_cluster import RedisCluster

pytestmark = [pytest.mark.redis, pytest.mark.slow]

Browse = Callable[[Sequence[str], int], Browser]
CHANNELS = 590
"""Each in a partition of its own; their names just fit into a line of 8 KB."""


def channels() -> list[str]:
    of: dict[int, str] = {}
    names = (f"/{number}" for number in count(1000))
    for name in islice(names, 9000):
        of.setdefault(partition_of(name, MAX_PARTITIONS), name)
    return list(of.values())[:CHANNELS]


def as_if_published(cluster: RedisCluster, messages: int) -> None:
    """Each partition has had so many."""
    for server in cluster.primaries():
        with server.client() as client:
            for tag in hash_tags(MAX_PARTITIONS):
                with contextlib.suppress(redis.ResponseError):  # another node has it
                    client.set(tag + b"__mb_global_id_n", messages)


@pytest.fixture
def bus(empty_cluster: RedisCluster) -> Iterator[Bus]:
    with contextlib.closing(Bus(url=empty_cluster.url(MAX_PARTITIONS))) as bus:
        yield bus


@pytest.fixture
def browse(empty_cluster: RedisCluster, serve_app: ServeApp, nginx: Proxy) -> Browse:
    def browse(names: Sequence[str], messages: int) -> Browser:
        as_if_published(empty_cluster, messages)
        env = {"MESSAGEBUS_URL": empty_cluster.url(MAX_PARTITIONS), "MESSAGEBUS_MAX_CHANNELS": "1000"}
        return Browser(nginx(serve_app("serve", env=env).address).url, dict.fromkeys(names, -1))

    return browse


def come_back(browser: Browser, events: int) -> list[str]:
    """What so many events bring, as soon as the server has come to all of the thousand partitions."""
    return [text for text, _ in eventually(lambda: browser.events(events), timeout=60)]


def next_messages(browser: Browser, count: int) -> list[dict[str, Any]]:
    """Of one connection, with what the bus itself says."""
    found: list[dict[str, Any]] = []
    events = 1
    while sum(message["message_id"] > 0 for message in found) < count:
        last_id = browser.last_id
        came = come_back(browser, events)
        found = [message for text in came for message in json.loads(text)]
        events += 1
        if sum(message["message_id"] > 0 for message in found) < count:
            browser.last_id = last_id  # once more, and one event further
    return found


def test_the_id_of_an_event_comes_back_through_a_proxy_and_each_channel_goes_on(bus: Bus, browse: Browse) -> None:
    names = channels()
    browser = browse(names, 10**9)
    come_back(browser, 1)
    assert 3000 < len(browser.last_id) <= LONGEST
    for turn in range(2):
        bus.publish_many([(name, f"{name} {turn}") for name in names[::10]])
        found = next_messages(browser, len(names[::10]))
        assert sorted(each["data"] for each in found if each["message_id"] > 0) == sorted(
            f"{name} {turn}" for name in names[::10]
        )
        assert [each for each in found if each["channel"] == "/__gap"] == []


def test_where_the_ids_have_no_room_every_channel_begins_anew_and_the_page_is_told(bus: Bus, browse: Browse) -> None:
    names = channels()
    browser = browse(names, 10**12)
    bus.publish(names[0], "before")
    come_back(browser, 1)
    assert browser.last_id == "~"
    bus.publish(names[1], "meanwhile")
    found = next_messages(browser, 2)
    assert sorted(each["data"] for each in found if each["message_id"] > 0) == ["before", "meanwhile"]
    [gap] = [each["data"] for each in found if each["channel"] == "/__gap"]
    assert {name: each["after"] for name, each in gap.items()} == dict.fromkeys(names)
