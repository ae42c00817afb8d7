"""What only Redis has: URLs, TLS, the layout that other programs share."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import redis

from messagebus.errors import BackendUnavailable, InvalidOption, PublishRefused
from messagebus.message import Ids, encode_envelope
from messagebus.options import Options
from messagebus.stores import Publication, StoreState
from messagebus.stores.redis import RedisStore
from tests.eventually import eventually
from tests.recorder import Recorder
from tests.redis_server import RedisServer
from tests.store_helpers import LIMITS, check_all, listen, make_certificate, publish

from .conftest import OpenRedis

pytestmark = pytest.mark.redis


# --- where it is ---


def test_a_unix_socket(redis_url: str, redis_server: RedisServer, open_redis: OpenRedis) -> None:
    check_all(open_redis(redis_server.unix_url))


def test_a_database_number_has_its_own_bus(redis_url: str, open_redis: OpenRedis) -> None:
    store = open_redis(redis_url.replace("/0", "/3"))
    check_all(store)
    assert open_redis(redis_url).state() == StoreState(0, None)
    with redis.Redis.from_url(redis_url) as client:
        assert {*client.pubsub_channels()} == {b"_message_bus_3", b"_message_bus_3_announcements"}


def test_a_password_is_used_and_never_shown(open_redis: OpenRedis, caplog: pytest.LogCaptureFixture) -> None:
    server = RedisServer(password="hunter2")
    try:
        server.start()
        check_all(open_redis(server.url))
        wrong = open_redis(server.url.replace("hunter2", "hunter3"))
        with pytest.raises(BackendUnavailable) as caught:
            wrong.state()
        recorder = Recorder()
        wrong.listen(recorder)
        eventually(lambda: recorder.told("healthy") == [False])
        assert "hunter" not in str(caught.value) + caplog.text
        assert str(server.port) in str(caught.value)
    finally:
        server.stop()


def test_tls(tmp_path: Path, open_redis: OpenRedis) -> None:
    certificate, key = make_certificate(tmp_path)
    server = RedisServer(tls=(certificate, key))
    try:
        server.start()
        url = f"rediss://127.0.0.1:{server.tls_port}/0"
        with pytest.raises(BackendUnavailable, match="certificate"):
            open_redis(url).state()
        store = open_redis(f"{url}?ssl_ca_certs={certificate}")
        check_all(store)
        # More than one TLS record, and more than one read.
        recorder = listen(store)
        store.publish("/a", encode_envelope(b'"' + b"x" * 1_000_000 + b'"'), **LIMITS)
        eventually(lambda: [len(message.raw) for message in recorder.messages] == [1_000_002])
    finally:
        server.stop()


@pytest.mark.parametrize(
    "url",
    [
        "redis://:secret@localhost:port/0",
        "redis://:secret@localhost/database",
        "redis://:secret@localhost/0?socket_timeout=soon",
        "redis://:secret@localhost/0?colour=blue",
        "redis://:secret@localhost/0?db=x",
    ],
)
def test_a_malformed_url_is_refused_at_once_and_without_showing_the_password(url: str) -> None:
    with pytest.raises(InvalidOption) as caught:
        RedisStore(Options(url=url))
    assert caught.value.option == "url"
    assert "secret" not in str(caught.value)


# --- the layout ---


def test_the_keys_hold_to_the_byte_what_other_programs_expect(redis_url: str, open_redis: OpenRedis) -> None:
    store = open_redis(redis_url)
    with redis.Redis.from_url(redis_url, protocol=2) as client, client.pubsub() as pubsub:
        pubsub.subscribe("_message_bus_0")
        envelope = b'{"data":{"a":"|"},"user_ids":null,"group_ids":[2],"client_ids":null}'
        store.publish("/x", encode_envelope(b"1"), max_backlog_size=5, max_backlog_age=50)
        store.publish("/a|b$|$s", envelope, max_backlog_size=5, max_backlog_age=100)
        stored = b"2|1|/a$$123$$b$$$123$$$s|" + envelope
        assert sorted(client.keys()) == sorted(
            [
                b"__mb_global_id_n",
                b"__mb_global_backlog_n",
                b"__mb_epoch",
                b"__mb_history",
                b"__mb_known_channels",
                b"__mb_backlog_id_n_/x",
                b"__mb_backlog_n_/x",
                b"__mb_backlog_id_n_/a|b$|$s",
                b"__mb_backlog_n_/a|b$|$s",
            ]
        )
        assert client.get("__mb_global_id_n") == b"2"
        assert client.get("__mb_backlog_id_n_/a|b$|$s") == b"1"
        assert client.zrange("__mb_backlog_n_/a|b$|$s", 0, -1, withscores=True) == [(stored, 1.0)]
        assert client.zrange("__mb_global_backlog_n", 0, -1, withscores=True) == [
            (b"1|/x", 1.0),
            (b"1|/a|b$|$s", 2.0),
        ]
        heard = [m for m in (pubsub.get_message(timeout=30) for _ in range(3)) if m and m["type"] == "message"]
        assert heard[1]["data"] == stored
        ages = {key: client.ttl(key) for key in client.scan_iter()}
        assert ages == {
            b"__mb_global_id_n": -1,
            b"__mb_epoch": -1,
            b"__mb_history": -1,
            b"__mb_global_backlog_n": 100,
            b"__mb_known_channels": -1,
            b"__mb_backlog_id_n_/x": 86_400,
            b"__mb_backlog_n_/x": 50,
            b"__mb_backlog_id_n_/a|b$|$s": 86_400,
            b"__mb_backlog_n_/a|b$|$s": 100,
        }


def publish_as_another_program(client: redis.Redis, name: str, stored_name: str, envelope: str) -> None:
    """As the Ruby gem does, all in one step, without an epoch. For a test that has no other publisher at the time."""
    global_id = int(client.get("__mb_global_id_n") or 0) + 1
    message_id = int(client.get(f"__mb_backlog_id_n_{name}") or 0) + 1
    stored = f"{global_id}|{message_id}|{stored_name}|{envelope}"
    with client.pipeline(transaction=True) as step:
        step.incr("__mb_global_id_n")
        step.incr(f"__mb_backlog_id_n_{name}")
        step.zadd(f"__mb_backlog_n_{name}", {stored: message_id})
        step.zadd("__mb_global_backlog_n", {f"{message_id}|{name}": global_id})
        step.publish("_message_bus_0", stored)
        step.execute()


def test_messages_of_another_program_are_heard_and_read(redis_url: str, open_redis: OpenRedis) -> None:
    store = open_redis(redis_url)
    recorder = listen(store)
    with redis.Redis.from_url(redis_url) as client:
        publish_as_another_program(
            client,
            "/a|b$|$s",
            "/a$$123$$b$$$123$$$s",
            '{"data":{"é":1},"user_ids":[1],"group_ids":null,"client_ids":null}',
        )
    (heard,) = eventually(lambda: recorder.messages)
    (read,) = store.backlog("/a|b$|$s").messages
    (globally,) = store.global_backlog()
    for message in (heard, read, globally):
        assert (message.channel, message.site_id, message.data) == ("/a|b", "s", {"é": 1})
        assert (message.global_id, message.message_id, message.user_ids) == (1, 1, (1,))
    assert publish(store, "/a|b$|$s", 2) == Ids(2, 2)


def test_what_cannot_be_decoded_is_logged_and_left_out(
    redis_url: str, open_redis: OpenRedis, caplog: pytest.LogCaptureFixture
) -> None:
    store = open_redis(redis_url)
    recorder = listen(store)
    publish(store, "/a", 1)
    with redis.Redis.from_url(redis_url) as client:
        client.publish("_message_bus_0", b"nonsense")
        publish_as_another_program(client, "/a", "/a", "no envelope")
        client.publish("_message_bus_0", b"\xff\xfe|||")
        publish(store, "/a", 3)
        eventually(lambda: recorder.data == [1, 3])
        assert [message.data for message in store.backlog("/a").messages] == [1, 3]
        client.zadd("__mb_global_backlog_n", {"x": 4})
        client.set("__mb_global_id_n", 4)
        client.zadd("__mb_global_backlog_n", {"1|/s": 5})
        client.set("__mb_global_id_n", 5)
        client.set("__mb_backlog_n_/s", "a string")
        assert [message.data for message in store.global_backlog()] == [1, 3]
        client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
        eventually(lambda: recorder.told("healthy") == [False, True])
    publish(store, "/a", 6)
    eventually(lambda: recorder.data == [1, 3, 6])
    assert recorder.told("resync") == []
    assert all(record.levelno <= logging.WARNING for record in caplog.records)
    assert "not an envelope" in caplog.text


def test_an_error_of_redis_is_passed_on_in_its_words(redis_url: str, open_redis: OpenRedis) -> None:
    store = open_redis(redis_url)
    with redis.Redis.from_url(redis_url) as client:
        client.set("__mb_backlog_n_/a", "a string")
    with pytest.raises(PublishRefused, match="WRONGTYPE") as caught:
        publish(store, "/a", 1)
    assert caught.value.reason == "wrong type"


def test_the_script_is_loaded_again_when_redis_has_forgotten_it(redis_url: str, open_redis: OpenRedis) -> None:
    store = open_redis(redis_url)
    publish(store, "/a", 1)
    with redis.Redis.from_url(redis_url) as client:
        client.script_flush()
    assert publish(store, "/a", 2) == Ids(2, 2)


def test_a_publish_that_is_interrupted_leaves_no_answer_to_the_next_one(
    redis_url: str, open_redis: OpenRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_redis(redis_url)
    publish(store, "/a", 1)

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        # Between the command and its answer, where Ctrl-C or the killing of a greenlet may come.
        patch.setattr(redis.Connection, "read_response", interrupt)
        with pytest.raises(KeyboardInterrupt):
            publish(store, "/a", 2)
    assert publish(store, "/b", 3) == Ids(1, 3)


def test_of_several_sizes_for_one_channel_at_once_the_last_holds(redis_url: str, open_redis: OpenRedis) -> None:
    store = open_redis(redis_url)
    publications = [Publication("/a", encode_envelope(b"1"), size, 60) for size in (1000, 1, 2, 3)]
    assert [ids.message_id for ids in store.publish_many(publications)] == [1, 2, 3, 4]
    assert [message.message_id for message in store.backlog("/a").messages] == [2, 3, 4]


def test_each_life_of_the_store_has_another_epoch(redis_url: str, open_redis: OpenRedis) -> None:
    store = open_redis(redis_url)
    epochs = set()
    for number in range(5):
        publish(store, "/a", number)
        epochs.add(store.state().epoch)
        store.reset()
    assert len(epochs) == 5


def test_the_pubsub_channel_can_be_named(redis_url: str, open_redis: OpenRedis) -> None:
    store = open_redis(redis_url.replace("/0", "/2"), redis_pubsub_channel="_message_bus_0")
    check_all(store)
    with redis.Redis.from_url(redis_url) as client:
        assert {*client.pubsub_channels()} == {b"_message_bus_0", b"_message_bus_0_announcements"}


def test_many_threads_share_a_bounded_number_of_connections(redis_url: str, open_redis: OpenRedis) -> None:
    store = open_redis(redis_url)
    with ThreadPoolExecutor(80) as executor:
        list(executor.map(lambda number: publish(store, "/a", number), range(400)))
    assert store.state().global_id == 400
    with redis.Redis.from_url(redis_url) as client:
        assert client.info("clients")["connected_clients"] <= 40
