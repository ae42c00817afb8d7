"""A Redis Cluster of some nodes without replicas, all on the load's core; nothing on disk."""

from __future__ import annotations

import shutil
import tempfile
import time
from typing import Any

import redis

from .machine import LOAD_CORE
from .processes import Process, free_port

SLOTS = 16384
PARTITIONS = 64


class RedisCluster:
    def __init__(self, nodes: int) -> None:
        self.ports = [free_port() for _ in range(nodes)]
        bus_ports = [free_port() for _ in range(nodes)]
        self._directories = [tempfile.TemporaryDirectory(prefix="messagebus-bench-") for _ in range(nodes)]
        executable = shutil.which("redis-server")
        assert executable, "redis-server is missing; make bench installs it"
        self._processes = [
            Process(
                [
                    *(executable, "--bind", "127.0.0.1", "--port", str(port), "--dir", directory.name),
                    *("--save", "", "--appendonly", "no", "--cluster-enabled", "yes"),
                    *("--cluster-port", str(bus_port), "--client-output-buffer-limit", "pubsub 0 0 0"),
                ],
                LOAD_CORE,
            )
            for port, bus_port, directory in zip(self.ports, bus_ports, self._directories, strict=True)
        ]
        for process, port in zip(self._processes, self.ports, strict=True):
            process.wait_for(port)
        self.clients: list[Any] = [redis.Redis(port=port, protocol=2) for port in self.ports]
        for number, client in enumerate(self.clients):
            client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            first, behind = number * SLOTS // nodes, (number + 1) * SLOTS // nodes
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", first, behind - 1)
        for client in self.clients:
            for port, bus_port in zip(self.ports, bus_ports, strict=True):
                client.execute_command("CLUSTER", "MEET", "127.0.0.1", port, bus_port)
        deadline = time.monotonic() + 60
        while not all(self._knows_all(client) for client in self.clients):
            assert time.monotonic() < deadline, "the nodes do not find each other"
            time.sleep(0.1)

    def _knows_all(self, client: Any) -> bool:
        facts = client.execute_command("CLUSTER INFO")
        return bool(facts["cluster_state"] == "ok") and facts["cluster_slots_ok"] == str(SLOTS)

    def url(self) -> str:
        return f"redis+cluster://127.0.0.1:{self.ports[0]}/?partitions={PARTITIONS}"

    def stop(self) -> None:
        for client in self.clients:
            client.close()
        for process in self._processes:
            process.stop()
        for directory in self._directories:
            directory.cleanup()
