"""What ``messagebus doctor`` says of the replicas of a real Redis, and whether ``durable`` can be met there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from messagebus import Bus, NotDurable
from messagebus.command.doctor.findings import Finding
from messagebus.command.doctor.store import check_store
from messagebus.stores.advice import redis_rights

from ..eventually import eventually
from ..redis_cluster import RedisCluster
from ..redis_server import RedisServer
from ..sentinels import SentinelGroup

pytestmark = pytest.mark.redis

APP = """
from flask import Flask
from messagebus import Bus
app, bus = Flask(__name__), Bus(url={url!r}, durable=2)
app.register_blueprint(bus.blueprint)
"""


@pytest.fixture
def group() -> Iterator[SentinelGroup]:
    with SentinelGroup() as group:
        yield group


def replicas(url: str, durable: int = 0) -> Finding:
    return next(each for each in check_store(url, durable) if each.check == "store: replicas")


def run(*arguments: str, **environment: str) -> tuple[int, list[dict[str, str]]]:
    outer = {name: value for name, value in os.environ.items() if not name.startswith(("MESSAGEBUS", "REDIS"))}
    command = [sys.executable, "-m", "messagebus", "doctor", *arguments]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, env={**outer, **environment}, check=False
    )
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]


def test_a_redis_without_replicas_is_fine_until_publishes_are_to_wait_for_them(redis_url: str) -> None:
    found = replicas(redis_url)
    assert (found.result, found.found) == ("ok", "none; publishes with durable=1 would raise NotDurable")
    found = replicas(redis_url, durable=1)
    assert (found.result, found.found) == ("fail", "none; durable=1 cannot be met")
    assert "replicaof" in found.lines["redis.conf of a replica"][0]
    with closing(Bus(url=redis_url, store_timeout=0.5)) as bus, pytest.raises(NotDurable):
        bus.publish("/a", 1, durable=1)


def test_what_is_said_to_be_met_is_what_publish_does(group: SentinelGroup) -> None:
    for url in (group.url, group.servers[0].url):
        assert replicas(url).found == "1; up to durable=1 can be met"
        assert replicas(url, durable=1).found == "1; durable=1 can be met, while none of them is away"
        assert (replicas(url, durable=1).result, replicas(url, durable=2).result) == ("ok", "fail")
    with closing(Bus(url=group.url, store_timeout=2.0)) as bus:
        assert bus.publish("/a", 1, durable=1) == 1
        with pytest.raises(NotDurable):
            bus.publish("/a", 2, durable=2)


def test_a_primary_that_refuses_writes_for_want_of_replicas_fails(group: SentinelGroup) -> None:
    with group.servers[0].client() as client:
        client.config_set("min-replicas-to-write", 2)
        assert "min-replicas-to-write is 2" in replicas(group.servers[0].url).found
        assert replicas(group.servers[0].url).result == "fail"
        client.config_set("min-replicas-to-write", 1)
        assert replicas(group.servers[0].url).result == "ok"


def test_a_replica_in_the_place_of_the_primary_fails(group: SentinelGroup) -> None:
    found = replicas(group.servers[1].url)
    assert found.result == "fail"
    assert f"a replica of 127.0.0.1:{group.servers[0].port}" in found.found


def test_a_user_who_may_not_ask_is_told_what_is_unknown(mortal_redis: RedisServer) -> None:
    with mortal_redis.client() as client:
        rules = redis_rights("_message_bus_0").split()
        client.execute_command("ACL", "SETUSER", "poor", "reset", "on", ">pw", *rules, "-info")
    url = mortal_redis.url.replace("redis://", "redis://poor:pw@")
    assert replicas(url).found.startswith("unknown")
    rights = next(each for each in check_store(url, durable=1) if each.check == "store: rights")
    assert rights.found == "may not run wait"


def test_the_command_takes_durable_from_the_environment_and_the_app(group: SentinelGroup, tmp_path: Path) -> None:
    url = group.servers[0].url
    code, found = run("--store", url, MESSAGEBUS_DURABLE="1")
    assert code == 0
    assert [each["found"] for each in found if each["check"] == "store: replicas"] == [
        "1; durable=1 can be met, while none of them is away"
    ]
    (tmp_path / "durable.py").write_text(APP.format(url=url))
    code, found = run("--app", str(tmp_path / "durable.py"))
    assert code == 1
    assert [each["found"] for each in found if each["check"] == "store: replicas"] == ["1; durable=2 cannot be met"]


def test_each_node_of_a_cluster_is_asked_for_its_own_replicas(mortal_cluster: RedisCluster) -> None:
    url = mortal_cluster.url(16)

    def of_the_nodes(durable: int) -> dict[str, Finding]:
        return {
            each.check.rpartition(":")[2]: each
            for each in check_store(url, durable)
            if each.check.startswith("store: replicas of ")
        }

    primaries = mortal_cluster.servers[:3]
    found = of_the_nodes(1)
    assert {name: each.result for name, each in found.items()} == {str(each.port): "ok" for each in primaries}
    mortal_cluster.replica_of(primaries[1]).kill()
    with primaries[1].client() as client:
        eventually(lambda: client.info("replication")["connected_slaves"] == 0)
    found = of_the_nodes(1)
    results = {int(name): each.result for name, each in found.items()}
    assert results == {primaries[0].port: "ok", primaries[1].port: "fail", primaries[2].port: "ok"}
    assert "add-node" in found[str(primaries[1].port)].lines["shell"][0]
