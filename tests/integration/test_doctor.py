"""``messagebus doctor`` through a real nginx, set right and set wrong, and beside real stores."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import redis

from messagebus.command.doctor.findings import Finding
from messagebus.command.doctor.probe import Place
from messagebus.command.doctor.store import NoStore, check_store
from messagebus.command.doctor.way import CannotConnect, check_way

from ..fixtures_servers import Proxy, ServeApp
from ..ports import free_port
from ..redis_server import RedisServer

PATIENCE = 3.0


def look(url: str, patience: float = PATIENCE) -> dict[str, Finding]:
    return {each.check: each for each in check_way(Place(url, "/messagebus-doctor", patience))}


def failed(found: dict[str, Finding]) -> set[str]:
    return {name for name, each in found.items() if each.result == "fail"}


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MESSAGEBUS", "REDIS"))}
    return subprocess.run(
        [sys.executable, "-m", "messagebus", "doctor", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env=environment,
        check=False,
    )


def test_a_proxy_that_is_set_right_passes_everything(serve_app: ServeApp, nginx: Proxy) -> None:
    found = look(nginx(serve_app("serve").address).url + "/message-bus")
    assert {name: each.result for name, each in found.items()} == dict.fromkeys(found, "ok")
    assert {name.partition(":")[0] for name in found} == {
        *("polling", "websocket", "eventsource", "streaming", "long-polling", "silence", "host", "origin"),
    }


def test_a_proxy_without_upgrade_fails_the_websocket_alone(serve_app: ServeApp, nginx: Proxy) -> None:
    found = look(nginx(serve_app("serve").address, websocket=False).url + "/message-bus")
    assert failed(found) == {"websocket: opens"}
    lines = found["websocket: opens"].lines
    assert "proxy_set_header Upgrade $http_upgrade;" in lines["nginx"]
    assert set(lines) >= {"nginx", "Apache", "Caddy", "Traefik", "HAProxy", "gunicorn"}


def test_a_proxy_that_buffers_is_told_from_one_that_does_not(serve_app: ServeApp, nginx: Proxy) -> None:
    proxy = nginx(serve_app("serve").address, buffering=True, honour_accel=False, http_version="1.0")
    found = look(proxy.url + "/message-bus")
    assert "eventsource: is not held back" in failed(found)
    assert "proxy_buffering off;" in found["eventsource: is not held back"].lines["nginx"]


def test_a_proxy_that_compresses_streams_holds_them_back(serve_app: ServeApp, nginx: Proxy) -> None:
    proxy = nginx(serve_app("serve").address, gzip=True, honour_accel=False, buffering=True)
    assert "streaming: is not held back" in failed(look(proxy.url + "/message-bus"))


def test_a_short_read_timeout_is_measured(serve_app: ServeApp, nginx: Proxy) -> None:
    proxy = nginx(serve_app("serve").address, extra="proxy_read_timeout 1s;")
    found = look(proxy.url + "/message-bus", patience=6.0)
    assert failed(found) == {"silence: is not cut"}
    silence = found["silence: is not cut"]
    for transport in ("websocket", "eventsource", "streaming", "long-polling"):
        seconds = re.search(rf"{transport} after ([\d.]+) s", silence.found)
        assert seconds, silence.found
        assert 0.8 <= float(seconds[1]) <= 3
    assert "proxy_read_timeout 75s;" in silence.lines["nginx"]


def nested(path: str, target: str, *headers: str) -> str:
    """A location below a path, with all headers of its own."""
    own = ("Upgrade $http_upgrade", "Connection $connection_upgrade", *headers)
    lines = " ".join(f"proxy_set_header {header};" for header in own)
    return f"location {path} {{ proxy_pass {target}; proxy_http_version 1.1; proxy_buffering off; {lines} }}"


def test_a_rewritten_host_is_seen_by_the_origin_that_it_refuses(serve_app: ServeApp, nginx: Proxy) -> None:
    extra = nested("/message-bus/", "http://app", "Host inner.example.org")
    found = look(nginx(serve_app("serve").address, extra=extra).url + "/message-bus")
    assert failed(found) == {"websocket: opens", "host: comes through"}
    assert found["host: comes through"].lines["nginx"] == ("proxy_set_header Host $http_host;",)


def test_an_origin_that_is_taken_away_is_a_warning(serve_app: ServeApp, nginx: Proxy) -> None:
    extra = nested("/message-bus/", "http://app", "Host $http_host", "Origin ''")
    found = look(nginx(serve_app("serve").address, extra=extra).url + "/message-bus")
    assert failed(found) == set()
    assert found["origin: comes through"].result == "warn"


def test_a_lost_prefix_says_where_the_bus_is(serve_app: ServeApp, nginx: Proxy) -> None:
    extra = nested("/shop/", "http://app", "Host $http_host")  # the app gets /shop/message-bus, which it does not have
    proxy = nginx(serve_app("serve").address, extra=extra)
    found = look(proxy.url + "/shop/message-bus")
    assert list(found) == ["prefix: comes through"]
    assert f"the bus answers at {proxy.url}/message-bus" in found["prefix: comes through"].advice
    assert "location /shop/ {" in found["prefix: comes through"].lines["nginx"]


def test_an_app_below_a_path_passes_where_the_prefix_is_taken_off(serve_app: ServeApp, nginx: Proxy) -> None:
    extra = nested("/shop/", "http://app/", "Host $http_host")
    found = look(nginx(serve_app("serve").address, extra=extra).url + "/shop/message-bus")
    assert failed(found) == set()
    assert found["websocket: opens"].result == "ok"


def test_a_proxy_without_its_server_is_told_from_a_wrong_address(nginx: Proxy) -> None:
    found = look(nginx(f"127.0.0.1:{free_port()}").url + "/message-bus")
    assert "answered 502" in found["prefix: comes through"].found
    assert "does it run" in found["prefix: comes through"].advice


def test_nobody_at_the_address_is_no_finding() -> None:
    with pytest.raises(CannotConnect, match="cannot connect to"):
        look(f"http://127.0.0.1:{free_port()}/message-bus")


# --- stores ---


def test_a_redis_that_deletes_backlogs_fails(mortal_redis: RedisServer) -> None:
    with redis.Redis.from_url(mortal_redis.url) as client:
        client.config_set("maxmemory", 100_000_000)
        client.config_set("maxmemory-policy", "allkeys-lru")
        client.config_set("client-output-buffer-limit", "pubsub 1mb 1mb 60")
        found = {each.check: each for each in check_store(mortal_redis.url)}
    assert found["store: version"].result == "ok"
    assert found["store: rights"].result == "ok"
    assert found["store: eviction"].result == "fail"
    assert found["store: eviction"].lines["redis.conf"] == ("maxmemory-policy noeviction",)
    assert found["store: output buffer"].result == "warn"
    assert found["store: output buffer"].found == "pubsub: cut at 1048576 bytes"


def test_rights_that_a_redis_user_lacks_are_named(mortal_redis: RedisServer) -> None:
    with redis.Redis.from_url(mortal_redis.url) as client:
        client.execute_command("ACL", "SETUSER", "poor", "on", ">pw", "~__mb_*", "&*", "+@all", "-zadd", "-config")
    found = {each.check: each for each in check_store(mortal_redis.url.replace("redis://", "redis://poor:pw@"))}
    assert found["store: rights"].result == "fail"
    assert "zadd" in found["store: rights"].found
    assert found["store: output buffer"].found.startswith("unknown")


def test_postgresql_is_looked_at(postgres_url: str) -> None:
    found = {each.check: each for each in check_store(postgres_url)}
    assert found["store: version"].found.startswith("PostgreSQL ")
    assert found["store: rights"].result == "ok"
    assert {"store: persistence", "store: connections"} <= set(found)


def test_a_store_that_does_not_answer_is_named_without_its_password() -> None:
    with pytest.raises(NoStore) as caught:
        check_store(f"redis://user:secret@127.0.0.1:{free_port()}/0")
    assert "secret" not in str(caught.value)


# --- the command ---


def test_the_command_answers_json_lines_and_0_where_nothing_fails(serve_app: ServeApp, redis_url: str) -> None:
    done = run(serve_app("serve").url + "/message-bus", "--patience", "1", "--store", redis_url)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, done.stdout + done.stderr
    assert all(set(each) == {"check", "result", "found", "advice", "lines"} for each in found)
    assert {"websocket: opens", "store: version", "files: one for each client"} <= {each["check"] for each in found}


def test_the_command_ends_with_1_where_something_fails(serve_app: ServeApp, nginx: Proxy) -> None:
    done = run(nginx(serve_app("serve").address, websocket=False).url + "/message-bus", "--patience", "1")
    assert done.returncode == 1, done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("http://127.0.0.1:1/message-bus",),
        ("--store", "redis://127.0.0.1:1/0"),
        ("ftp://x/",),
        ("--app", "no.such:app"),
    ],
)
def test_the_command_ends_with_2_and_one_line_where_nobody_answers(arguments: tuple[str, ...]) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "Error: " in done.stderr


def test_an_app_without_its_bus_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bare.py").write_text("from flask import Flask\napp = Flask(__name__)\n")
    done = run("--app", str(tmp_path / "bare.py"))
    found = {each["check"]: each for each in map(json.loads, done.stdout.splitlines())}
    assert done.returncode == 1
    assert found["app: has the bus"]["result"] == "fail"


def test_an_app_with_its_bus_passes() -> None:
    found = {each["check"]: each for each in map(json.loads, run("--app", "tests.apps.basic:app").stdout.splitlines())}
    assert found["app: has the bus"]["result"] == "ok"
    assert found["app: extensions"]["result"] == "ok"
