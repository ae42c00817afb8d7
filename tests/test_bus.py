"""The bus as programs use it, over every store that they all share the same promises."""

from __future__ import annotations

import datetime
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from messagebus import (
    BackendUnavailable,
    Bus,
    BusClosed,
    InvalidChannel,
    InvalidData,
    InvalidOption,
    InvalidSite,
    InvalidTargets,
    Message,
    MessageTooLarge,
)

from .eventually import eventually
from .redis_server import RedisServer
from .threads import alive, started_threads


@pytest.fixture(params=["memory", "redis"])
def bus(request: pytest.FixtureRequest) -> Iterator[Bus]:
    url = "memory://" if request.param == "memory" else request.getfixturevalue("redis_url")
    with_store = Bus(url=url)
    yield with_store
    with_store.close()


def test_a_published_message_can_be_read_again(bus: Bus) -> None:
    assert bus.publish("/chat", {"text": "grüß dich"}) == 1
    assert bus.publish("/chat", None) == 2
    assert [(m.message_id, m.data) for m in bus.backlog("/chat")] == [(1, {"text": "grüß dich"}), (2, None)]
    assert [m.data for m in bus.backlog("/chat", 1)] == [None]
    assert bus.last_id("/chat") == 2
    assert bus.last_ids("/chat", "/empty") == {"/chat": 2, "/empty": 0}
    newest = bus.last_message("/chat")
    assert newest is not None
    assert newest.message_id == 2
    assert bus.last_message("/empty") is None


def test_the_global_backlog_has_all_channels_in_the_order_of_publishing(bus: Bus) -> None:
    for number in range(4):
        bus.publish(f"/{number % 2}", number)
    assert [(m.global_id, m.channel, m.data) for m in bus.global_backlog(1)] == [
        (2, "/1", 1),
        (3, "/0", 2),
        (4, "/1", 3),
    ]
    assert bus.newest_global_id() == 4


@pytest.mark.parametrize("channel", ["chat", "", None, 7, "/" + "x" * 255, "/a\n", "/a$|$b", "/__status", "/\ud800"])
def test_a_bad_channel_is_refused_with_a_reason(bus: Bus, channel: object) -> None:
    with pytest.raises(InvalidChannel, match="channel"):
        bus.publish(channel, 1)  # type: ignore[arg-type]
    assert bus.newest_global_id() == 0


@pytest.mark.parametrize("data", [{1, 2}, b"x", float("nan"), object(), datetime.date(2026, 1, 1), "\ud800"])
def test_data_that_json_cannot_express_is_refused(bus: Bus, data: object) -> None:
    with pytest.raises(InvalidData):
        bus.publish("/chat", data)
    assert bus.last_id("/chat") == 0


def test_a_message_over_the_limit_is_refused() -> None:
    bus = Bus(max_message_size=10)
    assert bus.publish("/chat", "12345678") == 1
    with pytest.raises(MessageTooLarge, match="11 bytes; max_message_size allows 10"):
        bus.publish("/chat", "123456789")
    bus.close()


def test_targets_that_reach_nobody_are_refused(bus: Bus) -> None:
    wrong: list[dict[str, Any]] = [
        {"user_ids": []},
        {"group_ids": []},
        {"client_ids": []},
        {"user_ids": "12"},
        {"user_ids": [{1}]},
    ]
    for targets in wrong:
        with pytest.raises(InvalidTargets):
            bus.publish("/chat", 1, **targets)
    with pytest.raises(InvalidTargets, match="/global/"):
        bus.publish("/global/news", 1, user_ids=[1])
    assert bus.newest_global_id() == 0


def test_sites_are_apart_and_global_channels_are_not(bus: Bus) -> None:
    assert bus.publish("/chat", "a", site_id="one") == 1
    assert bus.publish("/chat", "b", site_id="two") == 1
    assert bus.publish("/global/news", "c", site_id="one") == 1
    assert [m.data for m in bus.backlog("/chat", site_id="one")] == ["a"]
    assert bus.backlog("/chat") == []
    assert [m.data for m in bus.global_backlog(site_id="two")] == ["b", "c"]
    assert [m.data for m in bus.global_backlog(site_id="*")] == ["a", "b", "c"]
    with pytest.raises(InvalidSite):
        bus.publish("/chat", 1, site_id="")


def test_a_callback_gets_new_messages_in_order_in_a_thread_of_its_own(bus: Bus) -> None:
    bus.publish("/chat", "old")
    heard: list[Message] = []
    threads = set()

    @bus.subscribe("/chat")
    def hear(message: Message) -> None:
        threads.add(threading.current_thread())
        heard.append(message)

    for number in range(200):
        bus.publish("/chat", number)
    eventually(lambda: len(heard) == 200)
    assert [message.data for message in heard] == list(range(200))
    assert len(threads) == 1
    assert threading.current_thread() not in threads


def test_a_callback_continues_from_an_id_without_gap_or_duplicate(bus: Bus) -> None:
    for number in range(50):
        bus.publish("/chat", number)
    heard: list[int] = []
    publisher = threading.Thread(target=lambda: [bus.publish("/chat", number) for number in range(50, 100)])
    publisher.start()
    bus.subscribe("/chat", lambda message: heard.append(message.data), last_id=20)
    publisher.join()
    eventually(lambda: len(heard) >= 80)
    assert heard == list(range(20, 100))


def test_a_callback_may_look_back(bus: Bus) -> None:
    for number in range(5):
        bus.publish("/chat", number)
    heard: list[int] = []
    bus.subscribe("/chat", lambda message: heard.append(message.data), last_id=-3)
    eventually(lambda: heard == [3, 4])


def test_a_failing_callback_is_logged_and_told_and_stops_nobody(bus: Bus, caplog: pytest.LogCaptureFixture) -> None:
    told: list[tuple[str, str]] = []
    bus.configure(on_error=lambda error, where: told.append((repr(error), where)))
    heard: list[int] = []

    def fail(message: Message) -> None:
        raise RuntimeError("on purpose")

    bus.subscribe("/chat", fail)
    bus.subscribe("/chat", lambda message: heard.append(message.data))
    bus.publish("/chat", 1)
    bus.publish("/chat", 2)
    eventually(lambda: heard == [1, 2] and len(told) == 2)
    assert told[0] == ("RuntimeError('on purpose')", "the callback on /chat, message 1")
    assert [record.levelno for record in caplog.records] == [logging.ERROR, logging.ERROR]


def test_an_unsubscribed_callback_is_not_called_again(bus: Bus) -> None:
    first: list[int] = []
    second: list[int] = []

    def hear_first(message: Message) -> None:
        first.append(message.data)

    bus.subscribe("/chat", hear_first)
    bus.subscribe("/chat", lambda message: second.append(message.data))
    bus.publish("/chat", 1)
    eventually(lambda: first == second == [1])
    assert bus.unsubscribe("/chat", hear_first) is True
    assert bus.unsubscribe("/chat", hear_first) is False
    bus.publish("/chat", 2)
    eventually(lambda: second == [1, 2])
    assert first == [1]
    assert bus.unsubscribe("/chat") is True


def test_a_subscription_to_everything_hears_every_channel_of_its_site(bus: Bus) -> None:
    none: list[object] = []
    one: list[object] = []
    every: list[object] = []
    bus.publish("/before", 0)
    bus.subscribe(None, lambda message: none.append(message.data), last_id=0)
    bus.subscribe(None, lambda message: one.append(message.data), site_id="one")
    bus.subscribe("/a", lambda message: every.append(message.data), site_id="*")
    bus.publish("/a", 1)
    bus.publish("/a", 2, site_id="one")
    bus.publish("/global/b", 3)
    bus.publish("/c", 4, site_id="two")
    eventually(lambda: none == [0, 1, 3] and one == [2, 3] and every == [1, 2])


def test_a_blocking_subscription_calls_in_its_own_thread_until_unsubscribed(bus: Bus) -> None:
    heard: list[tuple[str, threading.Thread]] = []

    def hear(message: Message) -> None:
        heard.append((message.data, threading.current_thread()))
        if message.data == "last":
            bus.unsubscribe("/chat", hear)

    bus.publish("/chat", "first")
    thread = threading.Thread(target=bus.blocking_subscribe, args=("/chat", hear, 0))
    thread.start()
    eventually(lambda: len(heard) == 1)
    bus.publish("/chat", "last")
    thread.join(30)
    assert heard == [("first", thread), ("last", thread)]


def test_a_blocking_subscription_ends_when_the_bus_is_closed(bus: Bus) -> None:
    thread = threading.Thread(target=bus.blocking_subscribe, args=("/chat", lambda message: None))
    thread.start()
    eventually(lambda: bus._callbacks is not None and bus._callbacks.all())
    bus.close()
    thread.join(30)
    assert not thread.is_alive()


def test_a_bus_that_is_off_publishes_nothing_unless_told_to(bus: Bus) -> None:
    bus.off()
    assert bus.is_off
    assert bus.publish("/chat", 1) is None
    bus.off(disable_publish=False)
    assert bus.publish("/chat", 2) == 1
    bus.on()
    assert not bus.is_off
    assert bus.publish("/chat", 3) == 2


def test_a_reset_bus_starts_again(bus: Bus) -> None:
    bus.publish("/chat", 1)
    bus.reset()
    assert bus.last_id("/chat") == 0
    assert bus.publish("/chat", 2) == 1


def test_a_closed_bus_says_so_until_it_is_configured(bus: Bus) -> None:
    bus.publish("/chat", 1)
    bus.close()
    bus.close()
    with pytest.raises(BusClosed, match="configure"):
        bus.publish("/chat", 1)
    bus.configure()
    assert bus.publish("/chat", 1)


def test_closing_ends_every_thread_of_the_bus() -> None:
    with started_threads() as threads:
        bus = Bus(url="memory://")
        bus.subscribe("/chat", lambda message: None)
        assert len(alive(threads)) == 2
        bus.close()
    eventually(lambda: not alive(threads))


def test_a_store_that_is_gone_is_a_typed_error_that_does_not_tell_the_password(mortal_redis: RedisServer) -> None:
    bus = Bus(url=mortal_redis.url.replace("redis://", "redis://:secret@"), store_timeout=0.5)
    mortal_redis.kill()
    with pytest.raises(BackendUnavailable) as caught:
        bus.publish("/chat", 1, queue_in_memory=False)
    assert "secret" not in str(caught.value)
    assert bus.publish("/chat", 1) is None
    with pytest.raises(BackendUnavailable):
        bus.last_id("/chat")
    bus.close()


def test_the_bus_knows_when_it_does_not_hear_its_store(mortal_redis: RedisServer) -> None:
    bus = Bus(url=mortal_redis.url)
    bus.start()
    eventually(lambda: bus.healthy)
    mortal_redis.kill()
    eventually(lambda: not bus.healthy)
    mortal_redis.start()
    eventually(lambda: bus.healthy)
    bus.close()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"no_such": 1}, "no_such"),
        ({"max_backlog_size": 0}, "at least 1"),
        ({"max_backlog_size": "10"}, "integer"),
        ({"long_polling_enabled": 1}, "True or False"),
        ({"allowed_origins": "https://a.example"}, "tuple"),
        ({"user_id_lookup": 5}, "function"),
        ({"url": "mysql://x"}, "redis://"),
    ],
)
def test_a_wrong_option_is_named_and_changes_nothing(options: dict[str, Any], message: str) -> None:
    bus = Bus(url="memory://")
    bus.publish("/chat", 1)
    with pytest.raises(InvalidOption, match=message):
        bus.configure(**options)
    with pytest.raises(InvalidOption, match=message):
        Bus(**options)
    assert bus.last_id("/chat") == 1
    bus.close()


def test_the_repr_of_the_options_keeps_the_secrets() -> None:
    bus = Bus(url="redis://:pass@localhost/0", secret_key="sesame")
    assert "pass@" not in repr(bus.options)
    assert "sesame" not in repr(bus.options)


def test_a_request_to_a_closed_bus_is_told_to_come_back() -> None:
    import flask

    bus = Bus(url="memory://")
    app = flask.Flask(__name__)
    app.register_blueprint(bus.blueprint)
    bus.close()
    response = app.test_client().post("/message-bus/me/poll?dlp=t", data={"/a": 0})
    assert response.status_code == 503
    assert response.headers["Retry-After"] == "2"


@pytest.mark.parametrize(
    ("misuse", "message"),
    [
        (lambda bus: bus.publish_many({"/a": 1}), "pairs of channel and data"),
        (lambda bus: bus.publish_many(["/a"]), "pairs of channel and data"),
        (lambda bus: bus.subscribe("/a", 3), "callback: expected a function"),
        (lambda bus: bus.subscribe("/a", print, last_id="x"), "last_id: expected an integer"),
        (lambda bus: bus.subscribe(print), "expected a string"),
        (lambda bus: bus.publish("/a", 1, user_ids=7), "expected a list of ids"),
    ],
)
def test_a_misunderstanding_is_answered_with_what_was_expected(misuse: Callable[[Bus], object], message: str) -> None:
    bus = Bus(url="memory://")
    with pytest.raises((TypeError, ValueError), match=message):
        misuse(bus)
    bus.close()


def test_a_message_shows_what_it_is() -> None:
    bus = Bus(url="memory://")
    bus.publish("/chat", {"a": 1})
    assert repr(bus.backlog("/chat")) == '[<Message /chat 1 (global 1): {"a":1}>]'
    bus.close()
