"""Redis with less than was said of it: older copies of its data, keys that were evicted or deleted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass

import pytest
import redis

from messagebus import Bus
from messagebus.message import Ids
from messagebus.stores import BacklogQuery, Store, StoreState, Trace
from tests.eventually import eventually
from tests.recorder import Recorder
from tests.redis_server import RedisServer
from tests.store_helpers import listen, publish

from .conftest import OpenRedis
from .test_redis import publish_as_another_program

pytestmark = pytest.mark.redis
ENVELOPE = '{"data":0,"user_ids":null,"group_ids":null,"client_ids":null}'


@dataclass
class Scene:
    """Two processes with a feed, which have heard 20 messages on /a."""

    store: Store
    client: redis.Redis
    recorders: list[Recorder]
    epoch: str | None

    @property
    def recorder(self) -> Recorder:
        return self.recorders[0]

    def lose(self, *keys: str) -> None:
        self.client.delete(*keys)


@pytest.fixture
def scene(redis_url: str, open_redis: OpenRedis) -> Iterator[Scene]:
    store, other = open_redis(redis_url), open_redis(redis_url)
    recorders = [listen(store), listen(other)]
    for number in range(20):
        publish(store, "/a", number)
    for recorder in recorders:
        eventually(lambda recorder=recorder: len(recorder.messages) == 20)  # type: ignore[misc]
    with redis.Redis.from_url(redis_url) as client:
        yield Scene(store, client, recorders, store.state().epoch)


def test_a_channel_whose_counter_was_lost_goes_on_behind_its_newest_message(scene: Scene) -> None:
    scene.lose("__mb_backlog_id_n_/a")
    assert scene.store.last_ids(["/a", "/none"]) == [20, 0]
    assert scene.store.backlogs([BacklogQuery("/a", -1)], 1000)[0].last_id == 20
    assert [publish(scene.store, "/a", number).message_id for number in (20, 21)] == [21, 22]
    eventually(lambda: scene.recorder.data == list(range(22)))
    assert scene.recorder.told("resync") == []
    assert [message.data for message in scene.store.backlog("/a").messages] == list(range(22))


def test_a_channel_of_which_nothing_is_left_goes_on_at_an_id_that_nobody_has_seen(scene: Scene) -> None:
    publish(scene.store, "/b", 0)
    for _ in range(2):
        scene.lose("__mb_backlog_id_n_/a", "__mb_backlog_n_/a")
        first = publish(scene.store, "/a", 1)
        assert first.message_id == first.global_id > 20
        assert publish(scene.store, "/a", 2).message_id == first.message_id + 1
    assert publish(scene.store, "/new", 1).message_id == 1
    assert scene.store.state().epoch == scene.epoch


def test_what_is_known_of_channels_may_be_lost_as_well(scene: Scene) -> None:
    scene.lose("__mb_backlog_id_n_/a", "__mb_backlog_n_/a", "__mb_known_channels")
    assert publish(scene.store, "/a", 1).message_id == 21
    assert publish(scene.store, "/new", 1).message_id == 1


def test_the_global_counter_that_was_lost_goes_on_behind_its_newest_pointer(scene: Scene) -> None:
    scene.lose("__mb_global_id_n")
    assert publish(scene.store, "/a", 20) == Ids(21, 21)
    eventually(lambda: scene.recorder.data == list(range(21)))
    assert [message.global_id for message in scene.store.global_backlog()] == list(range(1, 22))


def test_an_epoch_that_was_lost_is_replaced_by_the_next_publish_and_every_feed_is_told_at_once(scene: Scene) -> None:
    scene.lose("__mb_epoch")
    publish(scene.store, "/a", 20)
    epoch = scene.store.state().epoch
    assert epoch not in (None, scene.epoch)
    for recorder in scene.recorders:
        eventually(lambda recorder=recorder: recorder.told("resync") == [StoreState(21, epoch)])  # type: ignore[misc]


def test_another_program_that_begins_a_channelʼs_ids_again_while_messages_are_lost_makes_another_epoch(
    scene: Scene,
) -> None:
    for recorder in scene.recorders:
        recorder.known = [Trace.of(recorder.messages[-1])]
    scene.client.client_kill_filter(_type="pubsub")
    scene.lose("__mb_backlog_id_n_/a", "__mb_backlog_n_/a", "__mb_global_backlog_n")
    for _ in range(25):
        publish_as_another_program(scene.client, "/a", "/a", ENVELOPE)
    scene.client.zremrangebyrank("__mb_global_backlog_n", 0, 20)
    for recorder in scene.recorders:
        eventually(lambda recorder=recorder: recorder.told("resync"))  # type: ignore[misc]
    assert scene.store.state().epoch != scene.epoch


@pytest.mark.parametrize("published", [0, 3, 10, 30], ids="{} messages later".format)
def test_redis_that_comes_back_from_an_older_snapshot_is_given_another_epoch_wherever_its_ids_are(
    mortal_redis: RedisServer, open_redis: OpenRedis, published: int
) -> None:
    store, other = open_redis(mortal_redis.url), open_redis(mortal_redis.url)
    for number in range(20):
        publish(store, f"/{number % 2}", number)
    with mortal_redis.client() as client:
        client.save()
    recorders = [listen(store), listen(other)]
    for number in range(20, 30):
        publish(store, f"/{number % 2}", number)
    for recorder in recorders:
        eventually(lambda recorder=recorder: len(recorder.messages) == 10)  # type: ignore[misc]
    epoch = store.state().epoch
    mortal_redis.kill()
    mortal_redis.start(hidden=True)
    publisher = open_redis(mortal_redis.unix_url)
    for number in range(published):  # before any feed is back
        publish(publisher, f"/{number % 2}", 100 + number)
    mortal_redis.show()
    for recorder in recorders:
        eventually(lambda recorder=recorder: recorder.told("resync"))  # type: ignore[misc]
    [state] = recorders[0].told("resync")
    assert recorders[1].told("resync") == [state] == [store.state()]
    assert store.state().epoch != epoch
    publish(store, "/0", 7)
    for recorder in recorders:
        eventually(lambda recorder=recorder: recorder.data[-1] == 7)  # type: ignore[misc]
        assert recorder.told("resync") == [state]


# --- Python functions ---


@pytest.fixture
def bus(redis_url: str) -> Iterator[Bus]:
    bus = Bus(url=redis_url)
    yield bus
    bus.close()


def subscribe(bus: Bus, channel: str | None = "/a") -> list[object]:
    heard: list[object] = []
    bus.subscribe(channel, lambda message: heard.append(message.data))
    bus.start()
    return heard


def test_functions_hear_what_follows_when_everything_that_counts_their_channel_is_lost(
    bus: Bus, redis_url: str
) -> None:
    heard = subscribe(bus)
    for number in range(5):
        bus.publish("/a", number)
    eventually(lambda: heard == list(range(5)))
    with redis.Redis.from_url(redis_url) as client:
        client.delete("__mb_backlog_id_n_/a", "__mb_backlog_n_/a")
    for number in range(5, 8):
        bus.publish("/a", number)
    eventually(lambda: heard == list(range(8)), message=f"{heard}")


def test_functions_hear_another_program_that_begins_their_channelʼs_ids_again(bus: Bus, redis_url: str) -> None:
    heard = subscribe(bus)
    for number in range(5):
        bus.publish("/a", number)
    eventually(lambda: heard == list(range(5)))
    with redis.Redis.from_url(redis_url) as client:
        client.delete("__mb_backlog_id_n_/a", "__mb_backlog_n_/a")
        for number in range(5, 8):
            publish_as_another_program(client, "/a", "/a", ENVELOPE.replace("0", str(number), 1))
    eventually(lambda: heard == list(range(8)), message=f"{heard}")


def test_functions_hear_each_message_once_when_redis_comes_back_from_an_older_snapshot(
    mortal_redis: RedisServer,
) -> None:
    bus = Bus(url=mortal_redis.url)
    heard, all_heard = subscribe(bus), subscribe(bus, None)
    with mortal_redis.client() as client:
        for number in range(10):
            bus.publish("/a", number)
        client.save()
        for number in range(10, 15):
            bus.publish("/a", number)
    eventually(lambda: heard == all_heard == list(range(15)))
    mortal_redis.kill()
    mortal_redis.start(hidden=True)
    with closing(Bus(url=mortal_redis.unix_url)) as publisher:
        for number in range(20, 40):
            publisher.publish("/a", number)
    mortal_redis.show()
    expected = [*range(15), *range(20, 40)]
    eventually(lambda: heard == all_heard == expected, message=f"{heard}")
    bus.publish("/a", 40)
    eventually(lambda: heard == all_heard == [*expected, 40])
    bus.close()
