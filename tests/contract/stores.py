"""The stores that the contract is asked of: a store of each, and what a test does to the store behind it."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from messagebus.options import Options
from messagebus.stores import Store, open_store
from messagebus.stores.memory import MemoryStore
from tests.postgres_server import PostgresServer
from tests.redis_cluster import RedisCluster
from tests.redis_server import RedisServer


class StoreUnderTest:
    """A backend, and what a test does to the store behind it. This one is for the store in memory."""

    on_network = False
    url = "memory://"

    def __init__(self) -> None:
        self.stores: list[Store] = []
        self.now = 1000.0

    def open(self, **values: object) -> Store:
        store = self.make(Options(url=self.url, **values))  # type: ignore[arg-type]
        self.stores.append(store)
        return store

    def make(self, options: Options) -> Store:
        return MemoryStore(options, clock=lambda: self.now)

    def pass_time(self, seconds: int) -> None:
        """Make everything in the store so much older."""
        self.now += seconds

    def cut_feeds(self) -> None:
        """Break every feed's connection, where there is one."""

    def feeds_of_server(self) -> int:
        return 0

    def reports_in_store(self) -> int | None:
        """Reports that take room, those that no longer count among them; ``None``: nobody else can see that."""
        return None


class RedisStore(StoreUnderTest):
    on_network = True

    def __init__(self, server: RedisServer) -> None:
        super().__init__()
        self.server = server
        self.url = server.url
        self.announce = "together"

    def open(self, **values: object) -> Store:
        return super().open(**{"redis_announce": self.announce, **values})

    def make(self, options: Options) -> Store:
        return open_store(options)

    def pass_time(self, seconds: int) -> None:
        with self.server.client() as client:
            for key in client.scan_iter():
                left = client.pttl(key)
                if left >= 0:
                    client.pexpire(key, max(0, left - seconds * 1000))
            for worker in client.zrange("__mb_workers", 0, -1):
                client.zincrby("__mb_workers", -seconds, worker)

    def cut_feeds(self) -> None:
        with self.server.client() as client:
            client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")

    def feeds_of_server(self) -> int:
        with self.server.client() as client:
            return int(client.pubsub_numsub("_message_bus_0")[0][1])

    def reports_in_store(self) -> int:
        with self.server.client() as client:
            assert client.hlen("__mb_reports") == client.zcard("__mb_workers")
            return int(client.hlen("__mb_reports"))


class RedisClusterStore(StoreUnderTest):
    """With one partition, as the contract counts ids over all channels."""

    on_network = True

    def __init__(self, cluster: RedisCluster, partitions: int = 1) -> None:
        super().__init__()
        self.cluster = cluster
        self.url = cluster.url(partitions)

    def make(self, options: Options) -> Store:
        return open_store(options)

    def pass_time(self, seconds: int) -> None:
        for client in self._clients():
            for key in client.scan_iter():
                left = client.pttl(key)
                if left >= 0:
                    client.pexpire(key, max(0, left - seconds * 1000))
                if key.endswith(b"__mb_workers"):
                    for worker in client.zrange(key, 0, -1):
                        client.zincrby(key, -seconds, worker)

    def cut_feeds(self) -> None:
        for client in self._clients():
            client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")

    def feeds_of_server(self) -> int:
        return sum(len(client.execute_command("PUBSUB", "SHARDCHANNELS")) for client in self._clients())

    def reports_in_store(self) -> int:
        return sum(client.hlen(key) for client in self._clients() for key in client.scan_iter(match="*__mb_reports"))

    def _clients(self) -> Iterator[Any]:
        for server in self.cluster.primaries():
            with server.client() as client:
                yield client


class PostgresStore(StoreUnderTest):
    on_network = True
    FEEDS = (
        "FROM pg_stat_activity WHERE application_name = 'messagebus' "
        "AND query SIMILAR TO '(LISTEN|UNLISTEN|NOTIFY|SELECT 1$)%'"
    )

    def __init__(self, server: PostgresServer) -> None:
        super().__init__()
        self.server = server
        self.url = server.url

    def make(self, options: Options) -> Store:
        return open_store(options)

    def pass_time(self, seconds: int) -> None:
        with self.server.client() as client:
            age = f"- interval '{seconds} seconds'"
            client.execute(f"UPDATE messagebus_state SET global_until = global_until {age}")
            client.execute(f"UPDATE messagebus_publications SET forget_at = forget_at {age}")
            client.execute(f"UPDATE messagebus_reports SET until = until {age}")
            client.execute(
                f"UPDATE messagebus_channels SET backlog_until = backlog_until {age}, ids_until = ids_until {age}"
            )

    def cut_feeds(self) -> None:
        with self.server.client() as client:
            client.execute(f"SELECT pg_terminate_backend(pid) {self.FEEDS}")

    def feeds_of_server(self) -> int:
        with self.server.client() as client:
            (count,) = client.execute(f"SELECT count(*) {self.FEEDS}").fetchone() or (0,)
            return int(count)

    def reports_in_store(self) -> int:
        with self.server.client() as client:
            (count,) = client.execute("SELECT count(*) FROM messagebus_reports").fetchone() or (0,)
            return int(count)


class SqliteStore(StoreUnderTest):
    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.url = f"sqlite:///{path}"

    def make(self, options: Options) -> Store:
        return open_store(options)

    def pass_time(self, seconds: int) -> None:
        with contextlib.closing(sqlite3.connect(self.path)) as connection, connection:
            connection.execute("UPDATE state SET global_until = global_until - ?, sweep_at = 0", (seconds,))
            connection.execute("UPDATE reports SET until = until - ?", (seconds,))
            connection.execute("UPDATE publications SET forget_at = forget_at - ?", (seconds,))
            connection.execute(
                "UPDATE channels SET backlog_until = backlog_until - :age, ids_until = ids_until - :age",
                {"age": seconds},
            )
