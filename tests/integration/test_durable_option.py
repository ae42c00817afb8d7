"""The option ``durable``, and what it is to pages, over HTTP and in a shell."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import flask
import pytest

from messagebus import Bus
from messagebus.errors import BackendUnavailable, InvalidOption, NotDurable
from messagebus.stores.advice import redis_rights
from tests.eventually import eventually
from tests.fixtures_servers import ServeApp
from tests.sentinels import SentinelGroup
from tests.serve_helpers import alone
from tests.shell import Shell

REDIS = "redis://127.0.0.1:1/0"
KEY = "a-key-that-is-long-enough"


@pytest.fixture
def group() -> Iterator[SentinelGroup]:
    with SentinelGroup() as group:
        yield group


@pytest.fixture
def bus(group: SentinelGroup) -> Iterator[Bus]:
    options: dict[str, Any] = {"http_publishing": True, "anonymous_publish": True, "client_publish": ("/*",)}
    with closing(Bus(url=group.servers[0].url, durable=1, store_timeout=2.0, **options)) as bus:
        yield bus


def post(bus: Bus, path: str, data: Any, **headers: str) -> Any:
    app = flask.Flask(__name__)
    bus.init_app(app)
    return app.test_client().post(f"/message-bus/{path}", json=data, headers=headers)


def stored(bus: Bus, channel: str = "/a") -> list[Any]:
    return [message.data for message in bus.backlog(channel)]


# --- the option ---


@pytest.mark.redis
def test_every_publish_waits_unless_it_says_otherwise(bus: Bus, group: SentinelGroup) -> None:
    with group.servers[1].client() as replica:
        for number in range(1, 10):
            assert bus.publish("/a", number) == number
            assert bus.publish_many([("/b", number)]) == [number]
            assert (replica.get("__mb_backlog_id_n_/a"), replica.get("__mb_backlog_id_n_/b")) == (b"%d" % number,) * 2
    group.cut_off(group.servers[1])
    with pytest.raises(NotDurable):
        bus.publish("/a", 10)
    with pytest.raises(NotDurable, match="of 2"):
        bus.publish("/a", 11, durable=2)
    assert bus.publish("/a", 12, durable=0) == 12
    assert bus.publish("/a", 13, transient=True) is None
    assert stored(bus)[-3:] == [10, 11, 12]


@pytest.mark.redis
def test_nothing_waits_in_memory_but_what_may(bus: Bus, group: SentinelGroup) -> None:
    assert bus.publish("/a", 1) == 1
    group.servers[0].kill()
    with pytest.raises(BackendUnavailable):
        bus.publish("/a", 2)
    assert bus.publish("/a", 3, durable=0) is None


def test_a_publish_that_is_to_wait_in_memory_has_to_say_that_it_is_not_durable() -> None:
    with closing(Bus(url=REDIS, durable=1)) as bus:
        with pytest.raises(InvalidOption, match="give durable=0"):
            bus.publish("/a", 1, queue_in_memory=True)
        assert bus.publish("/a", 1, queue_in_memory=True, durable=0) is None


@pytest.mark.parametrize("url", ["memory://", "sqlite:////tmp/never-made.db", "postgresql://h/db"])
def test_a_store_without_replicas_is_refused_where_the_option_is_set(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidOption, match="only a store in Redis"):
        Bus(url=url, durable=1)
    with closing(Bus(url=url)) as bus:
        with pytest.raises(InvalidOption, match="only a store in Redis"):
            bus.configure(durable=1)
        assert bus.options.durable == 0
        app = flask.Flask(__name__)
        app.config["MESSAGEBUS_DURABLE"] = 1
        with pytest.raises(InvalidOption, match="only a store in Redis"):
            bus.init_app(app)
    monkeypatch.setenv("MESSAGEBUS_DURABLE", "1")
    with pytest.raises(InvalidOption, match="only a store in Redis"):
        Bus(url=url)


def test_without_a_url_it_is_refused_at_the_start_for_an_app_may_bring_the_url() -> None:
    with closing(Bus(durable=1)) as bus:
        with pytest.raises(InvalidOption, match="only a store in Redis"):
            bus.start()
        with pytest.raises(InvalidOption, match="only a store in Redis"):
            bus.publish("/a", 1)
        app = flask.Flask(__name__)
        app.config["MESSAGEBUS_URL"] = REDIS
        bus.init_app(app)
        assert bus.options.durable == 1


@pytest.mark.parametrize("durable", [-1, 1001, True, "1", 1.0])
def test_a_number_of_replicas_that_is_none_is_refused(durable: Any) -> None:
    with pytest.raises(InvalidOption, match="durable"):
        Bus(url=REDIS, durable=durable)


def test_a_server_with_a_store_without_replicas_does_not_start(tmp_path: Any) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "messagebus", "serve", "--url", f"sqlite:///{tmp_path}/bus.db"],
        env={**os.environ, "MESSAGEBUS_DURABLE": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert "only a store in Redis can wait" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "bus.db").exists()


@pytest.mark.redis
def test_what_no_publish_could_succeed_with_is_said_at_the_start(
    group: SentinelGroup, caplog: pytest.LogCaptureFixture
) -> None:
    url = group.servers[0].url
    with group.servers[0].client() as client:
        rules = redis_rights("_message_bus_0").split()
        client.execute_command("ACL", "SETUSER", "waiter", "reset", "on", ">pw", *rules, "+info")
    with closing(Bus(url=url.replace("://", "://waiter:pw@"), durable=2)) as bus:
        bus.start()
        eventually(lambda: "durable is 2, and 1 replicas are connected" in caplog.text)
        assert "may not run wait; it needs: ACL SETUSER <user> ~__mb_*" in caplog.text
        assert re.search(r"ACL SETUSER .* \+wait$", caplog.text, re.MULTILINE)
    caplog.clear()
    with closing(Bus(url=url, durable=1)) as bus:
        bus.start()
        assert bus.publish("/a", 1) == 1
    assert caplog.text == ""


# --- over HTTP, and from pages ---


@pytest.mark.redis
def test_over_http_what_is_not_safe_yet_is_507_with_its_ids(bus: Bus, group: SentinelGroup) -> None:
    assert post(bus, "publish?channel=/a", 1).status_code == 202
    group.cut_off(group.servers[1])
    answer = post(bus, "publish?channel=/a", 2, **{"Idempotency-Key": "two"})
    assert answer.status_code == 507
    assert "Retry-After" not in answer.headers
    said = answer.get_json()
    assert (said["error"]["code"], said["error"]["field"]) == ("not_durable", "durable")
    assert said["channels"] == [{"channel": "/a", "message_id": 2, "global_id": 2}]
    many = [{"channel": "/a", "data": 3}, {"channel": "/b", "data": 1}, {"channel": "/a", "data": 4}]
    ids = [(each["channel"], each["message_id"]) for each in post(bus, "publish?many=1", many).get_json()["channels"]]
    assert ids == [("/a", 4), ("/b", 1)]
    assert post(bus, "publish?channel=/a&durable=0", 5).status_code == 202
    group.go_on(group.servers[1])
    bus.configure(store_timeout=40.0)
    assert post(bus, "publish?channel=/a", 2, **{"Idempotency-Key": "two"}).get_json()["message_id"] == 2
    assert stored(bus) == [1, 2, 3, 4, 5]


@pytest.mark.redis
def test_over_http_a_request_may_ask_for_replicas(group: SentinelGroup) -> None:
    with closing(Bus(url=group.servers[0].url, http_publishing=True, anonymous_publish=True)) as bus:
        assert post(bus, "publish?channel=/a&durable=1", 1).status_code == 202
        assert post(bus, "channels/a", 2, **{"X-MessageBus-Durable": "1"}).status_code == 202
        with group.servers[1].client() as replica:
            assert replica.get("__mb_backlog_id_n_/a") == b"2"


@pytest.mark.parametrize(("asked", "code"), [("1", "invalid_option"), ("1001", "invalid_option"), ("x", "malformed")])
def test_over_http_what_a_store_cannot_do_is_refused_and_not_stored(asked: str, code: str) -> None:
    with closing(Bus(url="memory://", http_publishing=True, anonymous_publish=True)) as bus:
        answer = post(bus, f"publish?channel=/a&durable={asked}", 1)
        assert (answer.status_code, answer.get_json()["error"]["code"]) == (400, code)
        assert answer.get_json()["error"]["field"] == "durable"
        assert stored(bus) == []


@pytest.mark.redis
def test_a_page_is_told_that_its_message_is_stored_and_not_safe(bus: Bus, group: SentinelGroup) -> None:
    assert post(bus, "abc/publish", {"channel": "/a", "data": 1, "key": "k1"}).get_json() == {"ok": {"message_id": 1}}
    group.cut_off(group.servers[1])
    for _ in range(2):
        answer = post(bus, "abc/publish", {"channel": "/a", "data": 2, "key": "k2"})
        assert (answer.status_code, answer.get_json()["error"]["code"]) == (507, "not_durable")
    assert stored(bus) == [1, 2]


# --- in a shell ---


@pytest.mark.redis
def test_in_a_shell_it_is_exit_code_1_at_a_store_and_at_a_server(group: SentinelGroup, serve_app: ServeApp) -> None:
    url = group.servers[0].url
    limit = {"MESSAGEBUS_STORE_TIMEOUT": "2"}
    server = alone(serve_app, "--url", url, env={"MESSAGEBUS_PUBLISHER_KEYS": KEY, **limit})
    store = Shell(url)
    store.environment.update(limit)
    shells = [store, Shell(server.url, KEY)]
    for shell in shells:
        assert shell.run("publish", "/a", "safe", "--durable", "1").returncode == 0
    group.cut_off(group.servers[1])
    for shell in shells:
        done = shell.run("publish", "/a", "not yet", "--durable", "1")
        assert done.returncode == 1
        assert "stored, but not safe yet" in done.stderr
        done = shell.run("publish", "/a", "--lines", "--durable", "1", input="1\n2\n")
        assert done.returncode == 1
        assert "2 messages were published" in done.stderr
    data = [json.loads(line)["data"] for line in store.run("backlog", "/a").stdout.splitlines()]
    assert data == ["safe", "safe", *["not yet", "1", "2"] * 2]


@pytest.mark.redis
def test_a_program_whose_lines_are_not_safe_yet_waits_and_each_is_stored_once(group: SentinelGroup) -> None:
    shell = Shell(group.servers[0].url)
    shell.environment |= {"MESSAGEBUS_DURABLE": "1", "MESSAGEBUS_STORE_TIMEOUT": "2"}
    shell.run("publish", "/a", "before")
    group.cut_off(group.servers[1])
    process = shell.start("exec", "/a", "--", "sh", "-c", "echo 1; echo 2")
    assert process.stderr is not None
    assert b"the program waits" in process.stderr.readline()
    group.go_on(group.servers[1])
    assert process.communicate(timeout=90)[1] == b""
    assert process.returncode == 0
    assert shell.data("backlog", "/a") == ["before", "1", "2"]
