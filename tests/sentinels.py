"""A primary, its replicas and their sentinels on this machine, to be killed, stopped and failed over."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType

import redis

from .eventually import eventually
from .ports import free_port
from .redis_server import RedisServer

NAME = "bus"
DOWN_AFTER = 300
"""Milliseconds without an answer after which a server counts as down."""


class Sentinel:
    """``redis-server --sentinel``, from ``start`` to ``stop``."""

    def __init__(
        self,
        primary: int,
        *,
        quorum: int = 1,
        password: str | None = None,
        rules: str = "",
        down_after: int = DOWN_AFTER,
    ) -> None:
        """``rules``: of a user ``asker``, without whom nobody may ask then."""
        self._directory = tempfile.TemporaryDirectory(prefix="messagebus-sentinel-")
        self.port = free_port()
        lines = [
            *("bind 127.0.0.1", f"port {self.port}", f"dir {self._directory.name}", "sentinel resolve-hostnames no"),
            *(f"sentinel monitor {NAME} 127.0.0.1 {primary} {quorum}", f"sentinel failover-timeout {NAME} 5000"),
            f"sentinel down-after-milliseconds {NAME} {down_after}",
            *([f"sentinel auth-pass {NAME} {password}"] if password else []),
            *([f"user asker on >s3ntinel {rules}", "user default off"] if rules else []),
        ]
        self._file = Path(self._directory.name) / "sentinel.conf"
        self._file.write_text("\n".join(lines) + "\n")
        self._rules = rules
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> Sentinel:
        executable = shutil.which("redis-server")
        assert executable
        with self._file.with_name("log").open("ab") as output:
            command = [executable, str(self._file), "--sentinel"]
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)

        def answers() -> bool:
            assert self.process
            assert self.process.poll() is None, self._file.with_name("log").read_text()
            with suppress(redis.ConnectionError):
                return bool(self.client().ping())
            return False

        eventually(answers)
        return self

    def client(self) -> redis.Redis:
        user = {"username": "asker", "password": "s3ntinel"} if self._rules else {}
        return redis.Redis(host="127.0.0.1", port=self.port, protocol=2, **user)  # type: ignore[arg-type]

    def restart(self) -> None:
        """It is killed, and comes back with what it has written down."""
        assert self.process
        self.process.kill()
        self.process.wait()
        self.start()

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        self._directory.cleanup()


class SentinelGroup:
    """``servers[0]`` is the primary at first. A context manager."""

    def __init__(
        self,
        *,
        replicas: int = 1,
        sentinels: int = 1,
        password: str | None = None,
        rules: str = "",
        down_after: int = DOWN_AFTER,
    ) -> None:
        own = ("--masterauth", password) if password else ()
        self.servers = [RedisServer(password=password, settings=own)]
        port = str(self.servers[0].port)
        settings = ("--replicaof", "127.0.0.1", port, "--repl-diskless-load", "on-empty-db", *own)
        self.servers += [RedisServer(password=password, settings=settings) for _ in range(replicas)]
        quorum = sentinels // 2 + 1
        self.sentinels = [
            Sentinel(self.servers[0].port, quorum=quorum, password=password, rules=rules, down_after=down_after)
            for _ in range(sentinels)
        ]
        self._ends = ExitStack()
        self._password = password

    def __enter__(self) -> SentinelGroup:
        for server in self.servers:
            self._ends.callback(server.stop)
            server.start()
        eventually(lambda: self.linked(self.servers[0]) == len(self.servers) - 1)
        for sentinel in self.sentinels:
            self._ends.callback(sentinel.stop)
            sentinel.start()
        self.wait_until_complete()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for server in self.servers:
            self.go_on(server)
        self._ends.close()

    @property
    def url(self) -> str:
        who = f":{self._password}@" if self._password else ""
        places = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        return f"redis+sentinel://{who}{places}/{NAME}/0"

    def linked(self, server: RedisServer) -> int:
        """Replicas that a server has now."""
        with server.client() as client:
            return sum(each["state"] == "online" for each in _replicas(client.info("replication")))

    def settle(self) -> None:
        """Wait until every replica has all that the primary has."""
        with self.primary().client() as client:
            client.set("settled", 1)
            assert client.wait(len(self.servers) - 1, 10_000) == len(self.servers) - 1

    def primary(self) -> RedisServer:
        """As the first sentinel says."""
        with self.sentinels[0].client() as client:
            port = int(client.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME)[1])
        return next(server for server in self.servers if server.port == port)

    def fail_over(self) -> RedisServer:
        """In order, as before maintenance; the new primary."""
        before = self.primary()
        with self.sentinels[0].client() as client:
            # Refused until the sentinel has heard of a replica that is fit.
            def begins() -> bool:
                with suppress(redis.ResponseError):
                    return bool(client.execute_command("SENTINEL", "FAILOVER", NAME))
                return False

            eventually(begins)
        return self.wait_for_another(before)

    def fail_over_without_loss(self) -> RedisServer:
        """The same, where the old primary takes no more writes from a moment before: until it is a replica, it would
        lose them."""
        with self.primary().client() as client:
            client.config_set("min-replicas-to-write", 99)

            def all_have_all() -> bool:
                facts = client.info("replication")
                ends = {each["offset"] for each in _replicas(facts)}
                return ends == {facts["master_repl_offset"]}

            eventually(all_have_all)
            new = self.fail_over()
            # The sentinels know of the new primary before the old one is told that it is none any more.
            eventually(lambda: client.info("replication")["role"] == "slave")
            client.config_set("min-replicas-to-write", 0)
        return new

    def wait_for_another(self, before: RedisServer) -> RedisServer:
        eventually(lambda: self.primary() is not before, timeout=30)
        return self.primary()

    def stop_replication(self) -> None:
        """The replicas keep what they have, and get nothing more of the primary that is there now."""
        primary = self.primary()
        for server in self.servers:
            if server is not primary:
                with server.client() as client:
                    client.config_set("masterauth", "wrong")
        with primary.client() as client:
            client.client_kill_filter(_type="replica")
        eventually(lambda: self.linked(primary) == 0)

    def cut_off(self, server: RedisServer) -> None:
        """It is silent from now on, and closes nothing."""
        assert server.process
        os.kill(server.process.pid, signal.SIGSTOP)

    def go_on(self, server: RedisServer) -> None:
        if server.process is not None:
            os.kill(server.process.pid, signal.SIGCONT)

    def wait_until_complete(self) -> None:
        """Until each sentinel knows all the others, and all replicas."""
        eventually(self._is_complete)

    def _is_complete(self) -> bool:
        for sentinel in self.sentinels:
            with sentinel.client() as client:
                found = client.execute_command("SENTINEL", "MASTER", NAME)
                facts = found if isinstance(found, dict) else dict(zip(found[::2], found[1::2], strict=True))
                facts = {_text(key): _text(value) for key, value in facts.items()}
                others = len(self.sentinels) - 1
                if (int(facts["num-slaves"]), int(facts["num-other-sentinels"])) != (len(self.servers) - 1, others):
                    return False
        return True


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _replicas(facts: dict[str, object]) -> list[dict[str, object]]:
    return [value for key, value in facts.items() if key.startswith("slave") and isinstance(value, dict)]
