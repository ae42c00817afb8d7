"""A Redis Cluster on this machine: three primaries with a replica each, to be killed, failed over and resharded."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from types import TracebackType
from typing import Any

import redis
from redis.crc import key_slot

from .eventually import eventually
from .ports import free_port
from .redis_server import RedisServer

SLOTS = 16384


class RedisCluster:
    """``servers``: the primaries at first, then a replica of each. A context manager."""

    def __init__(self, *, primaries: int = 3, replicas: int = 1, node_timeout: int = 20_000) -> None:
        """``node_timeout``: milliseconds without an answer after which a node counts as down."""
        self._bus_ports = [free_port() for _ in range(primaries * (1 + replicas))]
        self.servers = [
            RedisServer(
                settings=(
                    *("--cluster-enabled", "yes", "--cluster-port", str(port)),
                    *("--cluster-node-timeout", str(node_timeout), "--cluster-require-full-coverage", "no"),
                    *("--cluster-replica-validity-factor", "0", "--repl-diskless-load", "on-empty-db"),
                )
            )
            for port in self._bus_ports
        ]
        self._primaries = primaries
        self._ends = ExitStack()

    def __enter__(self) -> RedisCluster:
        try:
            self._start()
        except BaseException:
            self._ends.close()
            raise
        return self

    def _start(self) -> None:
        for server in self.servers:
            self._ends.callback(server.stop)
            server.start()
        for number, server in enumerate(self.servers):
            with server.client() as client:
                client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
                if number < self._primaries:
                    client.execute_command("CLUSTER", "ADDSLOTSRANGE", *self._share(number))
        for server in self.servers:
            with server.client() as client:
                for other, port in zip(self.servers, self._bus_ports, strict=True):
                    client.execute_command("CLUSTER", "MEET", "127.0.0.1", other.port, port)
        for server in self.servers:
            eventually(lambda server=server: len(self.known(server)) == len(self.servers), timeout=60)  # type: ignore[misc]
        for number, server in enumerate(self.servers[self._primaries :]):
            with server.client() as client:
                client.execute_command("CLUSTER", "REPLICATE", self.id_of(self.servers[number % self._primaries]))
        eventually(self.is_complete, timeout=60)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for server in self.servers:
            self.go_on(server)
        self._ends.close()

    def _share(self, number: int) -> tuple[int, int]:
        return number * SLOTS // self._primaries, (number + 1) * SLOTS // self._primaries - 1

    def url(self, partitions: int) -> str:
        places = ",".join(f"127.0.0.1:{server.port}" for server in self.servers[:2])
        return f"redis+cluster://{places}/?partitions={partitions}"

    def is_complete(self) -> bool:
        """Whether all nodes agree on who has which slot, and all replicas are in step."""
        views = []
        for server in self.alive():
            with server.client() as client:
                if client.execute_command("CLUSTER INFO")["cluster_state"] != "ok":
                    return False
                spans = client.execute_command("CLUSTER", "SLOTS")
                views.append({(first, last): node[1] for first, last, node, *_ in spans})
                facts = client.info("replication")
                if facts["role"] == "slave" and facts["master_link_status"] != "up":
                    return False
        return all(view == views[0] for view in views)

    def alive(self) -> list[RedisServer]:
        return [server for server in self.servers if server.process is not None]

    def known(self, server: RedisServer) -> dict[str, Any]:
        with server.client() as client:
            nodes: dict[str, Any] = client.execute_command("CLUSTER NODES")
        return {place: facts for place, facts in nodes.items() if "handshake" not in facts["flags"]}

    def id_of(self, server: RedisServer) -> str:
        with server.client() as client:
            found = client.execute_command("CLUSTER", "MYID")
        return found.decode() if isinstance(found, bytes) else str(found)

    def primaries(self) -> list[RedisServer]:
        return [server for server in self.alive() if self._role(server) == "master"]

    def owner(self, key: bytes) -> RedisServer:
        """The primary that has the slot of a key, as the nodes that answer say."""
        for server in self.primaries():
            with server.client() as client, contextlib.suppress(redis.ResponseError):
                client.execute_command("GET", key)
                return server
        raise LookupError(key)

    def replica_of(self, primary: RedisServer) -> RedisServer:
        wanted = self.id_of(primary)
        for server in self.alive():
            with server.client() as client:
                nodes = client.execute_command("CLUSTER NODES")
            mine = next(facts for facts in nodes.values() if "myself" in facts["flags"])
            if mine["master_id"] == wanted:
                return server
        raise LookupError("it has no replica")

    def empty(self) -> None:
        for server in self.primaries():
            with server.client() as client:
                client.flushall()

    def fail_over(self, primary: RedisServer) -> RedisServer:
        """In order, as before maintenance; the new primary."""
        replica = self.replica_of(primary)
        with replica.client() as client:
            client.execute_command("CLUSTER", "FAILOVER")
        eventually(lambda: self._role(replica) == "master" and self._role(primary) == "slave", timeout=30)
        return replica

    def wait_for_promotion(self, replica: RedisServer) -> None:
        eventually(lambda: self._role(replica) == "master", timeout=60)

    def settle(self, primary: RedisServer) -> None:
        """Wait until the replica of a primary has all that it has."""
        with primary.client() as client:
            facts = client.info("replication")
            eventually(
                lambda: client.info("replication")["slave0"]["offset"] >= facts["master_repl_offset"], timeout=30
            )

    def stop_replication(self, primary: RedisServer) -> RedisServer:
        """The replica of a primary keeps what it has, and gets nothing more; returns it."""
        replica = self.replica_of(primary)
        with replica.client() as client:
            client.config_set("masterauth", "wrong")
        with primary.client() as client:
            client.client_kill_filter(_type="replica")
            eventually(lambda: client.info("replication")["connected_slaves"] == 0)
        return replica

    @contextlib.contextmanager
    def moving(self, key: bytes, target: RedisServer) -> Iterator[None]:
        """Within it the slot of a key is on the move, and afterwards it is on another node."""
        source, slot = self.owner(key), key_slot(key)
        ids = {server: self.id_of(server) for server in (source, target)}
        with source.client() as old, target.client() as new:
            new.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[source])
            old.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[target])
            yield
            while keys := old.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 100):
                old.execute_command("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys)
            for server in (target, source, *self.primaries()):
                with server.client() as client:
                    client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", ids[target])

    def cut_off(self, server: RedisServer) -> None:
        """It is silent from now on, and closes nothing."""
        assert server.process
        os.kill(server.process.pid, signal.SIGSTOP)

    def go_on(self, server: RedisServer) -> None:
        if server.process is not None:
            os.kill(server.process.pid, signal.SIGCONT)

    def _role(self, server: RedisServer) -> str:
        with server.client() as client:
            return str(client.info("replication")["role"])
