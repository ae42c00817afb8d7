"""A failover of a Redis Cluster that loses messages which readers have had: those who followed them are told so at that
place, on every transport, and nobody else is sent back."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from itertools import count

import pytest

from messagebus import Bus, Client
from messagebus.client import ClientMessage, Gap
from messagebus.client.types import Transport
from messagebus.stores.hash_tags import hash_tags
from messagebus.stores.partitions import partition_of
from tests import clients as raw
from tests.eventually import eventually
from tests.readers import END, Browser, Reader
from tests.redis_cluster import RedisCluster
from tests.redis_server import RedisServer
from tests.servers import Server

pytestmark = [pytest.mark.redis, pytest.mark.slow]

P = 12
TRANSPORTS: tuple[Transport, ...] = ("websocket", "eventsource", "streaming", "long-polling", "polling")
BEFORE, LOST, AFTER = range(10), range(10, 15), range(100, 130)


class EventSource(raw.EventSource):
    """Comes back with its positions, as our own clients do, and not with the id of an event."""

    def reconnect(self) -> None:
        self.last_event_id = None
        super().reconnect()


KINDS = (raw.Polling, raw.LongPolling, raw.Streaming, EventSource, raw.WebSocket, Browser)


class Follower:
    """The Python client, and what it was told of each channel: data and gaps."""

    def __init__(self, url: str, transport: Transport, channels: list[str]) -> None:
        self.name = f"Python client, {transport}, {url}"
        self.told: dict[str, list[object]] = {channel: [] for channel in channels}
        self.client = Client(
            url,
            transports=(transport, "polling"),
            on_gap=lambda gap: self.told[gap.channel].append(gap),
            callback_interval=0.1,
            min_poll_interval=0.05,
        )
        for channel in channels:
            self.client.subscribe(channel, self._note, 0)

    def _note(self, message: ClientMessage) -> None:
        self.told[message.channel].append(message.data)

    def data(self, channel: str) -> list[object]:
        return [one for one in self.told[channel] if not isinstance(one, Gap)]

    def gaps(self, channel: str) -> list[int | None]:
        return [one.after for one in self.told[channel] if isinstance(one, Gap)]


class Scene:
    """A cluster, two servers, and readers of four channels: one that loses its newest messages, one beside it in the
    same partition, one in another partition of the same node, and one on another node."""

    def __init__(self, cluster: RedisCluster, stack: contextlib.ExitStack) -> None:
        self.cluster = cluster
        url = cluster.url(P)
        env = {"MESSAGEBUS_URL": url, "MESSAGEBUS_STORE_TIMEOUT": "3"}
        self.servers = [stack.enter_context(Server("serve", env=env)) for _ in range(2)]
        self.bus = stack.enter_context(contextlib.closing(Bus(url=url, store_timeout=3.0)))
        self._choose()
        self.readers: list[Reader] = []
        self.followers: list[Follower] = []
        turns = count()
        for channels in (*([each] for each in self.channels), self.channels):
            for kind in KINDS:
                self.readers.append(Reader(kind, self.servers[next(turns) % 2].url, channels, P))
        for server in self.servers:
            for transport in TRANSPORTS:
                follower = Follower(server.url, transport, self.channels)
                self.followers.append(follower)
                stack.enter_context(follower.client)

    def _choose(self) -> None:
        tags = hash_tags(P)
        owners = [self.cluster.owner(tag + b"x") for tag in tags]
        self.victim = owners[0]
        mine = [number for number in range(P) if owners[number] is self.victim]
        other = next(number for number in range(P) if owners[number] is not self.victim)
        self.lost, self.beside = in_partition(mine[0], 2)
        [self.untouched] = in_partition(mine[1], 1)
        [self.other] = in_partition(other, 1)
        self.channels = [self.lost, self.beside, self.untouched, self.other]
        self.partition = mine[0]

    def publish(self, numbers: range, *channels: str) -> None:
        for number in numbers:
            for channel in channels or self.channels:
                self.bus.publish(channel, number)

    def everybody_has(self, channel: str, *data: object, browsers: Sequence[object] | None = None) -> None:
        """``browsers``: what those have that know nothing of gaps."""
        for reader in self.readers:
            if channel in reader.data:
                wanted = [*data] if browsers is None or reader.kind is not Browser else [*browsers]
                eventually(
                    lambda reader=reader, wanted=wanted: reader.data[channel] == wanted or reader.trouble,  # type: ignore[misc]
                    timeout=60,
                    message=f"{reader.thread.name}: {reader.data} {reader.client.gaps} {reader.ended}",
                )
                assert reader.trouble is None, f"{reader.thread.name}: {reader.trouble!r}"
        for follower in self.followers:
            eventually(
                lambda follower=follower: follower.data(channel) == [*data],  # type: ignore[misc]
                timeout=60,
                message=f"{follower.name}: {follower.told}",
            )

    def lose_what_comes_now(self) -> RedisServer:
        """All readers have messages of the first channel that the victim's replica does not; returns that."""
        self.publish(BEFORE)
        for channel in self.channels:
            self.everybody_has(channel, *BEFORE)
        self.cluster.settle(self.victim)
        replica = self.cluster.stop_replication(self.victim)
        self.publish(LOST, self.lost, self.other)
        for channel in (self.lost, self.other):
            self.everybody_has(channel, *BEFORE, *LOST)
        return replica

    def end(self) -> None:
        for channel in self.channels:
            self.bus.publish(channel, END)
        for reader in self.readers:
            reader.thread.join(60)

    def check(self, *after: object) -> None:
        """Who followed the lost messages was told, once, and was given all that is there behind it; the others have
        each message once and no gap, and those who follow nothing of the partition have kept their connections. So do
        browsers without our client, but for the gap, of which they know nothing: they go on behind what is not lost."""
        browsers = [*BEFORE, *LOST, *after, END]
        self.everybody_has(self.lost, *BEFORE, *LOST, *BEFORE, *after, END, browsers=browsers)
        self.everybody_has(self.beside, *BEFORE, *after, END)
        self.everybody_has(self.untouched, *BEFORE, *after, END)
        self.everybody_has(self.other, *BEFORE, *LOST, *after, END)
        for reader in self.readers:
            gaps = [(channel, found["after"]) for gap in reader.client.gaps for channel, found in gap.items()]
            is_told = self.lost in reader.data and reader.kind is not Browser
            assert gaps == ([(self.lost, None)] if is_told else []), reader.thread.name
            if not {self.lost, self.beside} & set(reader.data):
                assert reader.ended == [], reader.thread.name
            if [*reader.data] == [self.other]:
                assert reader.refused == [], reader.thread.name
        for follower in self.followers:
            told = follower.told[self.lost]
            place = len(BEFORE) + len(LOST)
            assert [at for at, one in enumerate(told) if isinstance(one, Gap)] == [place], f"{follower.name}: {told}"
            gaps_of = [follower.gaps(channel) for channel in self.channels]
            assert gaps_of == [[None], [], [], []], f"{follower.name}: {follower.told}"
        for server in self.servers:
            assert "Traceback" not in server.output(), server.output()[-5000:]


def in_partition(number: int, wanted: int) -> list[str]:
    names = (f"/c{each}" for each in count())
    return [
        name
        for name, _ in zip((each for each in names if partition_of(each, P) == number), range(wanted), strict=False)
    ]


@pytest.fixture
def scene(mortal_cluster: RedisCluster) -> Iterator[Scene]:
    with contextlib.ExitStack() as stack:
        scene = Scene(mortal_cluster, stack)
        try:
            yield scene
        except BaseException:
            for server in scene.servers:
                print(server.output()[-5000:])
            raise
        finally:
            with contextlib.suppress(Exception):
                scene.end()


def killed(scene: Scene, replica: RedisServer) -> None:
    scene.victim.kill()


def silent(scene: Scene, replica: RedisServer) -> None:
    scene.cluster.cut_off(scene.victim)


def pushed_aside(scene: Scene, replica: RedisServer) -> None:
    """By its replica, which asks nobody; it is alive, and comes to be that one's replica."""
    with replica.client() as client:
        client.execute_command("CLUSTER", "FAILOVER", "TAKEOVER")
    eventually(lambda: scene.victim not in scene.cluster.primaries())  # what it took until then would be lost as well


@pytest.mark.parametrize("fails", [killed, silent, pushed_aside])
def test_who_has_seen_what_a_failover_lost_is_told_there_and_nobody_else(
    scene: Scene, fails: Callable[[Scene, RedisServer], None]
) -> None:
    replica = scene.lose_what_comes_now()
    fails(scene, replica)
    if fails is silent:  # what it is sent now, it would do when it goes on: its readers could have that as well
        scene.cluster.wait_for_promotion(replica)
    scene.publish(AFTER)  # waits in memory where it has to, and gives the lost ids again
    scene.cluster.wait_for_promotion(replica)
    if fails is silent:
        eventually(lambda: scene.readers[0].data[scene.lost][-1] == AFTER[-1], timeout=60)
        scene.cluster.go_on(scene.victim)
        eventually(lambda: scene.victim not in scene.cluster.primaries(), timeout=60)
    scene.end()
    scene.check(*AFTER)
