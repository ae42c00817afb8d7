"""A node of a Redis Cluster is killed, and nobody takes its place: what goes over all channels has those of the other
partitions, and says which are lacking."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from messagebus.command.doctor.store import check_store
from messagebus.stores.hash_tags import hash_tags
from messagebus.stores.partitions import partition_of
from tests.cable_client import CableClient
from tests.clients import Ended, WebSocket, request
from tests.eventually import eventually
from tests.partitioned import name_in
from tests.redis_cluster import RedisCluster
from tests.shell import Shell
from tests.two_servers import BEARER, KEY, P, Site, two_servers

from .test_presence import tell

pytestmark = pytest.mark.redis

CHANNELS = [f"/c{number}" for number in range(40)]
LAYOUT = b"{messagebus}__mb_layout"
"""Of a key that a process which begins has to read."""


class Hurt:
    """A bus of which a node was killed."""

    def __init__(self, site: Site, away: set[int]) -> None:
        self.site = site
        self.away = sorted(away)
        self.there = [name for name in CHANNELS if partition_of(name, P) not in away]
        self.lost = name_in(self.away[0], P, "/c")
        assert self.there
        assert self.lost in CHANNELS
        self.says = f"these partitions of the store give no answer: {', '.join(map(str, self.away))}"


@pytest.fixture(scope="module", params=["the_reports", "others"])
def hurt(request: pytest.FixtureRequest) -> Iterator[Hurt]:
    """Without the partition that has the workers' reports, then with it."""
    with RedisCluster(replicas=0, node_timeout=1500) as cluster, two_servers(cluster.url(P)) as site:
        site.bus.publish_many([(name, name) for name in CHANNELS])
        on = {number: cluster.owner(tag + b"x") for number, tag in enumerate(hash_tags(P))}
        layout = cluster.owner(LAYOUT)
        victims = [on[0]] if request.param == "the_reports" else [each for each in on.values() if each is not on[0]]
        victim = next(each for each in victims if each is not layout)
        eventually(lambda: site.ask("GET", "stats")[1]["workers"] == 2)
        victim.kill()
        hurt = Hurt(site, {number for number, server in on.items() if server is victim})
        for at in (0, 1):
            ready = lambda at=at: site.ask("GET", "health/ready", at=at)[1].get("partitions_away")  # noqa: E731
            eventually(lambda ready=ready: ready() == hurt.away)  # type: ignore[misc]
        yield hurt


def names_of(found: list[dict[str, Any]]) -> list[str]:
    """Without those of other tests."""
    return sorted(each["channel"] for each in found if each["channel"].startswith("/c"))


def test_statistics_list_the_channels_that_can_be_read_and_name_the_partitions_that_cannot(hurt: Hurt) -> None:
    for at in (0, 1):
        status, page = hurt.site.ask("GET", "stats?channels=*", at=at)
        assert (status, page["partitions_away"], page["cursor"]) == (200, hurt.away, "")
        assert names_of(page["channels"]) == sorted(hurt.there)
        assert {each["stored_messages"] for each in page["channels"]} == {1}
        _, stats = hurt.site.ask("GET", "stats", at=at)
        assert stats["channels"] is None
        assert stats["published_messages"] >= len(hurt.there)
        assert stats["partitions_away"] == hurt.away
        for query, key in (("channels-stats", "by_worker"), ("channels-stats?id=ALL", "infos")):
            status, whole = hurt.site.ask("GET", query, at=at)
            assert (status, whole["partitions_away"]) == (200, hurt.away)
            assert key == "by_worker" or names_of(whole[key]) == sorted(hurt.there)


def test_a_listing_page_by_page_names_each_partition_that_is_away_once(hurt: Hurt) -> None:
    found, away, cursor = [], [], ""
    while True:
        status, page = hurt.site.ask("GET", f"stats?channels=*&limit=5&cursor={cursor}")
        assert status == 200, page
        found += page["channels"]
        away += page.get("partitions_away", [])
        cursor = page["cursor"]
        if not cursor:
            break
    assert (names_of(found), away) == (sorted(hurt.there), hurt.away)


def test_one_channel_is_told_of_or_the_store_gives_no_answer(hurt: Hurt) -> None:
    name = hurt.there[0]
    with WebSocket.connect(hurt.site.servers[0].url, {name: -1}, headers={"X-User": "ann"}) as client:
        client.status()
        # Who listens at the other server is known from before, also without the reports.
        eventually(lambda: hurt.site.ask("GET", f"stats?channel={name}", at=1)[1]["subscribers"] == 1)
        eventually(lambda: hurt.site.ask("GET", f"publish?channel={name}", at=1)[1]["subscribers"] == 1)
        found = hurt.site.ask("GET", f"why?channel={name}&id=1&client={client.client_id}", at=1)
        assert (found[0], found[1]["findings"][0]["code"]) == (200, "new_only")
    assert hurt.site.ask("GET", f"stats?channel={hurt.lost}")[0] == 503


def test_who_comes_is_seen_at_the_other_server_and_a_class_speaks_to_both(hurt: Hurt) -> None:
    room = name_in(partition_of(hurt.there[0], P), P, "/rooms/")
    one, other = hurt.site.servers
    with WebSocket.connect(one.url, {room: -1}, headers={"X-User": "ann"}) as client:
        client.status()
        for at in (0, 1):
            eventually(lambda at=at: hurt.site.members([room], at) == {room: ["ann"]})  # type: ignore[misc]
        with CableClient(other.url, X_User="bob") as bob:
            bob.perform(bob.confirmed("RoomChannel", room=room), "speak", n=1)
            assert client.data(1) == [{"n": 1, "by": "bob"}]
        tell(other, "/revoke", user_ids=["ann"])
        with pytest.raises(Ended):
            client.messages(1)


def test_the_admin_page_shows_what_there_is_and_what_is_lacking(hurt: Hurt) -> None:
    [message] = hurt.site.ask("GET", f"admin/messages?channel={hurt.there[0]}")[1]["messages"]
    assert message["data"] == json.dumps(hurt.there[0])
    for server in hurt.site.servers:
        with request(server.url, "GET", "/message-bus/admin/events", headers=BEARER) as events:
            told: dict[str, Any] = {}
            while "stats" not in told:
                assert "trouble" not in told
                line = events.readline()
                for each in json.loads(line[6:]) if line.startswith(b"data: ") else ():
                    told = each["data"] if each["channel"] == "/admin" else told
            assert names_of(told["channels"]) == sorted(hurt.there)
            assert told["stats"]["partitions_away"] == hurt.away


@pytest.mark.parametrize("place", ["store", "server"])
def test_commands_print_what_there_is_say_what_is_lacking_and_end_with_1(hurt: Hurt, place: str) -> None:
    shell = Shell(hurt.site.url) if place == "store" else Shell(hurt.site.servers[0].url, KEY)
    done = shell.run("channels")
    assert names_of([json.loads(line) for line in done.stdout.splitlines()]) == sorted(hurt.there)
    assert (done.returncode, done.stderr) == (1, f"Error: this is not all: {hurt.says}\n")
    done = shell.run("stats")
    found = json.loads(done.stdout)
    assert found["partitions_away"] == hurt.away
    assert found["published_messages"] >= len(hurt.there)
    assert (done.returncode, done.stderr) == (1, f"Error: this is not all: {hurt.says}\n")
    done = shell.run("top", "--count", "1", "--interval", "0.1", "--rows", "50")
    found = json.loads(done.stdout)
    assert (names_of(found["channels"]), found["partitions_away"]) == (sorted(hurt.there), hurt.away)


@pytest.mark.parametrize("place", ["store", "server"])
def test_commands_on_one_channel_work_where_its_partition_does(hurt: Hurt, place: str) -> None:
    shell = Shell(hurt.site.url) if place == "store" else Shell(hurt.site.servers[0].url, KEY)
    name = name_in(partition_of(hurt.there[0], P), P, f"/{place}")
    (published,) = shell.lines("publish", name, "x")
    assert published["message_id"] == 1
    assert shell.data("backlog", name) == shell.data("subscribe", name, "--last", "1", "--count", "1") == ["x"]
    assert shell.run("exec", name, "--forget", "--", "echo", "y").returncode == 0
    assert shell.data("backlog", name) == ["y"]
    done = shell.run("backlog", hurt.lost)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)


def test_the_doctor_names_the_node_that_is_away_and_looks_at_the_others(hurt: Hurt) -> None:
    found = check_store(hurt.site.url)
    [away] = [each for each in found if each.check.startswith("store: node of")]
    assert (away.result, "does not answer" in away.found) == ("fail", True)
    assert sum(each.check.startswith("store: rights of") for each in found) == 2


def test_a_node_that_falls_silent_is_away_until_it_speaks_again_and_not_waited_for_each_time() -> None:
    with RedisCluster(replicas=0, node_timeout=60_000) as cluster, contextlib.ExitStack() as stack:
        site = stack.enter_context(two_servers(cluster.url(P), MESSAGEBUS_STORE_TIMEOUT="2"))
        site.bus.publish_many([(name, name) for name in CHANNELS])
        victim = cluster.owner(hash_tags(P)[0] + b"x")
        away = [number for number, tag in enumerate(hash_tags(P)) if cluster.owner(tag + b"x") is victim]
        cluster.cut_off(victim)
        stack.callback(cluster.go_on, victim)
        status, page = site.ask("GET", "stats?channels=*")
        assert (status, page["partitions_away"]) == (200, away)
        there = sorted(name for name in CHANNELS if partition_of(name, P) not in away)
        assert names_of(page["channels"]) == there
        began = time.monotonic()
        for name in there[:8]:
            assert site.ask("POST", f"publish?channel={name}", 1)[0] == 202
            assert site.ask("GET", "stats?channels=*")[1]["partitions_away"] == away
        assert time.monotonic() - began < 8 * 2, "the node is waited for in each of them"
        for other in cluster.servers:
            cluster.cut_off(other)
            stack.callback(cluster.go_on, other)
        assert site.ask("GET", "stats?channels=*")[0] == 503
        for other in cluster.servers:
            cluster.go_on(other)
        eventually(lambda: names_of(site.ask("GET", "stats?channels=*")[1].get("channels", [])) == sorted(CHANNELS))
        assert "partitions_away" not in site.ask("GET", "stats?channels=*")[1]
