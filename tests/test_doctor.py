"""What ``messagebus doctor`` makes of what it sees, where that cannot be had on this machine."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from flask import Flask

from messagebus import Bus
from messagebus.command.doctor.application import check_extensions
from messagebus.command.doctor.machine import check_files, check_kernel
from messagebus.command.doctor.replicas import judge_replicas
from messagebus.command.doctor.store import NoStore, check_store, judge_postgres, judge_redis


@pytest.mark.parametrize(
    ("soft", "hard", "result"),
    [(-1, -1, "ok"), (65_536, 65_536, "ok"), (1024, 65_536, "warn"), (4096, 4096, "warn"), (256, 256, "fail")],
)
def test_open_files_are_compared_with_the_clients(soft: int, hard: int, result: str) -> None:
    assert check_files(20_000, soft, hard).result == result


def test_small_kernel_limits_are_named_with_their_lines(tmp_path: Path) -> None:
    for name, text in {"core/somaxconn": "128\n", "ipv4/ip_local_port_range": "32768\t40000\n"}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    found = check_kernel(tmp_path)
    assert [each.result for each in found] == ["warn", "warn"]
    assert found[0].lines == {"/etc/sysctl.d/90-messagebus.conf": ("net.core.somaxconn = 4096",)}


def test_an_old_redis_fails_and_one_without_persistence_is_a_warning() -> None:
    facts = {"redis_version": "4.0.9", "maxmemory_policy": "noeviction", "aof_enabled": 0, "save": ""}
    found = {each.check: each for each in judge_redis(facts, [], "+get")}
    assert found["store: version"].result == "fail"
    assert found["store: persistence"].result == "warn"
    assert "appendonly yes" in found["store: persistence"].lines["redis.conf"]


def test_a_redis_that_says_nothing_is_unknown_and_not_fine() -> None:
    assert {each.result for each in judge_redis({}, [], "x") if each.check != "store: rights"} == {"warn"}


PRIMARY = {"role": "master", "connected_slaves": 0}
IN_STEP = {"ip": "10.0.0.2", "port": 6379, "state": "online", "lag": 1}


def test_replicas_that_copy_or_are_silent_do_not_count() -> None:
    silent, copying = {**IN_STEP, "lag": 11}, {**IN_STEP, "state": "wait_bgsave", "lag": 0}
    facts = {**PRIMARY, "connected_slaves": 3, "slave0": IN_STEP, "slave1": silent, "slave2": copying}
    found = judge_replicas(facts, 2)
    assert (found.result, found.found.partition(";")[0]) == ("fail", "1 in step")
    assert "10.0.0.2:6379 has been silent for 11 s" in found.found
    assert "10.0.0.2:6379 is still copying (wait_bgsave)" in found.found
    assert judge_replicas(facts, 1).result == "warn"


def test_a_redis_that_waits_for_replicas_which_are_not_there_fails_without_durable_too() -> None:
    facts = {**PRIMARY, "connected_slaves": 1, "slave0": IN_STEP, "min_slaves_good_slaves": 1}
    assert judge_replicas({**facts, "min-replicas-to-write": "1"}, 0).result == "ok"
    found = judge_replicas({**facts, "min-replicas-to-write": "2"}, 0)
    assert (found.result, found.lines["redis-cli"]) == ("fail", ("CONFIG SET min-replicas-to-write 1",))
    # It may ask INFO and not CONFIG.
    assert judge_replicas({**PRIMARY, "min_slaves_good_slaves": 0}, 0).result == "fail"
    # Switched off by min-replicas-max-lag 0: INFO says nothing of it.
    assert judge_replicas({**PRIMARY, "min-replicas-to-write": "2"}, 0).result == "ok"


def test_a_cluster_is_told_how_a_replica_is_added_there() -> None:
    assert "shell" in judge_replicas({**PRIMARY, "redis_mode": "cluster"}, 1).lines
    assert "redis.conf of a replica" in judge_replicas(PRIMARY, 1).lines


def test_a_replica_and_a_database_without_fsync_fail() -> None:
    found = judge_postgres(160_000, "16.0", True, "public", "app", True, "off", "on", 100, 95)
    assert {each.check for each in found if each.result == "fail"} == {"store: rights", "store: persistence"}
    assert {each.check for each in found if each.result == "warn"} == {"store: connections"}


def test_a_limiter_that_counts_the_bus_is_named_until_it_is_told() -> None:
    limiter_of = pytest.importorskip("flask_limiter")
    from messagebus import Bus

    app, bus = Flask(__name__), Bus(url="memory://")
    limiter = limiter_of.Limiter(lambda: "one", app=app, default_limits=["5 per hour"], storage_uri="memory://")
    app.register_blueprint(bus.blueprint)
    assert [each.result for each in check_extensions(app) if each.check == "app: Flask-Limiter"] == ["warn"]
    limiter.exempt(bus.blueprint)
    assert [each for each in check_extensions(app) if each.check == "app: Flask-Limiter"] == []
    bus.close()


def test_forms_with_tokens_leave_the_bus_alone() -> None:
    csrf_of = pytest.importorskip("flask_wtf.csrf")
    from messagebus import Bus

    app, bus = Flask(__name__), Bus(url="memory://")
    app.secret_key = "x"
    csrf_of.CSRFProtect(app)
    app.register_blueprint(bus.blueprint)
    assert [each.result for each in check_extensions(app)] == ["ok"]
    bus.close()


def test_a_sqlite_file_is_looked_at_and_not_made(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/bus.db"
    (finding,) = check_store(url)
    assert (finding.result, finding.found) == ("ok", f"{tmp_path}/bus.db: the first process will make it")
    assert list(tmp_path.iterdir()) == []
    with contextlib.closing(Bus(url=url)) as bus:
        bus.publish("/a", 1)
    (finding, durable) = check_store(url, durable=1)
    assert (durable.check, durable.result) == ("store: replicas", "fail")
    assert finding.found == f"{tmp_path}/bus.db: 1 messages so far"
    with pytest.raises(NoStore, match="there is no directory"):
        check_store("sqlite:////nowhere/at/all/bus.db")
