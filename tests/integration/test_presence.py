"""Who is there, over several servers on one store."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from messagebus.client import Client as Program
from messagebus.client import ClientMessage
from tests.clients import TRANSPORTS, Client, Ended, EventSource, LongPolling, Polling, Refused, WebSocket, request
from tests.eventually import eventually
from tests.redis_server import RedisServer
from tests.servers import Server

ROOM = "/rooms/7"
WATCH = "/__presence/rooms/7"
GRACE = 1.0

StartServers = Callable[..., list[Server]]


def _show(server: Server) -> None:
    print(f"--- {server.url} said:\n{server.output()[-10_000:]}")


@pytest.fixture(
    params=[
        "sqlite",
        pytest.param("redis", marks=pytest.mark.redis),
        pytest.param("postgres", marks=pytest.mark.postgres),
    ]
)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/bus.db"
    found: str = request.getfixturevalue(f"{request.param}_url")
    return found


@pytest.fixture
def start(tmp_path: Path) -> Iterator[StartServers]:
    with contextlib.ExitStack() as stack:

        def start(
            number: int = 2, url: str = f"sqlite:///{tmp_path}/bus.db", kind: str = "serve", **env: str
        ) -> list[Server]:
            settings = {"MESSAGEBUS_URL": url, "MESSAGEBUS_PRESENCE_GRACE": str(GRACE), **env}
            found = [Server(kind, "tests.apps.presence:app", env=settings) for _ in range(number)]
            for server in found:
                stack.callback(server.close)
                stack.callback(partial(_show, server))
                server.start()
            return found

        yield start


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """For the tests that need no other."""
    env = {
        "MESSAGEBUS_URL": "memory://",
        "MESSAGEBUS_PRESENCE_GRACE": str(GRACE),
        "POLL_SECONDS": "1",
    }
    with Server("serve", "tests.apps.presence:app", env=env) as server:
        yield server


def members(server: Server, channel: str = ROOM, site: str = "") -> list[str]:
    status, body = server.get(f"/members?channel={channel}" + (f"&site={site}" if site else ""))
    assert status == 200, body
    found = json.loads(body)
    assert found["count"] == len(found["members"])
    return [member for member, _ in found["members"]]


def tell(server: Server, path: str, **given: Any) -> None:
    with request(server.url, "POST", path, json.dumps(given).encode(), {"Content-Type": "application/json"}) as answer:
        assert answer.status == 200


def _has(number: int, found: dict[str, Any]) -> bool:
    return len(found) == number


class Watcher:
    """What a client knows of a room by what it is told."""

    def __init__(self, client: Client, channel: str = WATCH) -> None:
        self.client = client
        self.channel = channel
        self.members: dict[str, Any] = {}
        self.events: list[tuple[str, str]] = []

    def follow(self, until: Callable[[dict[str, Any]], bool]) -> None:
        while not until(self.members):
            for message in self.client.messages(1, resume=True):
                if message["channel"] == self.channel:
                    self.take(message["data"])

    def take(self, data: dict[str, Any]) -> None:
        before = set(self.members)
        if "members" in data:
            self.members = {each["id"]: each["info"] for each in data["members"]}
        else:
            self.members |= {each["id"]: each["info"] for each in data["joined"]}
            for left in data["left"]:
                self.members.pop(left, None)
        self.events += [("joined", each) for each in sorted(set(self.members) - before)]
        self.events += [("left", each) for each in sorted(before - set(self.members))]
        assert len(self.members) == data["count"]


def test_who_is_there_is_the_same_in_every_process_and_for_every_watcher(url: str, start: StartServers) -> None:
    one, other = start(url=url, HOOKS="1")
    with contextlib.ExitStack() as stack:

        def enter(server: Server, who: str, kind: type[Client] = WebSocket, site: str = "") -> Client:
            headers = {"X-User": who, **({"X-Site": site} if site else {})}
            return stack.enter_context(kind.connect(server.url, {ROOM: -1}, headers=headers, epoch=""))

        log = stack.enter_context(WebSocket.connect(one.url, {"/log": 0}))
        watchers = [
            Watcher(stack.enter_context(kind.connect(server.url, {WATCH: -1})))
            for kind, server in ((WebSocket, one), (EventSource, other))
        ]
        tabs = [enter(one, "ann"), enter(other, "ann", EventSource), enter(other, "ann")]
        bob = enter(other, "bob")
        enter(one, "ann", site="other")
        for server in (one, other):
            eventually(lambda server=server: members(server) == ["ann", "bob"])  # type: ignore[misc]
            eventually(lambda server=server: members(server, site="other") == ["ann"])  # type: ignore[misc]
        tell(other, "/join", channel=ROOM, id="robot", info={"name": "Robot"})
        for watcher in watchers:
            watcher.follow(lambda found: len(found) == 3)
            assert watcher.members["ann"] == {"name": "Ann"}
        bob.cut()
        tell(one, "/leave", channel=ROOM, id="robot")
        for tab in tabs[:2]:
            tab.cut()
        for watcher in watchers:
            watcher.follow(lambda found: list(found) == ["ann"])
        tabs[2].cut()
        for watcher in watchers:
            watcher.follow(lambda found: not found)
            joined = [("joined", "ann"), ("joined", "bob"), ("joined", "robot")]
            left = [("left", "ann"), ("left", "bob"), ("left", "robot")]
            assert sorted(watcher.events) == joined + left
        events = sorted(tuple(each) for each in log.data(7))
        assert events == sorted(
            [("joined", ROOM, "ann")] * 2
            + [(event, ROOM, who) for event in ("joined", "left") for who in ("bob", "robot")]
            + [("left", ROOM, "ann")]
        )


@pytest.mark.parametrize("kind", TRANSPORTS, ids=lambda kind: kind.transport)
def test_a_watcher_on_any_transport_hears_who_comes_and_goes_and_is_a_member_itself(
    kind: type[Client], server: Server
) -> None:
    with kind.connect(server.url, {ROOM: -1, WATCH: -1}, headers={"X-User": "me"}, epoch="") as client:
        watcher = Watcher(client)
        watcher.follow(lambda found: list(found) == ["me"])
        tell(server, "/join", channel=ROOM, id="robot")
        watcher.follow(lambda found: len(found) == 2)
        tell(server, "/publish", channel=ROOM, data=[1])
        tell(server, "/leave", channel=ROOM, id="robot")
        watcher.follow(lambda found: len(found) == 1)
        assert watcher.events == [("joined", "me"), ("joined", "robot"), ("left", "robot")]
        client.read_until(lambda one: 1 in [each["data"] for each in one.received], resume=True)
    eventually(lambda: members(server) == [])


@pytest.mark.parametrize("kind", [Polling, LongPolling], ids=lambda kind: kind.transport)
def test_polls_may_reach_another_process_each_time(kind: type[Client], start: StartServers) -> None:
    servers = start()
    with kind.connect(servers[0].url, {WATCH: -1, ROOM: -1}, headers={"X-User": "me"}, epoch="") as client:
        watcher = Watcher(client)
        watcher.follow(lambda found: list(found) == ["me"])
        for number in range(6):
            client.cut()
            client.url = servers[number % 2].url
            client.reconnect()
            tell(servers[number // 3], "/join", channel=ROOM, id=f"robot-{number}")
            watcher.follow(partial(_has, number + 2))
        assert watcher.events == [("joined", "me"), *[("joined", f"robot-{number}") for number in range(6)]]


def test_who_comes_back_within_the_grace_has_never_left(start: StartServers) -> None:
    servers = start(MESSAGEBUS_PRESENCE_GRACE="3")
    with WebSocket.connect(servers[0].url, {WATCH: -1}) as client:
        watcher = Watcher(client)
        for kind, server in ((WebSocket, servers[0]), (EventSource, servers[1]), (LongPolling, servers[0])):
            with kind.connect(server.url, {ROOM: -1}, headers={"X-User": "me"}, epoch=""):
                watcher.follow(lambda found: list(found) == ["me"])
        watcher.follow(lambda found: not found)
        assert watcher.events == [("joined", "me"), ("left", "me")]


@pytest.mark.redis
def test_the_members_of_a_killed_process_go_after_its_silence_and_those_of_one_that_ends_have_the_grace(
    redis_url: str, start: StartServers
) -> None:
    stays, killed, ends = start(3, url=redis_url, HOOKS="1", SILENT_SECONDS="4", MESSAGEBUS_PRESENCE_GRACE="5")
    with contextlib.ExitStack() as stack:
        # Its next poll comes in a minute.
        polls = Polling.connect(ends.url, {ROOM: -1}, headers={"X-User": "polls"}, epoch="")
        stack.enter_context(polls).next_batch()
        for server, names in ((killed, ("kim", "both")), (ends, ("eve", "moves")), (stays, ("both",))):
            for name in names:
                stack.enter_context(
                    WebSocket.connect(server.url, {ROOM: -1}, headers={"X-User": name}, epoch="")
                ).next_batch()
        client = stack.enter_context(WebSocket.connect(stays.url, {WATCH: -1, "/log": 0}))
        watcher = Watcher(client)
        watcher.follow(lambda found: len(found) == 5)
        killed.kill()
        ends.stop()
        # Somebody else's leaving does not have to be waited for to come back.
        stack.enter_context(
            WebSocket.connect(stays.url, {ROOM: -1}, headers={"X-User": "moves"}, epoch="")
        ).next_batch()
        watcher.follow(lambda found: sorted(found) == ["both", "moves", "polls"])
        assert ("left", "moves") not in watcher.events
        eventually(lambda: members(stays) == ["both", "moves", "polls"])

        def left() -> list[str]:
            client.next_batch()
            log = [message["data"] for message in client.received if message["channel"] == "/log"]
            return sorted(who for event, _, who in log if event == "left")

        assert left() == ["eve", "kim"] or eventually(lambda: left() == ["eve", "kim"])


@pytest.mark.redis
def test_a_worker_that_begins_hears_of_the_members_of_a_killed_one_from_the_others(
    redis_url: str, start: StartServers
) -> None:
    stays, killed = start(url=redis_url, HOOKS="1", SILENT_SECONDS="8", MESSAGEBUS_PRESENCE_GRACE="5")
    with contextlib.ExitStack() as stack:

        def enter(server: Server, name: str) -> None:
            client = WebSocket.connect(server.url, {ROOM: -1}, headers={"X-User": name}, epoch="")
            stack.enter_context(client).next_batch()

        enter(killed, "ghost")
        enter(killed, "kim")
        eventually(lambda: members(stays) == members(killed) == ["ghost", "kim"])
        (worker,) = killed.worker_pids()
        os.kill(worker, signal.SIGKILL)
        eventually(lambda: killed.worker_pids() not in ([worker], [killed.pid]))
        enter(killed, "kim")
        assert members(killed) == members(stays) == ["ghost", "kim"]
        log = stack.enter_context(EventSource.connect(stays.url, {"/log": 0}))
        log.messages(3, resume=True)
        eventually(lambda: members(killed) == members(stays) == ["kim"])
        tell(stays, "/publish", channel="/log", data=["that is all"])
        while log.received[-1]["data"] != "that is all":
            log.messages(1, resume=True)
        events = [message["data"] for message in log.received[:-1]]
        assert sorted(event[::2] for event in events[:2]) == [["joined", "ghost"], ["joined", "kim"]]
        assert events[2:] == [["left", ROOM, "ghost"]]


@pytest.mark.redis
def test_an_outage_of_the_store_is_nobodys_leaving_and_what_happened_meanwhile_is_told_afterwards(
    mortal_redis: RedisServer, start: StartServers
) -> None:
    one, other = start(url=mortal_redis.url, SILENT_SECONDS="2", MESSAGEBUS_PRESENCE_GRACE="2")
    with contextlib.ExitStack() as stack:

        def enter(server: Server, name: str) -> Client:
            client = WebSocket.connect(server.url, {ROOM: -1}, headers={"X-User": name}, epoch="")
            client.next_batch()
            return stack.enter_context(client)

        ann, bob = enter(one, "ann"), enter(other, "bob")
        watchers = [Watcher(stack.enter_context(WebSocket.connect(server.url, {WATCH: -1}))) for server in (one, other)]
        for watcher in watchers:
            watcher.follow(lambda found: len(found) == 2)
        mortal_redis.kill()
        bob.cut()
        eventually(lambda: other.get("/subscribers")[1] == b"1")
        # Nobody can tell the others now: who was there last counts.
        assert members(one) == ["ann", "bob"]
        mortal_redis.start()
        # It is empty: all clients are sent away, and come back.
        stack.callback(ann.cut)
        with contextlib.suppress(Ended):
            ann.messages(1)
        eventually(lambda: one.get("/hello")[0] == 200)
        ann.reconnect()
        for watcher in watchers:
            watcher.follow(lambda found: list(found) == ["ann"])
            assert ("left", "ann") not in watcher.events
        enter(other, "eve")
        for watcher in watchers:
            watcher.follow(lambda found: sorted(found) == ["ann", "eve"])


def test_the_presence_of_a_channel_that_one_may_not_follow_is_refused_with_the_reason(server: Server) -> None:
    closed = "/__presence/rooms/closed/1"
    for channel, code, words in (
        (closed, "forbidden", f"{closed}: /rooms/closed/1: this client may not subscribe to it"),
        ("/__presence/lobby", "forbidden", "no rule of the server says who is a member of /lobby"),
        ("/__presence/rooms/*", "invalid_channel", "there is no presence of a pattern"),
        ("/__presences/rooms", "invalid_channel", "channels that start with '/__' are the bus's own"),
    ):
        with pytest.raises(Refused) as refused, Polling.connect(server.url, {channel: -1}) as client:
            client.next_batch()
        assert refused.value.error["code"] == code
        assert words in refused.value.error["message"]
    with WebSocket.connect(server.url, {}, takes_refusals=True) as client:
        answer = client.ask({"subscribe": {closed: -1, WATCH: -1}})
        assert set(answer["ok"]["refused"]) == {closed}
    with Polling.connect(server.url, {closed: -1}, headers={"X-User": "owner"}) as client:
        assert client.data(1) == [{"members": [], "count": 0}]


def test_a_python_client_subscribes_to_presence_as_to_a_channel(server: Server) -> None:
    heard: list[ClientMessage] = []
    with Program(server.url, headers={"X-User": "me"}) as program:
        program.subscribe(WATCH, heard.append)
        program.subscribe(ROOM, lambda message: None)
        eventually(lambda: heard and heard[-1].data["count"] == 1)
    versions = [message.message_id for message in heard]
    assert versions == sorted(set(versions))


def test_a_worker_that_did_not_hear_anything_for_a_while_buries_nobody(start: StartServers) -> None:
    frozen, other = start(SILENT_SECONDS="2")
    with WebSocket.connect(other.url, {ROOM: -1}, headers={"X-User": "me"}, epoch="") as client:
        client.next_batch()
        with WebSocket.connect(frozen.url, {WATCH: -1}) as watching:
            watcher = Watcher(watching)
            watcher.follow(lambda found: list(found) == ["me"])
            [pid] = frozen.worker_pids()
            os.kill(pid, signal.SIGSTOP)
            try:
                eventually(lambda: other.get("/hello")[0] == 200)
                tell(other, "/join", channel=ROOM, id="robot", ttl=4)
                eventually(lambda: members(other) == ["me"])
            finally:
                os.kill(pid, signal.SIGCONT)
            tell(other, "/join", channel=ROOM, id="late")
            watcher.follow(lambda found: "late" in found)
            assert ("left", "me") not in watcher.events
