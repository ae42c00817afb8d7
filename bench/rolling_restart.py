"""``python -m bench.rolling_restart``: whether a deployment is noticed.

nginx with the configuration of ``deploy/``, two servers, one Redis, clients on every transport, messages all the time;
the servers are restarted in turn. Every client must get every message once and in order. Measured: how long clients
were without a connection, and how long messages took.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from messagebus import AsyncClient, Bus
from messagebus.client import ClientMessage, StateInfo
from messagebus.client.types import TRANSPORTS, ConnectionState, Transport

from . import machine
from .processes import ROOT, Process, free_port, stop_all, stop_on_signals
from .redis_server import RedisServer

FOLLOWERS = 5
"""Clients of each channel, one on each transport."""
ALLOWED = 0.2
"""Seconds that a client may be without a connection, but for one in a hundred."""
DRAIN = 4.0
"""Seconds, the ``--drain`` of the servers; it is over sooner when all clients have moved."""
LAST_SECONDS = 60.0
"""How long the last messages may take."""


@dataclass(eq=False)
class Follower:
    """A client, what it got, and when it had no connection. Times are in seconds."""

    channel: str
    transport: Transport
    client: AsyncClient = field(init=False)
    seen: int = 0
    faults: list[str] = field(default_factory=list)
    gaps: list[float] = field(default_factory=list)
    delays: list[float] = field(default_factory=list)
    without_since: float | None = None

    def follow(self, url: str) -> None:
        self.client = AsyncClient(
            url,
            transports=(self.transport,),
            callback_interval=0.5,
            on_state_change=self._on_state,
            on_gap=self._on_gap,
        )
        self.client.subscribe(self.channel, self._on_message, 0)

    def _on_message(self, message: ClientMessage) -> None:
        if message.message_id != self.seen + 1:
            self.faults.append(f"{self.transport} {self.channel}: {message.message_id} came after {self.seen}")
        self.seen = message.message_id
        self.delays.append(time.time() - message.data)

    def _on_gap(self, gap: object) -> None:
        self.faults.append(f"{self.transport}: {gap}")

    def _on_state(self, state: ConnectionState, info: StateInfo) -> None:
        now = time.monotonic()
        if state == "reconnecting":
            self.without_since = self.without_since or now
        elif self.without_since is not None:
            self.gaps.append(now - self.without_since)
            self.without_since = None


@dataclass
class Verdict:
    """What came of it. Times are in seconds."""

    clients: int
    restarts: int
    published: int
    delivered: int
    faults: list[str]
    """Messages that were lost or came twice or in another order; clients that had no connection at the end."""
    gaps: dict[Transport, list[float]]
    """For each client and each restart the time without a connection."""
    delays: dict[Transport, list[float]]
    """From publish to callback, sorted."""

    @property
    def gap(self) -> float:
        """The time without a connection that one in a hundred exceeded."""
        return quantile(sorted(gap for gaps in self.gaps.values() for gap in gaps), 0.99)

    def lines(self) -> list[str]:
        """For people."""
        told = [
            f"{self.clients} clients, {self.restarts} restarts, {self.published} messages, {self.delivered} deliveries",
            f"lost, twice or out of order: {len(self.faults)}",
            *self.faults[:10],
            f"without a connection: p99 {1000 * self.gap:.0f} ms",
        ]
        for transport, gaps in self.gaps.items():
            some = sorted(gap for gap in gaps if gap)
            longest = some[-1] if some else 0.0
            told.append(
                f"  {transport}: {len(some)} times in {len(gaps)}, the longest {1000 * longest:.0f} ms; from publish "
                "to callback "
                + ", ".join(
                    f"p{q:g} {1000 * quantile(self.delays[transport], q / 100):.0f} ms" for q in (50, 99, 99.9, 100)
                )
            )
        return told


def quantile(values: Sequence[float], share: float) -> float:
    """Of sorted values; 0 of none."""
    return values[min(len(values) - 1, int(len(values) * share))] if values else 0.0


# --- the servers ---


class Instance:
    """One of the two servers."""

    def __init__(self, redis: RedisServer, drain: float) -> None:
        self._drain = drain
        self.port = free_port()
        self._command = [
            *(sys.executable, "-m", "messagebus", "serve", "--bind", f"127.0.0.1:{self.port}", "--url", redis.url()),
            *("--drain", str(drain), "--allowed-host", "127.0.0.1"),
        ]
        self.start()

    def start(self) -> None:
        self.process = Process(self._command, None)
        deadline = time.monotonic() + 60.0
        while "listening on" not in self.process.output():
            if time.monotonic() > deadline:
                raise RuntimeError(self.process.output())
            time.sleep(0.02)

    def stop(self) -> None:
        self.process.stop()

    def restart(self) -> None:
        self.process.end(self._drain + 20.0)
        self.start()


def nginx_configuration(directory: Path, port: int, instances: Sequence[Instance]) -> str:
    """That of ``deploy/``, without TLS and as one process."""
    text = (ROOT / "deploy/nginx/messagebus.conf").read_text()
    before, _, after = text.partition("server {\n    listen 80;")
    secure = after.partition("}\n")[2]
    lines = [line for line in (before + secure).splitlines() if not line.strip().startswith("ssl_")]
    deployed = "\n".join(lines)
    for old, new in {
        "listen 443 ssl;": f"listen 127.0.0.1:{port} backlog=4096;",
        "127.0.0.1:8000": f"127.0.0.1:{instances[0].port}",
        "unix:/run/messagebus/app.sock": f"127.0.0.1:{instances[1].port}",
    }.items():
        assert deployed.count(old) == 1, old
        deployed = deployed.replace(old, new)
    paths = "".join(f"{kind}_temp_path {directory}/{kind};\n" for kind in ("proxy", "fastcgi", "uwsgi", "scgi"))
    return (
        f"daemon off;\nmaster_process off;\npid {directory}/pid;\nerror_log {directory}/error.log;\n"
        f"worker_rlimit_nofile 8192;\nevents {{ worker_connections 4096; }}\n"
        f"http {{\naccess_log off;\nclient_body_temp_path {directory}/body;\n{paths}{deployed}\n}}\n"
    )


@contextmanager
def proxied(instances: Sequence[Instance]) -> Iterator[str]:
    """nginx before them; its address."""
    executable = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    assert executable, "nginx is missing"
    with tempfile.TemporaryDirectory(prefix="messagebus-bench-") as name:
        directory, port = Path(name), free_port()
        (directory / "nginx.conf").write_text(nginx_configuration(directory, port, instances))
        process = Process([executable, "-p", name, "-e", f"{name}/error.log", "-c", "nginx.conf"], None)
        try:
            process.wait_for(port)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.stop()


# --- the run ---


def publish(bus: Bus, channels: Sequence[str], rate: float, stop: threading.Event, counts: dict[str, int]) -> None:
    """So many messages a second, on one channel after the other, until told to stop."""
    began, number = time.monotonic(), 0
    while not stop.is_set():
        channel = channels[number % len(channels)]
        bus.publish(channel, time.time())
        counts[channel] += 1
        number += 1
        stop.wait(max(0.0, began + number / rate - time.monotonic()))


async def watch(
    url: str, instances: Sequence[Instance], bus: Bus, clients: int, restarts: int, every: float, rate: float
) -> Verdict:
    """Follow while messages are published and servers restarted, and judge."""
    channels = [f"/rolling-{number}" for number in range(max(1, clients // FOLLOWERS))]
    followers = [Follower(channel, transport) for channel in channels for transport in TRANSPORTS]
    for follower in followers:
        follower.follow(url)
        follower.client.start()
    for follower in followers:
        if not await follower.client.wait_connected(60.0):
            follower.faults.append(f"{follower.transport} did not connect: {follower.client.stats.last_error}")
    counts = dict.fromkeys(channels, 0)
    stop = threading.Event()
    publisher = threading.Thread(target=publish, args=(bus, channels, rate, stop, counts))
    publisher.start()
    gaps: dict[Transport, list[float]] = {transport: [] for transport in TRANSPORTS}
    try:
        for number in range(restarts):
            began = time.monotonic()
            await asyncio.to_thread(instances[number % 2].restart)
            await asyncio.sleep(max(0.0, began + every - time.monotonic()))
            for follower in followers:
                gaps[follower.transport].append(sum(follower.gaps))
                follower.gaps.clear()
    finally:
        stop.set()
        await asyncio.to_thread(publisher.join)
    deadline = time.monotonic() + LAST_SECONDS
    while time.monotonic() < deadline and any(one.seen < counts[one.channel] for one in followers):
        await asyncio.sleep(0.05)
    faults = [fault for follower in followers for fault in follower.faults]
    for one in followers:
        if one.seen != counts[one.channel]:
            faults.append(f"{one.transport} {one.channel}: has {one.seen} of {counts[one.channel]}")
        if one.without_since is not None:
            faults.append(f"{one.transport} {one.channel}: has no connection")
    await asyncio.gather(*(follower.client.stop() for follower in followers))
    delays = {name: sorted(d for one in followers if one.transport == name for d in one.delays) for name in TRANSPORTS}
    delivered = sum(map(len, delays.values()))
    return Verdict(len(followers), restarts, sum(counts.values()), delivered, faults, gaps, delays)


def judge(*, clients: int, restarts: int, every: float, rate: float, drain: float = DRAIN) -> Verdict:
    """``every``: seconds between the beginnings of two restarts, at least. ``rate``: messages a second. ``drain``:
    seconds."""
    with ExitStack() as stack:
        redis = RedisServer()
        stack.callback(redis.stop)
        instances = []
        for _ in range(2):
            instances.append(Instance(redis, drain))
            stack.callback(instances[-1].stop)
        url = stack.enter_context(proxied(instances))
        bus = Bus(url=redis.url())
        stack.callback(bus.close)
        return asyncio.run(watch(url, instances, bus, clients, restarts, every, rate))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.rolling_restart", description=__doc__)
    parser.add_argument("--clients", type=int, default=500)
    parser.add_argument("--restarts", type=int, default=12)
    parser.add_argument("--every", type=float, default=10.0, help="seconds from one restart to the next")
    parser.add_argument("--rate", type=float, default=200.0, help="messages a second")
    given: Any = parser.parse_args()
    machine.allow_many_files()
    stop_on_signals()
    try:
        verdict = judge(clients=given.clients, restarts=given.restarts, every=given.every, rate=given.rate)
    finally:
        stop_all()
    print(f"{machine.describe()}; load average {machine.load():.2f}", *verdict.lines(), sep="\n")
    return int(bool(verdict.faults) or verdict.gap > ALLOWED)


if __name__ == "__main__":
    sys.exit(main())
