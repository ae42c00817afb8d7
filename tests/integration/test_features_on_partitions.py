"""What the bus can do beside publishing and reading, on two servers whose store has partitions, or leaves out what
nobody follows. What is used together is on several partitions."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from messagebus import Bus
from tests.cable_client import EXTENDED, CableClient, identifier_of
from tests.clients import TRANSPORTS, Client, Ended, EventSource, Polling, WebSocket, request
from tests.eventually import eventually
from tests.postgres_server import PostgresServer
from tests.redis_cluster import RedisCluster
from tests.two_servers import BEARER, P, Site, two_servers

from .test_presence import Watcher, tell


@pytest.fixture(
    scope="module",
    params=[
        pytest.param("cluster", marks=pytest.mark.redis),
        pytest.param("postgres", marks=pytest.mark.postgres),
        "sqlite",
    ],
)
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path_factory.mktemp('store')}/bus.db"
    elif request.param == "postgres":
        server: PostgresServer = request.getfixturevalue("postgres_server")
        server.empty()
        url = server.url
    else:
        cluster: RedisCluster = request.getfixturevalue("redis_cluster")
        cluster.empty()
        url = cluster.url(P)
    with two_servers(url) as site:
        yield site


# --- for whom, and how long ---


@pytest.mark.parametrize("kind", TRANSPORTS, ids=lambda kind: kind.transport)
def test_a_message_reaches_those_whom_it_is_for_on_channels_of_every_partition(site: Site, kind: type[Client]) -> None:
    names = site.names(f"/for/{kind.transport}/")
    with contextlib.ExitStack() as stack:

        def connect(number: int, who: str, **headers: str) -> Client:
            given = {"X-User": who, **{f"X-{name}": value for name, value in headers.items()}}
            url, positions = site.servers[number % 2].url, dict.fromkeys(names, -1)
            client = kind.connect(url, positions, headers=given, client_id=f"{kind.transport}-{who}")
            client.status()
            return stack.enter_context(client)

        ann, bob, eve = connect(0, "ann"), connect(1, "bob", Groups="staff night"), connect(2, "eve", Groups="staff")
        for name in names:
            site.bus.publish(name, "to ann", user_ids=["ann"])
            site.bus.publish(name, "to staff", group_ids=["staff"])
            site.bus.publish(name, "to eve", client_ids=[eve.client_id])
            site.bus.publish(name, "not to bob", exclude_client_ids=[bob.client_id])
        expected = [(ann, ["to ann", "not to bob"]), (bob, ["to staff"]), (eve, ["to staff", "to eve", "not to bob"])]
        for client, texts in expected:
            client.messages(len(names) * len(texts), resume=True)
            for name in names:
                assert [each["data"] for each in client.received if each["channel"] == name] == texts
            assert client.gaps == []


def test_what_is_not_kept_reaches_who_is_connected_on_either_server_and_nobody_later(site: Site) -> None:
    names = site.names("/transient/")
    with contextlib.ExitStack() as stack:
        clients = [
            stack.enter_context(kind.connect(server.url, dict.fromkeys(names, -1), headers={"X-User": "ann"}))
            for server in site.servers
            for kind in (WebSocket, EventSource)
        ]
        for client in clients:
            client.status()
        for name in names:
            site.bus.publish(name, "moves", transient=True)
            site.bus.publish(name, "stays")
        for client in clients:
            client.read_until(lambda one: len(one.transient) == 3)
            assert sorted(each["channel"] for each in client.transient) == sorted(names)
            client.read_until(lambda one: len(one.received) == 3)
    for name in names:
        assert [message.data for message in site.bus.backlog(name)] == ["stays"]


@pytest.mark.parametrize("kind", [EventSource, WebSocket], ids=lambda kind: kind.transport)
def test_a_user_who_may_follow_a_channel_no_longer_keeps_the_others_and_one_who_is_ended_has_none(
    site: Site, kind: type[Client]
) -> None:
    names = site.names(f"/ended/{kind.transport}/")
    ann, bob = f"ann-{kind.transport}", f"bob-{kind.transport}"
    with contextlib.ExitStack() as stack:
        clients = {
            (who, number): stack.enter_context(
                kind.connect(server.url, dict.fromkeys(names, -1), headers={"X-User": who}, takes_refusals=True)
            )
            for number, server in enumerate(site.servers)
            for who in (ann, bob)
        }
        for client in clients.values():
            client.status()
        tell(site.servers[0], "/revoke", channel=names[0], user_ids=[ann])
        for number in range(2):
            client = clients[ann, number]
            client.read_until(lambda one: one.refused)
            assert {*client.refused} == {names[0]}
        for name in names:
            site.bus.publish(name, "goes on")
        for (who, _), client in clients.items():
            due = names[1:] if who == ann else names
            assert sorted(each["channel"] for each in client.messages(len(due))) == sorted(due)
        tell(site.servers[1], "/revoke", user_ids=[bob], reason="logged out")
        for number in range(2):
            with pytest.raises(Ended):
                clients[bob, number].messages(100)
            assert {*clients[bob, number].refused} == {*names}


# --- who is there ---


def test_watchers_at_both_servers_hear_of_the_same_members_in_rooms_of_several_partitions(site: Site) -> None:
    rooms = site.names("/rooms/there/")

    with contextlib.ExitStack() as stack:
        log = stack.enter_context(WebSocket.connect(site.servers[0].url, {"/log": -1}))
        log.status()
        watchers = [
            Watcher(stack.enter_context(kind.connect(server.url, {watched: -1})), watched)
            for kind, server in zip((WebSocket, EventSource), site.servers, strict=True)
            for watched in [f"/__presence{room}" for room in rooms]
        ]
        positions = dict.fromkeys(rooms, -1)
        tabs = [
            stack.enter_context(kind.connect(server.url, positions, headers={"X-User": who}))
            for who in ("ann", "bob")
            for kind, server in zip((EventSource, WebSocket), site.servers, strict=True)
        ]
        for at in (0, 1):
            eventually(lambda at=at: [*site.members(rooms, at).values()] == [["ann", "bob"]] * 3)  # type: ignore[misc]
        for tab in tabs[2:]:
            tab.cut()
        for at in (0, 1):
            eventually(lambda at=at: [*site.members(rooms, at).values()] == [["ann"]] * 3)  # type: ignore[misc]
        for watcher in watchers:
            watcher.follow(lambda found: [*found] == ["ann"])
        events = log.data(9, resume=True)
        expected = [("joined", who) for who in ("ann", "bob") for _ in rooms] + [("left", "bob")] * len(rooms)
        assert sorted((event, who) for event, who, _ in events) == sorted(expected), "once each, whoever has two tabs"


def test_a_program_that_has_just_begun_knows_who_is_there_and_hooks_are_called_once(site: Site) -> None:
    with contextlib.ExitStack() as stack:
        one, other = (stack.enter_context(contextlib.closing(Bus(url=site.url))) for _ in range(2))
        events: list[str] = []
        for bus in (one, other):
            bus.presence.on_join("/robots/*")(lambda room, member: events.append(f"{member.id} joined"))
            bus.presence.on_leave("/robots/*")(lambda room, member: events.append(f"{member.id} left"))
        for room in site.names("/robots/"):
            one.presence.join(room, "r2", {"name": "R2"})
            _knows(one, room, "R2")
            with contextlib.closing(Bus(url=site.url)) as fresh:
                assert [(each.id, each.info) for each in fresh.presence.members(room)] == [("r2", {"name": "R2"})]
            _knows(other, room, "R2")
            other.presence.join(room, "r2", {"name": "R2 of the other"})
            _knows(one, room, "R2 of the other")
            one.presence.leave(room, "r2")
            eventually(lambda room=room: other.presence.count(room) == 0)  # type: ignore[misc]
        eventually(lambda: len(events) >= 6)
        assert sorted(events) == ["r2 joined"] * 3 + ["r2 left"] * 3


def _knows(bus: Bus, room: str, name: str) -> None:
    eventually(lambda: [each.info for each in bus.presence.members(room)] == [{"name": name}])


# --- channel classes ---


def test_what_an_action_broadcasts_reaches_the_subscriptions_of_both_servers(site: Site) -> None:
    rooms = site.names("/cable/")
    with contextlib.ExitStack() as stack:
        ann, bob = (
            stack.enter_context(CableClient(server.url, X_User=who))
            for who, server in zip(("ann", "bob"), site.servers, strict=True)
        )
        inside = {who: [who.confirmed("RoomChannel", room=room) for room in rooms] for who in (ann, bob)}
        for number in range(3):
            for client, identifiers in inside.items():
                client.perform(identifiers[number], "speak", n=number)
        for client, identifiers in inside.items():
            wanted = {(identifier, by) for identifier in identifiers for by in ("ann", "bob")}
            while wanted:
                told = client.next()
                if "by" in told.get("message", {}):
                    wanted.remove((told["identifier"], told["message"]["by"]))


def test_a_client_of_anycable_goes_on_at_the_other_server_from_its_offsets_and_from_a_moment(site: Site) -> None:
    rooms = site.names("/any/")
    with CableClient(site.servers[0].url, EXTENDED, X_User="ann") as client:
        for room in rooms:
            client.confirmed("RoomChannel", room=room)
        for room in rooms:
            site.bus.publish(room, 1)
        streams: dict[str, Any] = {}
        for _ in rooms:
            seen = client.until(message=1)
            streams[seen["stream_id"]] = {"epoch": seen["epoch"], "offset": seen["offset"]}
    moment = time.time() + 1.0  # the servers look several times until then how far the bus has come
    eventually(lambda: time.time() > moment)
    for room in rooms:
        site.bus.publish(room, 2)
    histories: list[dict[str, Any]] = [{"since": None, "streams": streams}, {"since": moment, "streams": {}}]
    for history in histories:
        with CableClient(site.servers[1].url, EXTENDED, X_User="ann") as client:
            for room in rooms:
                client.say(command="subscribe", identifier=identifier_of("RoomChannel", room=room), history=history)
                client.until(type="confirm_subscription")
                told = [client.next() for _ in range(2)]
                assert [each["message"] for each in told if "message" in each] == [2]
                assert [each["type"] for each in told if "type" in each] == ["confirm_history"]


def test_a_client_of_the_bus_performs_at_the_other_server_and_follows_what_comes(site: Site) -> None:
    for number, room in enumerate(site.names("/own/")):
        client_id = f"own-{number}"
        status, answer = site.ask(
            "POST", f"{client_id}/enter", {"channel": "RoomChannel", "params": {"room": room}}, X_User="ann"
        )
        assert status == 200, answer
        entered = answer["ok"]
        with WebSocket.connect(
            site.servers[1].url,
            entered["streams"],
            client_id=client_id,
            grants=entered["grants"],
            headers={"X-User": "ann"},
        ) as client:
            status, answer = site.ask(
                "POST",
                f"{client_id}/perform",
                {"id": entered["id"], "action": "speak", "data": {"n": 5}},
                at=1,
                X_User="ann",
            )
            assert (status, answer) == (200, {"ok": {"result": {"ack": 5}}})
            assert {each["channel"]: each["data"] for each in client.messages(2)} == {
                room: {"n": 5, "by": "ann"},
                entered["private"]: {"message": {"ack": 5}},
            }
        assert site.ask("POST", f"{client_id}/leave", {"id": entered["id"]}, at=1, X_User="ann")[0] == 200


# --- over HTTP ---


def test_a_repeated_request_with_its_key_stores_nothing_at_either_server(site: Site) -> None:
    names = site.names("/once/")
    lines = [{"channel": name, "data": number} for number in range(3) for name in names]
    status, first = site.ask("POST", "publish", lines, Idempotency_Key="order-812")
    assert (status, [each["message_id"] for each in first["channels"]]) == (202, [3, 3, 3])
    for at in (0, 1):
        again = site.ask("POST", "publish", lines, at, Idempotency_Key="order-812")[1]
        assert [each["message_id"] for each in again["channels"]] == [3, 3, 3]
        assert [each["global_id"] for each in again["channels"]] == [each["global_id"] for each in first["channels"]]
    for name in names:
        assert [message.data for message in site.bus.backlog(name)] == [0, 1, 2]
        for at in (0, 1):
            status, report = site.ask("POST", f"publish?channel={name}", "x", at, Idempotency_Key="one")
            assert (status, report["message_id"], report["stored_messages"]) == (202, 4, 4)


def test_a_channel_that_is_deleted_is_gone_from_both_servers_and_its_ids_go_on(site: Site) -> None:
    for name in site.names("/deleted/"):
        for number in range(3):
            site.bus.publish(name, number)
        for server in site.servers:
            with Polling.connect(server.url, {name: 0}) as reader:
                assert reader.data(3) == [0, 1, 2]
        status, report = site.ask("DELETE", f"publish?channel={name}")
        assert (status, report["stored_messages"], report["message_id"]) == (200, 0, 3), report
        assert site.ask("POST", f"publish?channel={name}", "after")[1]["message_id"] == 4
        for server in site.servers:
            with Polling.connect(server.url, {name: 1}) as reader:
                assert reader.data(1) == ["after"]
                assert reader.gaps == [{name: {"after": 1, "before": 4}}]


# --- to look at ---


def test_statistics_list_the_channels_of_every_partition_page_by_page(site: Site) -> None:
    names = [f"/listed/{number}" for number in range(30)]
    for name in names:
        site.bus.publish_many([(name, 1), (name, 2)])
    with WebSocket.connect(site.servers[1].url, {names[5]: -1}, headers={"X-User": "ann"}) as client:
        client.status()
        found, cursor = [], ""
        while True:
            status, page = site.ask("GET", f"stats?channels=/listed/*&limit=7&cursor={cursor}")
            assert status == 200
            assert "partitions_away" not in page
            found += page["channels"]
            cursor = page["cursor"]
            if not cursor:
                break
        numbers = {each["channel"]: (each["published_messages"], each["subscribers"]) for each in found}
        assert numbers == {name: (2, int(name == names[5])) for name in names}
        assert len(found) == len(names)
        infos = site.ask("GET", "channels-stats?id=ALL")[1]["infos"]
        assert {each["channel"]: each["stored_messages"] for each in infos}.items() >= dict.fromkeys(names, 2).items()
        assert site.ask("GET", f"channels-stats?id={names[5][1:]}")[1]["subscribers"] == 1
        eventually(lambda: site.ask("GET", "stats")[1]["workers"] == 2)
        stats = site.ask("GET", "stats")[1]
        assert stats["published_messages"] >= 60
        assert stats["channels"] >= 30
        assert sorted(worker["pid"] for worker in stats["by_worker"]) == sorted(
            pid for server in site.servers for pid in server.worker_pids()
        )


def test_the_admin_page_shows_channels_clients_and_messages_of_the_whole_bus(site: Site) -> None:
    names = site.names("/shown/")
    for name in names:
        status, answer = site.ask(
            "POST", "admin/publish", {"channel": name, "data": "by hand"}, Origin=site.servers[0].url
        )
        assert (status, answer) == (200, {"message_id": 1})
        [message] = site.ask("GET", f"admin/messages?channel={name}", at=1)[1]["messages"]
        assert message["data"] == '"by hand"'
        assert message["global_id"] == site.bus.backlog(name)[0].global_id
    with (
        WebSocket.connect(site.servers[1].url, dict.fromkeys(names, -1), headers={"X-User": "looked-at"}) as client,
        request(
            site.servers[0].url,
            "GET",
            f"/message-bus/admin/events?channels=/shown/&clients={client.client_id}&tap={client.client_id}",
            headers={**BEARER, "Accept": "text/event-stream"},
        ) as events,
    ):
        client.status()
        shown = _next_event(events, "channels")
        assert [each["channel"] for each in shown["channels"]] == sorted(names)
        assert {each["subscribers"] for each in shown["channels"]} <= {0, 1}
        while not shown["clients"]:
            shown = _next_event(events, "channels")
        assert [(each["user_id"], each["channels"]) for each in shown["clients"]] == [('"looked-at"', 3)]
        told = {}
        while "tapped" not in told:  # the other server is told by and by that somebody looks
            site.bus.publish(names[2], "seen")
            told = _next_event(events)
        assert told["tapped"]["client_id"] == client.client_id
        assert "seen" in told["tapped"]["sent"][0]["text"]


def _next_event(events: Any, kind: str = "") -> dict[str, Any]:
    """The next thing that an admin page is told, or the next of a kind."""
    while True:
        line = events.readline()
        assert line
        for message in json.loads(line[6:]) if line.startswith(b"data: ") else ():
            if message["channel"] == "/admin" and (not kind or kind in message["data"]):
                found: dict[str, Any] = message["data"]
                return found


def test_it_is_told_why_a_message_did_or_did_not_arrive_also_by_a_process_that_has_just_begun(site: Site) -> None:
    for name in site.names("/why/"):
        who = f"user-of-{name}"
        with WebSocket.connect(site.servers[1].url, {name: -1}, headers={"X-User": who}) as client:
            client.status()
            site.bus.publish(name, "for all")
            site.bus.publish(name, "for others", user_ids=["nobody"])
            client.messages(1)
        expected = [
            (1, who, "sent"),
            (1, "stranger", "not_connected"),
            (2, who, "not_for_them"),
            (3, who, "not_published"),
        ]
        for message_id, user, code in expected:
            with contextlib.closing(Bus(url=site.url)) as bus:
                assert bus.why(name, message_id, user_id=user)[0].code == code
            _, answer = site.ask("GET", f"why?channel={name}&id={message_id}&user={user}")
            assert answer["findings"][0]["code"] == code
