"""Redis that answers, and says no: what is refused leaves nothing behind, and blocks nobody."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from messagebus import BackendUnavailable, Bus, PublishRefused
from messagebus.message import encode_envelope
from messagebus.stores import BacklogQuery, Publication, PublicationId
from tests.eventually import eventually
from tests.redis_server import RedisServer
from tests.store_helpers import listen, publish

from .conftest import OpenRedis

pytestmark = pytest.mark.redis

ALL = ("on", ">pw", "~*", "+@all", "&*")


@pytest.fixture
def admin(mortal_redis: RedisServer) -> Iterator[redis.Redis]:
    with mortal_redis.client() as client:
        yield client


def user(admin: redis.Redis, *rules: str) -> None:
    admin.execute_command("ACL", "SETUSER", "bus", "reset", *rules)  # type: ignore[no-untyped-call]


def url_of_user(server: RedisServer) -> str:
    return server.url.replace("redis://", "redis://bus:pw@")


def everything(client: redis.Redis) -> dict[bytes, Any]:
    """All that is in Redis, but for how long it lives."""
    return {key: client.dump(key) for key in client.scan_iter()}


# --- rights ---


def test_a_user_without_pubsub_stores_nothing_however_often_he_tries_and_is_heard_after_the_grant(
    mortal_redis: RedisServer, admin: redis.Redis
) -> None:
    user(admin, "on", ">pw", "~*", "+@all", "resetchannels")
    good, bad = Bus(url=mortal_redis.url), Bus(url=url_of_user(mortal_redis))
    good.publish_many([("/chat", f"old {number}") for number in range(30)])
    heard: list[object] = []
    before = everything(admin)
    for number in range(100):
        with pytest.raises(PublishRefused, match="PUBLISH _message_bus_0") as caught:
            bad.publish("/chat", number)
    assert caught.value.reason == "forbidden"
    assert everything(admin) == before
    user(admin, *ALL)
    bad.subscribe("/chat", lambda message: heard.append(message.data))
    assert [bad.publish("/chat", number) for number in range(2)] == [31, 32]
    eventually(lambda: heard == [0, 1])
    assert [message.data for message in bad.backlog("/chat", 30)] == [0, 1]
    good.close()
    bad.close()


@pytest.mark.parametrize(
    "missing",
    [
        "-evalsha",
        "-mget",
        "-zcard",
        "-set",
        "-setbit",
        "-zadd",
        "-expire",
        "-zremrangebyscore",
        "-publish",
        "~__mb_global_id_n ~__mb_epoch ~__mb_known* ~__mb_publication* ~__mb_backlog*",
        "~__mb_global* ~__mb_epoch ~__mb_known* ~__mb_publication*",
        "~__mb_global* ~__mb_epoch ~__mb_known* ~__mb_backlog*",
        "~__mb_global* ~__mb_epoch ~__mb_publication* ~__mb_backlog*",
        "~__mb_global* ~__mb_epoch ~__mb_known* ~__mb_publication* ~__mb_backlog_n*",
        "~__mb_global* ~__mb_epoch ~__mb_known* ~__mb_publication* ~__mb_backlog_id*",
        "%R~*",
    ],
)
def test_a_right_that_is_missing_is_named_and_nothing_is_half_done(
    mortal_redis: RedisServer, admin: redis.Redis, open_redis: OpenRedis, missing: str
) -> None:
    store = open_redis(url_of_user(mortal_redis))
    user(admin, *ALL)
    publish(store, "/a", 1)
    user(admin, *ALL, *(["resetkeys"] if "~" in missing else []), *missing.split())
    before = everything(admin)
    messages = [Publication(name, encode_envelope(b"1"), 1, 100) for name in ("/a", "/new")]
    with pytest.raises(PublishRefused) as caught:
        store.publish_many(messages, PublicationId("lane", 1))
    assert caught.value.reason == "forbidden"
    assert everything(admin) == before
    user(admin, *ALL)
    assert [ids.global_id for ids in store.publish_many(messages, PublicationId("lane", 1))] == [2, 3]


def test_the_rights_that_a_refusal_names_are_enough(mortal_redis: RedisServer, admin: redis.Redis) -> None:
    bus = Bus(url=url_of_user(mortal_redis))
    user(admin, "on", ">pw")
    with pytest.raises(PublishRefused) as caught:
        bus.publish("/a", 1)
    rights = str(caught.value).partition("ACL SETUSER <user> ")[2].split()
    assert len(rights) > 3
    user(admin, "on", ">pw", *rights)
    heard: list[object] = []
    bus.subscribe("/a", lambda message: heard.append(message.data))
    assert bus.publish("/a", 1) == 1
    eventually(lambda: heard == [1])
    assert [message.data for message in bus.global_backlog()] == [1]
    assert bus.last_id("/a") == 1
    bus.expire_all_backlogs()
    bus.reset()
    bus.close()


def test_a_wrong_password_is_a_refusal_and_is_mended_without_a_restart(
    mortal_redis: RedisServer, admin: redis.Redis
) -> None:
    bus = Bus(url=url_of_user(mortal_redis))
    with pytest.raises(PublishRefused) as caught:
        bus.publish("/a", 1)
    assert caught.value.reason == "unauthenticated"
    assert "pw" not in str(caught.value)
    user(admin, *ALL)
    assert bus.publish("/a", 1) == 1
    bus.close()


# --- keys of another type ---


@pytest.mark.parametrize("content", ["text", "list"])
@pytest.mark.parametrize(
    "key", ["__mb_global_id_n", "__mb_global_backlog_n", "__mb_backlog_id_n_/a", "__mb_backlog_n_/a"]
)
def test_a_key_of_another_type_is_refused_and_the_others_go_on(
    mortal_redis: RedisServer, admin: redis.Redis, key: str, content: str
) -> None:
    if content == "list":
        admin.rpush(key, "x")
    else:
        admin.set(key, "x")
    check_wrong_type(mortal_redis, admin, key)


def test_known_channels_of_another_type_are_refused(mortal_redis: RedisServer, admin: redis.Redis) -> None:
    admin.rpush("__mb_known_channels", "x")
    check_wrong_type(mortal_redis, admin, "__mb_known_channels")


def check_wrong_type(server: RedisServer, admin: redis.Redis, key: str) -> None:
    bus = Bus(url=server.url)
    before = everything(admin)
    for _ in range(3):
        with pytest.raises(PublishRefused) as caught:
            bus.publish("/a", 1)
    assert caught.value.reason == "wrong type"
    with pytest.raises(PublishRefused):
        bus.publish_many([("/b", 1), ("/a", 2), ("/b", 3)])
    assert everything(admin) == before
    if "/a" in key:
        assert bus.publish("/b", 1) == 1
    admin.delete(key)
    assert bus.publish("/a", 1) == 1
    bus.close()


# --- while messages wait ---


def test_of_those_that_wait_a_refused_one_is_logged_with_its_reason_and_the_others_are_written(
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = RedisServer(aof=True)
    try:
        bus = Bus(url=server.start().url)
        bus.publish("/warm", 0)
        with server.client() as admin:
            admin.set("__mb_backlog_n_/bad", "a string")
            before = admin.get("__mb_global_id_n")
        server.kill()
        names = ["/bad" if number % 50 == 7 else f"/{number % 3}" for number in range(200)]
        assert [bus.publish(name, number) for number, name in enumerate(names)] == [None] * 200
        server.start()
        eventually(lambda: not len(bus._publisher_now().queue))
        for channel in range(3):
            assert [message.data for message in bus.backlog(f"/{channel}")] == [
                number for number, name in enumerate(names) if name == f"/{channel}"
            ]
        refused = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
        assert len(refused) == 4
        assert all("/bad" in message and "wrong type" in message and "WRONGTYPE" in message for message in refused)
        with server.client() as admin:
            assert before is not None
            assert int(admin.get("__mb_global_id_n") or 0) == int(before) + 196
        bus.close()
    finally:
        server.stop()


def test_those_that_wait_outlast_a_redis_that_comes_back_without_its_users(
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = RedisServer()
    try:
        bus = Bus(url=url_of_user(server.start()))
        with server.client() as admin:
            user(admin, *ALL)
        assert bus.publish("/a", 0) == 1
        server.kill()
        assert [bus.publish("/a", number) for number in range(1, 200)] == [None] * 199
        server.start()
        eventually(lambda: "lets nobody in" in caplog.text)
        with pytest.raises(BackendUnavailable, match="password") as caught:
            bus.publish("/a", 200, queue_in_memory=False)
        assert caught.value.reason == "unauthenticated"
        with server.client() as admin:
            user(admin, *ALL)
        eventually(lambda: not len(bus._publisher_now().queue))
        assert [message.data for message in bus.backlog("/a")] == list(range(1, 200))
        assert "was lost" not in caplog.text
        bus.close()
    finally:
        server.stop()


# --- no room, no time ---


def fill(admin: redis.Redis) -> None:
    admin.config_set("maxmemory-policy", "noeviction")
    admin.config_set("maxmemory", "100kb")
    with pytest.raises(redis.ResponseError):
        admin.set("x", 1)


def test_a_full_redis_refuses_whole_messages_and_is_still_read(
    mortal_redis: RedisServer, admin: redis.Redis, open_redis: OpenRedis, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "messagebus")
    bus = Bus(url=mortal_redis.url)
    bus.publish_many([("/chat", "before"), ("/chat", "too")])
    fill(admin)
    before = everything(admin)
    with pytest.raises(BackendUnavailable, match="maxmemory") as caught:
        bus.publish("/chat", "direct", queue_in_memory=False)
    assert caught.value.reason == "full"
    assert [bus.publish("/chat", number) for number in range(50)] == [None] * 50
    assert [bus.publish("/new", number) for number in range(5)] == [None] * 5
    with pytest.raises(BackendUnavailable, match=r"55 earlier messages .*maxmemory") as caught:
        bus.publish("/chat", "direct", queue_in_memory=False)
    assert caught.value.reason == "full"
    # Another process, which begins meanwhile.
    store = open_redis(mortal_redis.url)
    recorder = listen(store)
    assert [message.data for message in store.backlog("/chat").messages] == ["before", "too"]
    assert len(store.backlogs([BacklogQuery("/chat", -1)], 1000)[0].messages) == 1
    assert store.last_ids(["/chat"]) == [2]
    assert [message.data for message in store.global_backlog()] == ["before", "too"]
    assert [message.data for message in bus.backlog("/chat")] == ["before", "too"]
    assert everything(admin) == before
    admin.config_set("maxmemory", "0")
    eventually(lambda: not len(bus._publisher_now().queue))
    assert bus.publish("/chat", "after") == 53
    eventually(lambda: recorder.data == [*range(50), *range(5), "after"])
    log = [record.getMessage() for record in caplog.records if record.module in ("publish_queue", "publish_line")]
    assert len(log) == 2
    assert "the store is full" in log[0]
    assert "the store is back" in log[1]
    bus.close()


def test_a_primary_without_its_replicas_is_busy_and_takes_nothing_half(
    mortal_redis: RedisServer, admin: redis.Redis, open_redis: OpenRedis
) -> None:
    store = open_redis(mortal_redis.url)
    publish(store, "/a", 1)
    before = everything(admin)
    admin.config_set("min-replicas-to-write", 1)
    with pytest.raises(BackendUnavailable, match="NOREPLICAS") as caught:
        publish(store, "/b", 1)
    assert caught.value.reason == "busy"
    assert everything(admin) == before
    assert [message.data for message in store.backlog("/a").messages] == [1]


def test_a_redis_that_is_busy_with_a_script_is_busy_and_not_a_refusal(
    mortal_redis: RedisServer, admin: redis.Redis, open_redis: OpenRedis
) -> None:
    store = open_redis(mortal_redis.url)
    publish(store, "/a", 1)
    admin.config_set("lua-time-limit", 10)
    with mortal_redis.client(socket_timeout=0.2) as other:
        with pytest.raises(redis.RedisError):
            other.eval("while true do end", 0)
        with pytest.raises(BackendUnavailable, match="BUSY") as caught:
            publish(store, "/a", 2)
        assert caught.value.reason == "busy"
        admin.script_kill()

    def takes_it() -> bool:
        try:
            return publish(store, "/a", 2).message_id == 2
        except BackendUnavailable:  # the script ends a moment later
            return False

    eventually(takes_it)


def test_a_server_without_the_script_command_is_a_refusal(tmp_path: Any) -> None:
    server = RedisServer()
    server._command += ["--rename-command", "EVALSHA", ""]
    try:
        bus = Bus(url=server.start().url)
        with pytest.raises(PublishRefused, match=r"(?i)unknown command") as caught:
            bus.publish("/a", 1)
        assert caught.value.reason == "unsupported"
        bus.close()
    finally:
        server.stop()
