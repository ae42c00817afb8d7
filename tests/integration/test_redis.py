"""What only Redis has: URLs, TLS, the layout that other programs share, outages."""

from __future__ import annotations

import logging
import signal
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import redis

from messagebus import Bus
from messagebus.backends import Publication, State, redis_feed
from messagebus.backends.redis import RedisBackend
from messagebus.errors import BackendUnavailable, InvalidOption, PublishQueueFull
from messagebus.message import Ids, encode_envelope
from messagebus.options import Options
from messagebus.publish_queue import PublishQueue
from tests.eventually import eventually
from tests.queued import publish as queued
from tests.recorder import Recorder
from tests.redis_server import RedisServer

pytestmark = pytest.mark.redis

LIMITS: dict[str, Any] = {"max_backlog_size": 1000, "max_backlog_age": 604_800}
Open = Callable[..., RedisBackend]


@pytest.fixture
def backends() -> Iterator[list[RedisBackend]]:
    """Backends that the test opened, to be closed behind it."""
    opened: list[RedisBackend] = []
    yield opened
    for backend in opened:
        backend.close()


@pytest.fixture
def open_redis(backends: list[RedisBackend]) -> Open:
    def make(url: str, **options: object) -> RedisBackend:
        backend = RedisBackend(Options(url=url, store_timeout=1.0, **options))  # type: ignore[arg-type]
        backends.append(backend)
        return backend

    return make


def publish(backend: RedisBackend, name: str, data: int) -> Ids:
    return backend.publish(name, encode_envelope(b"%d" % data), **LIMITS)


def listen(backend: RedisBackend) -> Recorder:
    recorder = Recorder()
    backend.listen(recorder)
    eventually(lambda: recorder.told("started"))
    return recorder


def check_all(backend: RedisBackend) -> None:
    """Every kind of connection works: the pool's and the feed's."""
    recorder = listen(backend)
    assert publish(backend, "/a", 1) == Ids(1, 1)
    eventually(lambda: recorder.data == [1])
    assert [message.data for message in backend.backlog("/a").messages] == [1]


# --- where it is ---


def test_a_unix_socket(redis_url: str, redis_server: RedisServer, open_redis: Open) -> None:
    check_all(open_redis(redis_server.unix_url))


def test_a_database_number_has_its_own_bus(redis_url: str, open_redis: Open) -> None:
    backend = open_redis(redis_url.replace("/0", "/3"))
    check_all(backend)
    assert open_redis(redis_url).state() == State(0, None)
    with redis.Redis.from_url(redis_url) as client:
        assert client.pubsub_channels() == [b"_message_bus_3"]


def test_a_password_is_used_and_never_shown(open_redis: Open, caplog: pytest.LogCaptureFixture) -> None:
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


def test_tls(tmp_path: Path, open_redis: Open) -> None:
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-days", "2"),
            *("-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    server = RedisServer(tls=(certificate, key))
    try:
        server.start()
        url = f"rediss://127.0.0.1:{server.tls_port}/0"
        with pytest.raises(BackendUnavailable, match="certificate"):
            open_redis(url).state()
        backend = open_redis(f"{url}?ssl_ca_certs={certificate}")
        check_all(backend)
        # More than one TLS record, and more than one read.
        recorder = listen(backend)
        backend.publish("/a", encode_envelope(b'"' + b"x" * 1_000_000 + b'"'), **LIMITS)
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
        RedisBackend(Options(url=url))
    assert caught.value.option == "url"
    assert "secret" not in str(caught.value)


# --- the layout ---


def test_the_keys_hold_to_the_byte_what_other_programs_expect(redis_url: str, open_redis: Open) -> None:
    backend = open_redis(redis_url)
    with redis.Redis.from_url(redis_url, protocol=2) as client, client.pubsub() as pubsub:
        pubsub.subscribe("_message_bus_0")
        envelope = b'{"data":{"a":"|"},"user_ids":null,"group_ids":[2],"client_ids":null}'
        backend.publish("/x", encode_envelope(b"1"), max_backlog_size=5, max_backlog_age=50)
        backend.publish("/a|b$|$s", envelope, max_backlog_size=5, max_backlog_age=100)
        stored = b"2|1|/a$$123$$b$$$123$$$s|" + envelope
        assert sorted(client.keys()) == sorted(
            [
                b"__mb_global_id_n",
                b"__mb_global_backlog_n",
                b"__mb_epoch",
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
        heard = [m for m in (pubsub.get_message(timeout=5) for _ in range(3)) if m and m["type"] == "message"]
        assert heard[1]["data"] == stored
        ages = {key: client.ttl(key) for key in client.scan_iter()}
        assert ages == {
            b"__mb_global_id_n": -1,
            b"__mb_epoch": -1,
            b"__mb_global_backlog_n": 100,
            b"__mb_backlog_id_n_/x": 200,
            b"__mb_backlog_n_/x": 50,
            b"__mb_backlog_id_n_/a|b$|$s": 400,
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


def test_messages_of_another_program_are_heard_and_read(redis_url: str, open_redis: Open) -> None:
    backend = open_redis(redis_url)
    recorder = listen(backend)
    with redis.Redis.from_url(redis_url) as client:
        publish_as_another_program(
            client,
            "/a|b$|$s",
            "/a$$123$$b$$$123$$$s",
            '{"data":{"é":1},"user_ids":[1],"group_ids":null,"client_ids":null}',
        )
    (heard,) = eventually(lambda: recorder.messages)
    (read,) = backend.backlog("/a|b$|$s").messages
    (globally,) = backend.global_backlog()
    for message in (heard, read, globally):
        assert (message.channel, message.site_id, message.data) == ("/a|b", "s", {"é": 1})
        assert (message.global_id, message.message_id, message.user_ids) == (1, 1, (1,))
    assert publish(backend, "/a|b$|$s", 2) == Ids(2, 2)


def test_what_cannot_be_decoded_is_logged_and_left_out(
    redis_url: str, open_redis: Open, caplog: pytest.LogCaptureFixture
) -> None:
    backend = open_redis(redis_url)
    recorder = listen(backend)
    publish(backend, "/a", 1)
    with redis.Redis.from_url(redis_url) as client:
        client.publish("_message_bus_0", b"nonsense")
        publish_as_another_program(client, "/a", "/a", "no envelope")
        client.publish("_message_bus_0", b"\xff\xfe|||")
        publish(backend, "/a", 3)
        eventually(lambda: recorder.data == [1, 3])
        assert [message.data for message in backend.backlog("/a").messages] == [1, 3]
        client.zadd("__mb_global_backlog_n", {"x": 4})
        client.set("__mb_global_id_n", 4)
        client.zadd("__mb_global_backlog_n", {"1|/s": 5})
        client.set("__mb_global_id_n", 5)
        client.set("__mb_backlog_n_/s", "a string")
        assert [message.data for message in backend.global_backlog()] == [1, 3]
        client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
        eventually(lambda: recorder.told("healthy") == [False, True])
    publish(backend, "/a", 6)
    eventually(lambda: recorder.data == [1, 3, 6])
    assert recorder.told("lost") == []
    assert all(record.levelno <= logging.WARNING for record in caplog.records)
    assert "not an envelope" in caplog.text


def test_an_error_of_redis_is_passed_on_in_its_words(redis_url: str, open_redis: Open) -> None:
    backend = open_redis(redis_url)
    with redis.Redis.from_url(redis_url) as client:
        client.set("__mb_backlog_n_/a", "a string")
    with pytest.raises(BackendUnavailable, match="WRONGTYPE"):
        publish(backend, "/a", 1)


def test_the_script_is_loaded_again_when_redis_has_forgotten_it(redis_url: str, open_redis: Open) -> None:
    backend = open_redis(redis_url)
    publish(backend, "/a", 1)
    with redis.Redis.from_url(redis_url) as client:
        client.script_flush()
    assert publish(backend, "/a", 2) == Ids(2, 2)


def test_a_publish_that_is_interrupted_leaves_no_answer_to_the_next_one(
    redis_url: str, open_redis: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = open_redis(redis_url)
    publish(backend, "/a", 1)

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        # Between the command and its answer, where Ctrl-C or the killing of a greenlet may come.
        patch.setattr(redis.Connection, "read_response", interrupt)
        with pytest.raises(KeyboardInterrupt):
            publish(backend, "/a", 2)
    assert publish(backend, "/b", 3) == Ids(1, 3)


def test_of_several_sizes_for_one_channel_at_once_the_last_holds(redis_url: str, open_redis: Open) -> None:
    backend = open_redis(redis_url)
    publications = [Publication("/a", encode_envelope(b"1"), size, 60) for size in (1000, 1, 2, 3)]
    assert [ids.message_id for ids in backend.publish_many(publications)] == [1, 2, 3, 4]
    assert [message.message_id for message in backend.backlog("/a").messages] == [2, 3, 4]


def test_each_life_of_the_store_has_another_epoch(redis_url: str, open_redis: Open) -> None:
    backend = open_redis(redis_url)
    epochs = set()
    for number in range(5):
        publish(backend, "/a", number)
        epochs.add(backend.state().epoch)
        backend.reset()
    assert len(epochs) == 5


def test_the_pubsub_channel_can_be_named(redis_url: str, open_redis: Open) -> None:
    backend = open_redis(redis_url.replace("/0", "/2"), redis_pubsub_channel="_message_bus_0")
    check_all(backend)
    with redis.Redis.from_url(redis_url) as client:
        assert client.pubsub_channels() == [b"_message_bus_0"]


def test_many_threads_share_a_bounded_number_of_connections(redis_url: str, open_redis: Open) -> None:
    backend = open_redis(redis_url)
    with ThreadPoolExecutor(80) as executor:
        list(executor.map(lambda number: publish(backend, "/a", number), range(400)))
    assert backend.state().global_id == 400
    with redis.Redis.from_url(redis_url) as client:
        assert client.info("clients")["connected_clients"] <= 40


# --- outages ---


def test_redis_killed_and_back_with_its_data_no_message_is_missed_and_the_queued_ones_come_in_order(
    open_redis: Open, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "messagebus")
    server = RedisServer(aof=True)
    try:
        backend = open_redis(server.start().url)
        other = open_redis(server.url)
        queue = PublishQueue(backend, 20)
        recorder = listen(backend)
        for number in range(5):
            assert queued(queue, number) is not None
        eventually(lambda: len(recorder.messages) == 5)
        server.kill()
        eventually(lambda: recorder.told("healthy") == [False])
        with pytest.raises(BackendUnavailable):
            queued(queue, -1, queue_in_memory=False)
        for number in range(5, 25):
            assert queued(queue, number) is None
        with pytest.raises(PublishQueueFull):
            queued(queue, -1)
        with pytest.raises(BackendUnavailable, match="wait"):
            queued(queue, -1, queue_in_memory=False)
        server.start()
        eventually(lambda: len(queue) == 0)
        assert queued(queue, 25) == Ids(26, 26)
        eventually(lambda: len(recorder.messages) == 26)
        assert recorder.data == list(range(26))
        assert recorder.told("lost") == []
        eventually(lambda: recorder.told("healthy") == [False, True])
        assert [message.data for message in other.backlog("/a").messages] == list(range(26))
        feed_log = [record.levelname for record in caplog.records if record.name.endswith("feed_thread")]
        assert feed_log == ["WARNING", "INFO"]
        queue.close(1)
    finally:
        server.stop()


def test_redis_killed_and_back_without_its_data_is_noticed_as_a_reset(
    mortal_redis: RedisServer, open_redis: Open
) -> None:
    backend = open_redis(mortal_redis.url)
    recorder = listen(backend)
    for number in range(3):
        publish(backend, "/a", number)
    eventually(lambda: len(recorder.messages) == 3)
    mortal_redis.kill()
    mortal_redis.start()
    eventually(lambda: recorder.told("healthy") == [False, True])
    assert recorder.told("lost") == [State(0, backend.state().epoch)]
    assert publish(backend, "/a", 7) == Ids(1, 1)
    eventually(lambda: recorder.data == [0, 1, 2, 7])


def test_a_feed_begins_when_redis_comes_up_later(open_redis: Open) -> None:
    server = RedisServer()
    try:
        backend = open_redis(server.url)
        recorder = Recorder()
        backend.listen(recorder)
        eventually(lambda: recorder.told("healthy") == [False])
        server.start()
        eventually(lambda: recorder.events[1:] == [("started", backend.state()), ("healthy", True)])
    finally:
        server.stop()


def test_a_redis_that_turned_read_only_makes_publishes_wait_until_it_takes_them(
    mortal_redis: RedisServer, open_redis: Open
) -> None:
    backend = open_redis(mortal_redis.url)
    queue = PublishQueue(backend, 10)
    recorder = listen(backend)
    assert queued(queue, 1) == Ids(1, 1)
    with mortal_redis.client() as client:
        client.replicaof("127.0.0.1", 1)  # nothing is there: it keeps its data, and takes no writes
        with pytest.raises(BackendUnavailable, match=r"(?i)read.?only"):
            publish(backend, "/a", 0)
        assert queued(queue, 2) is None
        assert queued(queue, 3) is None
        client.replicaof("NO", "ONE")
    eventually(lambda: recorder.data == [1, 2, 3])
    queue.close(1)


def test_a_server_that_hangs_is_noticed_by_the_feed(
    mortal_redis: RedisServer, open_redis: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("messagebus.backends.redis_feed.QUIET", 0.2)
    backend = open_redis(mortal_redis.url)
    recorder = listen(backend)
    assert mortal_redis.process is not None
    mortal_redis.process.send_signal(signal.SIGSTOP)
    try:
        eventually(lambda: recorder.told("healthy") == [False])
    finally:
        mortal_redis.process.send_signal(signal.SIGCONT)
    eventually(lambda: recorder.told("healthy") == [False, True])
    publish(backend, "/a", 1)
    eventually(lambda: recorder.data == [1])


def test_a_quiet_feed_stays_up_by_asking_now_and_then(
    redis_url: str, open_redis: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("messagebus.backends.redis_feed.QUIET", 0.02)
    backend = open_redis(redis_url)
    with redis.Redis.from_url(redis_url) as client:
        before = client.info("commandstats").get("cmdstat_ping", {"calls": 0})["calls"]
        recorder = listen(backend)
        eventually(lambda: client.info("commandstats").get("cmdstat_ping", {"calls": 0})["calls"] >= before + 5)
    publish(backend, "/a", 1)
    eventually(lambda: recorder.data == [1])
    assert recorder.told("healthy") == []


def test_what_the_global_backlog_no_longer_has_is_said_to_be_lost(redis_url: str, open_redis: Open) -> None:
    backend = open_redis(redis_url, max_global_backlog_size=3)
    recorder = listen(backend)
    publish(backend, "/a", 1)
    eventually(lambda: recorder.data == [1])
    # One transaction: the feed cannot be back before all of it is done.
    with redis.Redis.from_url(redis_url) as client, client.pipeline(transaction=True) as pipeline:
        pipeline.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
        pipeline.set("__mb_global_id_n", 9)
        pipeline.zadd("__mb_global_backlog_n", {"9|/a": 9})
        pipeline.execute()
    eventually(lambda: recorder.told("healthy") == [False, True])
    assert recorder.told("lost") == [State(9, backend.state().epoch)]
    publish(backend, "/a", 2)
    eventually(lambda: recorder.data == [1, 2])


def test_a_feed_that_is_open_and_dead_says_so_and_loses_nothing(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # What others publish is announced under another name than the one that this process listens to.
    monkeypatch.setattr(redis_feed, "QUIET", 0.1)
    deaf = Bus(url=redis_url, redis_pubsub_channel="nobody-publishes-here")
    publisher = Bus(url=redis_url)
    heard: list[object] = []
    deaf.subscribe("/chat", lambda message: heard.append(message.data))
    for number in range(3):
        publisher.publish("/chat", number)
        eventually(lambda number=number: heard == list(range(number + 1)))  # type: ignore[misc]
    eventually(lambda: "does not deliver what is published" in caplog.text)
    deaf.close()
    publisher.close()
