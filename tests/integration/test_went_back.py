"""Ids that would begin again under everybody who follows a channel: on every transport, through two servers."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from messagebus import Bus, Client
from messagebus.client import ClientMessage, Gap
from messagebus.client.types import Transport

from ..clients import LongPolling, WebSocket, request
from ..eventually import eventually
from ..fixtures_servers import ServeApp
from ..postgres_server import PostgresServer
from ..readers import END, Browser, Reader
from ..redis_server import RedisServer
from ..servers import Server
from .test_redis import publish_as_another_program

TRANSPORTS: tuple[Transport, ...] = ("websocket", "eventsource", "streaming", "long-polling", "polling")
CHANNEL = "/orders"


class Follower:
    """A client, and what it was told."""

    def __init__(self, server: Server, transport: Transport) -> None:
        self.name = f"{transport} on {server.url}"
        self.told: list[Any] = []
        """Data of messages, and gaps."""
        self.client = Client(
            server.url,
            transports=(transport, "polling"),
            on_gap=self.told.append,
            callback_interval=0.1,
            min_poll_interval=0.05,
        )
        self.client.subscribe(CHANNEL, self._note, 0)

    def _note(self, message: ClientMessage) -> None:
        self.told.append(message.data)

    @property
    def gaps(self) -> list[Gap]:
        return [one for one in self.told if isinstance(one, Gap)]

    @property
    def data(self) -> list[Any]:
        return [one for one in self.told if not isinstance(one, Gap)]

    @property
    def since(self) -> list[Any]:
        """The data since the last gap."""
        told = list(self.told)
        begin = max((number for number, one in enumerate(told, 1) if isinstance(one, Gap)), default=0)
        return told[begin:]


class Crowd:
    """Two servers on one store, and a follower on each for each transport."""

    def __init__(self, serve_app: ServeApp, url: str, stack: contextlib.ExitStack) -> None:
        environment = {"MESSAGEBUS_URL": url, "MESSAGEBUS_STORE_TIMEOUT": "1"}
        self.shared = url != "memory://"
        self.servers = [serve_app("serve", env=environment) for _ in range(2 if self.shared else 1)]
        self.bus = stack.enter_context(contextlib.closing(Bus(url=url)))
        self.followers = [Follower(server, transport) for server in self.servers for transport in TRANSPORTS]
        for follower in self.followers:
            stack.enter_context(follower.client)

    def publish(self, *data: Any, channel: str = CHANNEL, **options: Any) -> None:
        for each in data:
            if self.shared:
                self.bus.publish(channel, each, **options)
            else:
                body = json.dumps({"channel": channel, "data": each, **options})
                with request(self.servers[0].url, "POST", "/publish", body, {"Content-Type": "application/json"}) as r:
                    assert r.status == 200

    def have_heard(self, *data: Any) -> None:
        """Everybody has heard this, and nothing else."""
        for follower in self.followers:
            eventually(
                lambda follower=follower: follower.data == list(data),  # type: ignore[misc]
                message=f"{follower.name}: {follower.told}",
            )
            assert follower.gaps == []

    def hear_once(self, *new: Any) -> None:
        """Everybody hears new messages once; who was told a gap may hear older ones again behind it, once as well."""
        for follower in self.followers:

            def heard(follower: Follower = follower) -> bool:
                return follower.data[-len(new) :] == list(new)

            eventually(heard, message=f"{follower.name} wants {new}: {follower.told[-60:]}")
            for one in new:
                assert follower.data.count(one) == 1, f"{follower.name}: {follower.told}"
            assert len(set(follower.since)) == len(follower.since), f"{follower.name}: {follower.told}"
            assert len(follower.gaps) <= 2, f"{follower.name}: {follower.told}"

    def everybody_was_told(self) -> None:
        for follower in self.followers:
            assert [gap.after for gap in follower.gaps] == [None], f"{follower.name}: {follower.told}"


@pytest.fixture
def stack() -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as stack:
        yield stack


def newcomers(crowd: Crowd) -> list[list[Any]]:
    """What a new page is given from position 0, through each server."""
    given = []
    for server in crowd.servers:
        with WebSocket.connect(server.url, {CHANNEL: 0, "/end": 0}) as page:
            crowd.publish("end", channel="/end")
            page.messages(1)
            while page.received[-1]["channel"] != "/end":
                page.messages(1)
            given.append([message["data"] for message in page.received if message["channel"] == CHANNEL])
    return given


@pytest.fixture(
    params=[
        "memory",
        pytest.param("redis", marks=pytest.mark.redis),
        pytest.param("postgres", marks=pytest.mark.postgres),
    ]
)
def url(request: pytest.FixtureRequest) -> str:
    if request.param == "memory":
        return "memory://"
    found: str = request.getfixturevalue(f"{request.param}_url")
    return found


def test_messages_with_a_short_age_reach_who_just_waits_and_new_pages_get_none_that_are_over(
    url: str, serve_app: ServeApp, stack: contextlib.ExitStack
) -> None:
    crowd = Crowd(serve_app, url, stack)
    crowd.publish(*range(5), max_backlog_age=1)
    crowd.have_heard(*range(5))
    over = time.monotonic() + 1.2
    eventually(lambda: time.monotonic() > over)
    crowd.publish("a", "b", "c", max_backlog_age=10)
    crowd.have_heard(*range(5), "a", "b", "c")
    assert newcomers(crowd) == [["a", "b", "c"] for _ in crowd.servers]


@pytest.mark.redis
@pytest.mark.parametrize(
    "lost",
    [
        ["__mb_backlog_id_n_/orders"],
        ["__mb_backlog_id_n_/orders", "__mb_backlog_n_/orders"],
        ["__mb_global_id_n"],
        ["__mb_global_id_n", "__mb_global_backlog_n"],
    ],
    ids=" ".join,
)
def test_keys_that_vanish_under_followers_cost_them_nothing(
    redis_url: str, serve_app: ServeApp, stack: contextlib.ExitStack, lost: list[str]
) -> None:
    crowd = Crowd(serve_app, redis_url, stack)
    crowd.publish(*range(20))
    crowd.have_heard(*range(20))
    with redis.Redis.from_url(redis_url) as client:
        client.delete(*lost)
    crowd.publish("a", "b", "c", "d", "e")
    crowd.hear_once("a", "b", "c", "d", "e")
    if len(lost) == 1:
        crowd.have_heard(*range(20), "a", "b", "c", "d", "e")
        with LongPolling.connect(crowd.servers[0].url, {CHANNEL: -4}) as page:
            assert page.data(3) == ["c", "d", "e"]


@pytest.mark.redis
@pytest.mark.parametrize(
    "lost",
    [["__mb_epoch"], ["__mb_epoch", "__mb_backlog_id_n_/orders"]],
    ids=" ".join,
)
def test_keys_without_which_nobody_knows_what_was_there_make_another_life_for_everybody(
    redis_url: str, serve_app: ServeApp, stack: contextlib.ExitStack, lost: list[str]
) -> None:
    crowd = Crowd(serve_app, redis_url, stack)
    crowd.publish(*range(20))
    crowd.have_heard(*range(20))
    with redis.Redis.from_url(redis_url) as client:
        client.delete(*lost)
    crowd.publish("a", "b", "c", "d", "e")
    crowd.hear_once("a", "b", "c", "d", "e")
    crowd.everybody_was_told()


@pytest.mark.redis
def test_a_browser_without_our_client_misses_nothing_of_a_store_that_was_emptied_and_filled_past_its_last_id(
    redis_url: str, serve_app: ServeApp, stack: contextlib.ExitStack
) -> None:
    server = serve_app("serve", env={"MESSAGEBUS_URL": redis_url})
    bus = stack.enter_context(contextlib.closing(Bus(url=redis_url)))
    bus.publish_many([(CHANNEL, number) for number in range(20)])
    reader = Reader(Browser, server.url, [CHANNEL])
    eventually(lambda: reader.data[CHANNEL] == [*range(20)])
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()
    bus.publish_many([(CHANNEL, 100 + number) for number in range(50)])
    bus.publish(CHANNEL, END)
    reader.thread.join(60)
    assert reader.trouble is None
    assert reader.data[CHANNEL] == [*range(20), *range(100, 150), END]
    assert [gap[CHANNEL]["after"] for gap in reader.client.gaps] == [None]


@pytest.mark.redis
@pytest.mark.parametrize("count", [3, 30])
def test_another_program_that_begins_the_ids_again_is_heard_and_who_was_away_is_told(
    redis_url: str, serve_app: ServeApp, stack: contextlib.ExitStack, count: int
) -> None:
    crowd = Crowd(serve_app, redis_url, stack)
    crowd.publish(*range(20))
    crowd.have_heard(*range(20))
    away = WebSocket.connect(crowd.servers[0].url, {CHANNEL: 20})
    while away.epoch is None:
        away.next_batch()
    away.cut()
    new = [100 + number for number in range(count)]
    with redis.Redis.from_url(redis_url) as client:
        client.delete("__mb_backlog_id_n_/orders", "__mb_backlog_n_/orders")
        for data in new:
            envelope = '{"data":%d,"user_ids":null,"group_ids":null,"client_ids":null}'
            publish_as_another_program(client, CHANNEL, CHANNEL, envelope % data)
    crowd.hear_once(*new)
    crowd.everybody_was_told()
    away.reconnect()
    assert away.data(count) == new
    assert [gap[CHANNEL]["after"] for gap in away.gaps] == [None]
    away.cut()


@pytest.mark.redis
def test_an_older_snapshot_that_was_written_past_the_old_ids_is_told_to_everybody_also_to_who_was_away(
    serve_app: ServeApp, mortal_redis: RedisServer, stack: contextlib.ExitStack
) -> None:
    crowd = Crowd(serve_app, mortal_redis.url, stack)
    crowd.publish(*range(10))
    with mortal_redis.client() as client:
        client.save()
    crowd.publish(*range(10, 15))
    crowd.have_heard(*range(15))
    away = WebSocket.connect(crowd.servers[0].url, {CHANNEL: 15})
    while away.epoch is None:
        away.next_batch()
    away.cut()
    mortal_redis.kill()
    mortal_redis.start(hidden=True)
    new = [100 + number for number in range(60)]
    with contextlib.closing(Bus(url=mortal_redis.unix_url)) as publisher:
        for data in new:
            publisher.publish(CHANNEL, data)
    mortal_redis.show()
    crowd.hear_once(*new)
    crowd.everybody_was_told()
    away.reconnect()
    assert away.data(70) == [*range(10), *new]
    assert [gap[CHANNEL]["after"] for gap in away.gaps] == [None]
    away.cut()


@pytest.mark.postgres
def test_tables_dropped_by_a_migration_are_made_again_and_every_client_learns_it(
    serve_app: ServeApp, postgres_url: str, postgres_server: PostgresServer, stack: contextlib.ExitStack
) -> None:
    crowd = Crowd(serve_app, postgres_url, stack)
    crowd.publish(*range(5))
    crowd.have_heard(*range(5))
    with postgres_server.client() as client:
        rows = client.execute("SELECT tablename FROM pg_tables WHERE tablename LIKE 'messagebus%'").fetchall()
        client.execute(f"DROP TABLE {', '.join(name for (name,) in rows)} CASCADE")
    new = [100 + number for number in range(10)]
    crowd.publish(*new)
    crowd.hear_once(*new)
    crowd.everybody_was_told()
