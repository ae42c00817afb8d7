"""A cluster under load loses nodes, promotes replicas and moves slots: nothing is lost, and others notice nothing."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import count
from typing import cast

import pytest

from messagebus.errors import BackendUnavailable
from messagebus.message import Ids, encode_envelope
from messagebus.options import Options
from messagebus.stores import Publication, PublicationId, Store, StoreState, open_store
from messagebus.stores.hash_tags import hash_tags
from messagebus.stores.redis_cluster import RedisClusterStore
from tests.eventually import eventually
from tests.interested import Interested
from tests.recorder import Recorder
from tests.redis_cluster import RedisCluster
from tests.redis_server import RedisServer

pytestmark = pytest.mark.redis

P = 12
NAMES = [f"/c{number}" for number in range(60)]


class Told(Interested):
    """Which partitions were said to be down."""

    def healthy(self, healthy: bool, partition: int = 0) -> None:
        super().healthy(healthy, partition)
        self.down = {*getattr(self, "down", ()), *(() if healthy else (partition,))}


class Load:
    """Publishes numbers, one after the other, in each partition from a thread of its own: what waits for one partition
    holds up no other. Each is safe on a replica before the next one."""

    def __init__(self, store: Store, replicas: int = 1) -> None:
        self._store = store
        self._replicas = replicas
        self.published: dict[str, list[int]] = {name: [] for name in NAMES}
        self.ids: list[Ids] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(store.partitions)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def done(self, partition: int) -> int:
        return sum(len(self.published[name]) for name in self.names(partition))

    def names(self, partition: int) -> list[str]:
        return [name for name in NAMES if self._store.partition_of(name) == partition]

    def _run(self, partition: int) -> None:
        names = self.names(partition)
        for number in count():
            if self._stop.wait(0.02):
                return
            name = names[number % len(names)]
            message = [Publication(name, encode_envelope(b"%d" % number), 10_000, 10_000)]
            while True:
                try:
                    ids, reached = self._store.publish_durably(
                        message, PublicationId(f"l{partition}", number), self._replicas
                    )
                except BackendUnavailable:
                    time.sleep(0.02)
                    continue
                if reached >= self._replicas:
                    break
            self.published[name].append(number)
            self.ids += ids


@contextmanager
def followed(cluster: RedisCluster, timeout: float = 3) -> Iterator[tuple[RedisClusterStore, Told, Recorder]]:
    """A store, who follows half of the channels, and who hears everything."""
    with closing(open_store(Options(url=cluster.url(P), store_timeout=timeout))) as store:
        some = Told(store, *NAMES[::2])
        everything = Recorder()
        store.listen(everything)
        eventually(lambda: len(everything.told("started")) == P)
        yield cast(RedisClusterStore, store), some, everything


def partitions_on(cluster: RedisCluster, server: RedisServer) -> set[int]:
    return {number for number, tag in enumerate(hash_tags(P)) if cluster.owner(tag + b"x") is server}


def go_on(load: Load, messages: int = 10) -> None:
    """Wait until every partition has taken so many more."""
    before = [load.done(partition) for partition in range(P)]
    eventually(lambda: all(load.done(each) >= before[each] + messages for each in range(P)), timeout=60)


def check(load: Load, some: Told, everything: Recorder) -> None:
    """Each message has come once, and in order."""
    expected = {name: list(numbers) for name, numbers in load.published.items()}
    eventually(lambda: len(everything.messages) >= sum(map(len, expected.values())), timeout=60)
    eventually(lambda: len(some.messages) >= sum(len(expected[name]) for name in NAMES[::2]), timeout=60)
    for name in NAMES:
        heard = [message.data for message in everything.messages if message.name == name]
        assert heard == expected[name]
        assert some.of(name) == (expected[name] if name in NAMES[::2] else [])
    assert len({ids.global_id for ids in load.ids}) == len(load.ids)
    assert some.told("resync") == everything.told("resync") == []


def test_a_primary_that_is_killed_under_load_loses_nothing_and_others_notice_nothing(
    mortal_cluster: RedisCluster,
) -> None:
    victim = mortal_cluster.owner(hash_tags(P)[0] + b"x")
    concerned = partitions_on(mortal_cluster, victim)
    assert 2 < len(concerned) < P - 2
    with followed(mortal_cluster) as (store, some, everything):
        with Load(store) as load:
            go_on(load)
            replica = mortal_cluster.replica_of(victim)
            victim.kill()
            others = [number for number in range(P) if number not in concerned]
            before = [load.done(number) for number in others]
            eventually(lambda: all(load.done(each) > done + 10 for each, done in zip(others, before, strict=True)), 60)
            mortal_cluster.wait_for_promotion(replica)
            load._replicas = 0  # one that is left has no replica
            go_on(load)
        check(load, some, everything)
        assert some.down == concerned


def test_a_failover_in_order_loses_nothing(redis_cluster: RedisCluster, empty_cluster: RedisCluster) -> None:
    primary = redis_cluster.owner(hash_tags(P)[0] + b"x")
    with followed(redis_cluster) as (store, some, everything):
        with Load(store) as load:
            go_on(load)
            redis_cluster.fail_over(primary)
            go_on(load)
        check(load, some, everything)
    eventually(redis_cluster.is_complete)


def test_a_slot_that_moves_under_load_loses_nothing_and_others_notice_nothing(
    redis_cluster: RedisCluster, empty_cluster: RedisCluster
) -> None:
    key = hash_tags(P)[5] + b"x"
    source = redis_cluster.owner(key)
    target = next(server for server in redis_cluster.primaries() if server is not source)
    with followed(redis_cluster) as (store, some, everything):
        with Load(store) as load:
            go_on(load)
            for there, back in ((target, source), (source, target)):
                with redis_cluster.moving(key, there):
                    before = [load.done(number) for number in range(P)]
                    eventually(
                        lambda before=before: all(  # type: ignore[misc]
                            load.done(each) > before[each] + 5 for each in range(P) if each != 5
                        )
                    )
                assert redis_cluster.owner(key) is there is not back
                go_on(load)
        check(load, some, everything)
        assert getattr(some, "down", set()) <= {5}
    eventually(redis_cluster.is_complete)


def test_a_channel_that_comes_to_be_wanted_while_its_slot_moves_is_heard_from_then_on(
    redis_cluster: RedisCluster, empty_cluster: RedisCluster
) -> None:
    key = hash_tags(P)[5] + b"x"
    source = redis_cluster.owner(key)
    target = next(server for server in redis_cluster.primaries() if server is not source)
    with followed(redis_cluster) as (store, some, _):
        name = next(name for name in NAMES[1::2] if store.partition_of(name) == 5)
        store.publish(name, b'{"data":1}', max_backlog_size=10, max_backlog_age=100)
        with redis_cluster.moving(key, target):
            some.wanted[name] = "here"
            some.interest.changed(name)
        eventually(lambda: "here" in some.heard)
        store.publish(name, b'{"data":2}', max_backlog_size=10, max_backlog_age=100)
        eventually(lambda: some.of(name) == [2])
        with redis_cluster.moving(key, source):
            pass
        store.publish(name, b'{"data":3}', max_backlog_size=10, max_backlog_age=100)
        eventually(lambda: some.of(name) == [2, 3])
        assert some.told("resync") == []


def test_a_partition_without_a_node_waits_for_it_and_the_others_go_on() -> None:
    with RedisCluster(replicas=0, node_timeout=1500) as cluster:
        victim = cluster.servers[1]
        concerned = partitions_on(cluster, victim)
        with followed(cluster) as (store, some, everything):
            with Load(store, replicas=0) as load:
                go_on(load)
                cluster.cut_off(victim)
                others = [number for number in range(P) if number not in concerned]
                eventually(lambda: getattr(some, "down", set()) == concerned, timeout=60)
                before = [load.done(number) for number in others]
                eventually(lambda: all(load.done(each) > done for each, done in zip(others, before, strict=True)))
                lost = next(name for name in NAMES if store.partition_of(name) in concerned)
                with pytest.raises(BackendUnavailable):
                    store.backlog(lost)
                assert store.backlog(load.names(others[0])[0]).messages
                cluster.go_on(victim)
                go_on(load)
            check(load, some, everything)


def test_a_failover_that_lost_messages_is_told_to_those_on_its_partitions_alone(mortal_cluster: RedisCluster) -> None:
    victim = mortal_cluster.owner(hash_tags(P)[0] + b"x")
    concerned = partitions_on(mortal_cluster, victim)
    replica = mortal_cluster.replica_of(victim)
    with followed(mortal_cluster) as (store, some, everything):
        for name in NAMES:
            store.publish(name, b'{"data":1}', max_backlog_size=10, max_backlog_age=100)
        eventually(lambda: len(everything.messages) == len(NAMES))
        mortal_cluster.settle(victim)
        mortal_cluster.cut_off(replica)
        with victim.client() as client:
            client.execute_command("CLIENT", "KILL", "TYPE", "replica")  # nothing more is on its way
            eventually(lambda: client.info("replication")["connected_slaves"] == 0)
        for name in NAMES:
            store.publish(name, b'{"data":2}', max_backlog_size=10, max_backlog_age=100)
        eventually(lambda: len(everything.messages) == 2 * len(NAMES))
        some.catch_up()
        before = [store.state(number) for number in range(P)]
        victim.kill()
        mortal_cluster.go_on(replica)
        mortal_cluster.wait_for_promotion(replica)
        wanted = {number for number in concerned if any(store.partition_of(name) == number for name in NAMES)}
        eventually(lambda: resynced(everything) == wanted, timeout=60)
        eventually(lambda: resynced(some) == wanted, timeout=60)
        for number, state in enumerate(before):
            assert (store.state(number).epoch != state.epoch) == (number in wanted)


def test_names_are_listed_without_the_partitions_that_are_away_and_with_them_once_a_replica_has_them(
    mortal_cluster: RedisCluster,
) -> None:
    victim = mortal_cluster.owner(hash_tags(P)[0] + b"x")
    concerned = partitions_on(mortal_cluster, victim)
    # Nobody listens, who would find out that a replica was promoted.
    with closing(open_store(Options(url=mortal_cluster.url(P), store_timeout=3))) as store:
        for name in NAMES:
            store.publish(name, b'{"data":1}', max_backlog_size=10, max_backlog_age=100)
        assert listed(store) == ({*NAMES}, [])
        mortal_cluster.settle(victim)
        replica = mortal_cluster.replica_of(victim)
        victim.kill()
        assert listed(store) == ({name for name in NAMES if store.partition_of(name) not in concerned}, [*concerned])
        mortal_cluster.wait_for_promotion(replica)
        eventually(lambda: listed(store) == ({*NAMES}, []))


def listed(store: Store) -> tuple[set[str], list[int]]:
    names, away, cursor = set[str](), list[int](), ""
    while True:
        page = store.channels(cursor, 7)
        names |= {*page.names}
        away += page.away
        cursor = page.cursor
        if not cursor:
            return names, sorted(away)


def resynced(recorder: Recorder) -> set[int]:
    return {state.global_id % P for state in recorder.told("resync") if isinstance(state, StoreState)}


def test_what_a_primary_publishes_that_does_not_know_that_it_was_replaced_is_heard_by_nobody(
    mortal_cluster: RedisCluster,
) -> None:
    victim = mortal_cluster.owner(hash_tags(P)[0] + b"x")
    replica = mortal_cluster.replica_of(victim)
    with (
        followed(mortal_cluster, timeout=1) as (store, some, everything),
        closing(open_store(Options(url=mortal_cluster.url(P), store_timeout=0.5))) as other,
    ):
        names = [name for name in NAMES if store.partition_of(name) in partitions_on(mortal_cluster, victim)]

        def publish(number: int) -> None:
            for name in names:
                eventually(lambda name=name: tried(store, name, number), timeout=60)  # type: ignore[misc]

        publish(1)
        other.publish(names[0], b'{"data":1}', max_backlog_size=100, max_backlog_age=100)  # it is connected
        eventually(lambda: len(everything.messages) == len(names) + 1)
        mortal_cluster.settle(victim)
        mortal_cluster.cut_off(victim)
        with pytest.raises(BackendUnavailable):
            other.publish_many([Publication(name, b'{"data":"lost"}', 100, 100) for name in names * 20])
        mortal_cluster.wait_for_promotion(replica)
        publish(2)
        eventually(lambda: len(everything.messages) == 2 * len(names) + 1, timeout=60)
        mortal_cluster.go_on(victim)  # it does first what it was sent, and tells its former replica of that
        eventually(lambda: victim not in mortal_cluster.primaries(), timeout=60)
        publish(3)
        eventually(lambda: len(everything.messages) == 3 * len(names) + 1, timeout=60)
        wanted = [name for name in names if name in NAMES[::2]]
        eventually(lambda: len(some.messages) == 3 * len(wanted) + (names[0] in wanted), timeout=60)
        for name in names:
            expected = [1, 1, 2, 3] if name == names[0] else [1, 2, 3]
            assert [message.data for message in everything.messages if message.name == name] == expected
            assert some.of(name) == (expected if name in wanted else [])
        assert some.told("resync") == everything.told("resync") == []


def tried(store: Store, name: str, number: int) -> bool:
    """Whether the store has taken a message, now."""
    try:
        store.publish(name, b'{"data":%d}' % number, max_backlog_size=100, max_backlog_age=100)
    except BackendUnavailable:
        return False
    return True
