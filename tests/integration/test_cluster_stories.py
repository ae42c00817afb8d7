"""Readers on every transport while a cluster loses a node, promotes a replica, or moves a slot: each gets each message
once and in order, and nobody is sent away."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from itertools import count

import pytest

from messagebus import Bus
from messagebus.stores.hash_tags import hash_tags
from messagebus.stores.partitions import partition_of
from tests.clients import TRANSPORTS
from tests.eventually import eventually
from tests.readers import END, Reader
from tests.redis_cluster import RedisCluster
from tests.servers import Server

pytestmark = [pytest.mark.redis, pytest.mark.slow]

P = 12
CHANNELS = [f"/story{number}" for number in range(40)]
CLIENTS = 25
RATE, BURST = 500, 10
"""Messages a second, and how many are published at once."""


class Story:
    """A server, its readers, and a program that publishes."""

    def __init__(self, cluster: RedisCluster, server: Server, bus: Bus) -> None:
        self.cluster = cluster
        self.published = dict.fromkeys(CHANNELS, 0)
        self._bus = bus
        self._stop = threading.Event()
        self.readers = [
            Reader(
                TRANSPORTS[number % len(TRANSPORTS)], server.url, [CHANNELS[(number * 4 + k) % 40] for k in range(4)], P
            )
            for number in range(CLIENTS)
        ]
        eventually(lambda: all(reader.client.batches or reader.trouble for reader in self.readers), timeout=60)
        self._thread = threading.Thread(target=self._publish)
        self._thread.start()

    def _publish(self) -> None:
        began = time.monotonic()
        for burst in count():
            if self._stop.wait(max(began + burst * BURST / RATE - time.monotonic(), 0)):
                break
            messages = []
            for number in range(burst * BURST, (burst + 1) * BURST):
                channel = CHANNELS[number % len(CHANNELS)]
                messages.append((channel, self.published[channel]))
                self.published[channel] += 1
            self._bus.publish_many(messages)
        self._bus.publish_many([(channel, END) for channel in CHANNELS])

    def go_on(self, messages: int = 20) -> None:
        """Wait until each reader has heard more of each of its channels."""
        before = [{channel: len(heard) for channel, heard in reader.data.items()} for reader in self.readers]

        def all_heard() -> bool:
            for reader, heard in zip(self.readers, before, strict=True):
                assert reader.trouble is None, f"{reader.kind.transport}: {reader.trouble!r}"
                if any(len(reader.data[channel]) < number + messages for channel, number in heard.items()):
                    return False
            return True

        eventually(all_heard, timeout=90, interval=0.1)

    def end(self) -> None:
        self._stop.set()
        self._thread.join()
        for reader in self.readers:
            reader.thread.join(90)

    def check(self) -> None:
        for reader in self.readers:
            what = f"{reader.kind.transport} {list(reader.data)}"
            assert reader.trouble is None, f"{what}: {reader.trouble!r}"
            assert not reader.thread.is_alive(), f"{what} waits; { ({c: len(d) for c, d in reader.data.items()}) }"
            for channel, heard in reader.data.items():
                assert heard == [*range(self.published[channel]), END], what
            assert (reader.client.gaps, reader.ended, reader.refused) == ([], [], []), what


@contextlib.contextmanager
def story(cluster: RedisCluster) -> Iterator[Story]:
    url = cluster.url(P)
    env = {"MESSAGEBUS_URL": url, "MESSAGEBUS_STORE_TIMEOUT": "3", "MESSAGEBUS_WINDOW_SIZE": "1000"}
    with (
        contextlib.closing(Server("serve", env=env)) as server,
        contextlib.closing(Bus(url=url, publish_queue_size=50_000, store_timeout=3.0)) as bus,
    ):
        server.start()
        told = Story(cluster, server, bus)
        try:
            told.go_on()
            yield told
            told.go_on()
        except BaseException:
            print(server.output()[-5000:])
            raise
        finally:
            told.end()
        told.check()
        output = server.output()
        assert "Traceback" not in output, output[-5000:]


def test_a_primary_is_killed(mortal_cluster: RedisCluster) -> None:
    with story(mortal_cluster) as told:
        victim = mortal_cluster.owner(hash_tags(P)[partition_of(CHANNELS[0], P)] + b"x")
        replica = mortal_cluster.replica_of(victim)
        victim.kill()
        mortal_cluster.wait_for_promotion(replica)
        told.go_on()


def test_a_replica_is_promoted_in_order(redis_cluster: RedisCluster, empty_cluster: RedisCluster) -> None:
    with story(redis_cluster) as told:
        redis_cluster.fail_over(redis_cluster.owner(hash_tags(P)[partition_of(CHANNELS[0], P)] + b"x"))
        told.go_on()
    eventually(redis_cluster.is_complete)


def test_a_slot_moves(redis_cluster: RedisCluster, empty_cluster: RedisCluster) -> None:
    key = hash_tags(P)[partition_of(CHANNELS[0], P)] + b"x"
    source = redis_cluster.owner(key)
    target = next(server for server in redis_cluster.primaries() if server is not source)
    with story(redis_cluster) as told:
        for there in (target, source):
            with redis_cluster.moving(key, there):
                time.sleep(0.5)  # that long the partition has no node
            told.go_on()
    eventually(redis_cluster.is_complete)
