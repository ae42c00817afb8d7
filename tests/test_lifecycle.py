"""How a bus begins, goes on under new settings and in a forked child, and ends, where it does no more than publish."""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path

import flask
import pytest

from messagebus import Bus, InvalidOption, Message, MessageTooLarge
from messagebus.hub.node import Node

from .eventually import eventually
from .redis_server import RedisServer


def test_who_listens_after_publishing_hears_what_comes_from_then_on(redis_url: str) -> None:
    bus = Bus(url=redis_url)
    bus.publish("/a", 1)
    heard: list[object] = []
    bus.subscribe("/a", lambda message: heard.append(message.data))
    bus.publish("/a", 2)
    eventually(lambda: heard == [2])
    # The callback may have read the message in the store, before the feed stood.
    eventually(lambda: (seen := bus.seen()) is not None and seen.global_id == 2)
    bus.close()


@pytest.mark.parametrize("store", ["memory", "redis"])
def test_subscriptions_go_on_under_new_settings_when_the_first_use_is_a_publish(
    store: str, request: pytest.FixtureRequest
) -> None:
    bus = Bus(url="memory://" if store == "memory" else request.getfixturevalue("redis_url"))
    heard: list[object] = []
    bus.subscribe("/a", lambda message: heard.append(message.data))
    bus.configure(window_size=7)
    bus.publish("/a", 1)
    eventually(lambda: heard == [1])
    bus.close()


def test_threads_that_publish_first_at_the_same_time_share_one_store() -> None:
    bus = Bus(url="memory://")
    barrier = threading.Barrier(8)

    def publish() -> None:
        barrier.wait()
        bus.publish("/a", 1)

    threads = [threading.Thread(target=publish) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert bus.last_id("/a") == 8
    bus.close()


def test_closing_writes_what_a_process_that_only_published_had_kept(mortal_redis: RedisServer) -> None:
    bus = Bus(url=mortal_redis.url)
    bus.publish("/a", 1)
    mortal_redis.kill()
    assert bus.publish("/a", 2) is None
    assert bus.publish_many([("/a", 3), ("/a", 4)]) == [None, None]
    mortal_redis.start()
    bus.close()
    bus.configure()
    assert [message.data for message in bus.backlog("/a")] == [2, 3, 4]
    bus.close()


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_process_that_only_publishes_may_fork_and_both_go_on(redis_url: str) -> None:
    bus = Bus(url=redis_url)
    assert bus.publish("/a", "parent") == 1
    child = os.fork()
    if child == 0:  # pragma: no cover - coverage does not see the child
        status = 1
        try:
            assert bus.publish("/a", "child") == 2
            assert bus.publish_many([("/a", "child")]) == [3]
            bus.close()
            status = 0
        finally:
            os._exit(status)
    _, result = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(result) == 0
    assert bus.publish("/a", "parent") == 4
    assert [message.data for message in bus.backlog("/a")] == ["parent", "child", "child", "parent"]
    bus.close()


@pytest.mark.redis
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("asks", [None, "start", "subscribe", "option"])
def test_a_forked_child_calls_its_parents_callbacks_when_it_asks_for_them(
    redis_url: str, tmp_path: Path, asks: str | None
) -> None:
    calls = tmp_path / "calls"
    calls.touch()

    def note(message: Message) -> None:
        with calls.open("a") as file:
            file.write(f"{os.getpid()}\n")

    bus = Bus(url=redis_url, callbacks_after_fork=asks == "option")
    bus.subscribe("/a", note)
    bus.publish("/a", 1)
    eventually(lambda: calls.read_text().split() == [str(os.getpid())])
    child = os.fork()
    if child == 0:  # pragma: no cover - coverage does not see the child
        status = 1
        try:
            if asks == "start":
                bus.start()
            elif asks == "subscribe":
                bus.subscribe("/else", lambda message: None)
            heard = threading.Event()
            with contextlib.closing(Bus(url=redis_url)) as other:
                other.subscribe("/a", lambda message: heard.set())
                assert bus.publish("/a", 2) == 2
                assert heard.wait(30)
            if asks is not None:
                eventually(lambda: str(os.getpid()) in calls.read_text().split())
            bus.close()
            status = 0
        finally:
            os._exit(status)
    _, result = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(result) == 0
    eventually(lambda: calls.read_text().split().count(str(os.getpid())) == 2)
    assert calls.read_text().split().count(str(child)) == (0 if asks is None else 1)
    bus.close()


def test_a_start_that_failed_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    bus = Bus(url="memory://")
    failures = [RuntimeError("can't start new thread")]
    start = Node.start

    def fail_once(node: Node) -> None:
        if failures:
            raise failures.pop()
        start(node)

    monkeypatch.setattr(Node, "start", fail_once)
    with pytest.raises(RuntimeError, match="new thread"):
        bus.start()
    heard: list[object] = []
    bus.subscribe("/a", lambda message: heard.append(message.data))
    bus.publish("/a", 1)
    eventually(lambda: heard == [1])
    bus.close()


def test_a_first_use_beside_new_settings_never_keeps_the_old_ones() -> None:
    for _ in range(50):
        bus = Bus(url="memory://")
        barrier = threading.Barrier(2)

        def use(bus: Bus = bus, barrier: threading.Barrier = barrier) -> None:
            barrier.wait()
            bus.publish("/a", 1)

        thread = threading.Thread(target=use)
        thread.start()
        barrier.wait()
        bus.configure(max_message_size=10)
        thread.join()
        bus.publish("/a", 2)
        with pytest.raises(MessageTooLarge):
            bus.publish("/a", "x" * 20)
        bus.close()


@pytest.mark.parametrize("url", ["redis://localhost:port/0", "redis://localhost:99999", "postgresql://[::1/x"])
def test_a_malformed_url_is_found_when_it_is_given(url: str) -> None:
    with pytest.raises(InvalidOption, match="url: malformed"):
        Bus(url=url)
    app = flask.Flask("app")
    app.config["MESSAGEBUS_URL"] = url
    with pytest.raises(InvalidOption, match="url: malformed"):
        Bus().init_app(app)


def test_init_app_registers_the_blueprint_and_leaves_the_bus_with_the_app() -> None:
    app, bus = flask.Flask("app"), Bus(url="memory://")
    bus.init_app(app, url_prefix="/live")
    assert app.extensions["messagebus"] is bus
    answer = app.test_client().post("/live/message-bus/somebody/poll?dlp=t", data={"/a": "0"})
    assert (answer.status_code, answer.json) == (200, [])
    bus.close()
