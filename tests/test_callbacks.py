"""Subscribed functions: in order, one at a time, bounded, and nobody's exception is another's."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from messagebus.errors import BackendUnavailable
from messagebus.hub.callbacks import EVERY_SITE, Callbacks, Scope, Subscription
from messagebus.message import Message, encode_data, encode_envelope
from messagebus.names import store_name
from messagebus.options import Options
from messagebus.stores import Listener, StoreState
from messagebus.stores.memory import MemoryStore
from tests.eventually import eventually

CHAT = Scope("/chat", None)


class Bench(Listener):
    """Callbacks with a store, and a feed between them that can be held back."""

    def __init__(self) -> None:
        self.store = MemoryStore(Options())
        self.callbacks = Callbacks()
        self.callbacks.limit = 5
        self.reports: list[tuple[Exception, str]] = []
        self.heard: list[Any] = []

    def start(self) -> None:
        self.store.listen(self)
        self.callbacks.start(self.store, lambda error, where: self.reports.append((error, where)))

    def started(self, state: StoreState) -> None: ...

    def received(self, messages: Any) -> None:
        self.callbacks.received(messages)

    def resync(self, state: StoreState) -> None:
        self.callbacks.resync(True)

    def healthy(self, healthy: bool, partition: int = 0) -> None: ...

    def publish(self, *data: Any, channel: str = "/chat", site: str | None = None, kept: int = 1000) -> None:
        for item in data:
            envelope = encode_envelope(encode_data(item, 1000))
            self.store.publish(store_name(channel, site), envelope, max_backlog_size=kept, max_backlog_age=100)

    def note(self, message: Message) -> None:
        self.heard.append(message.data)

    def subscribe(
        self, callback: Callable[[Message], object] | None = None, scope: Scope = CHAT, position: int = 0
    ) -> Subscription:
        subscription = Subscription(scope, callback or self.note, position)
        self.callbacks.add(subscription)
        return subscription

    def hears(self, *data: Any) -> None:
        eventually(lambda: self.heard == list(data), message=f"heard {self.heard}")


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    bench.start()
    yield bench
    bench.callbacks.stop(5)
    bench.store.close()


def test_messages_come_in_order_from_the_position_on(bench: Bench) -> None:
    bench.publish(1, 2, 3)
    bench.subscribe(position=1)
    bench.hears(2, 3)
    bench.publish(4, 5)
    bench.hears(2, 3, 4, 5)


def test_more_than_may_wait_is_read_again_from_the_backlog(bench: Bench) -> None:
    go = threading.Event()
    entered = threading.Event()

    def slow(message: Message) -> None:
        entered.set()
        assert go.wait(30)
        bench.heard.append(message.data)

    subscription = bench.subscribe(slow)
    eventually(lambda: not subscription.behind)
    bench.publish(0)
    assert entered.wait(30)
    bench.publish(*range(1, 100))
    assert len(subscription.pending) <= bench.callbacks.limit
    assert subscription.behind
    go.set()
    bench.hears(*range(100))


def test_what_the_backlog_has_lost_meanwhile_is_logged(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.publish(*range(10), kept=3)
    bench.subscribe(position=2)
    bench.hears(7, 8, 9)
    assert ["missed messages 3 to 7" in record.getMessage() for record in caplog.records] == [True]


def test_an_exception_is_reported_and_stops_neither_this_function_nor_another(bench: Bench) -> None:
    def fail(message: Message) -> None:
        bench.heard.append("failed")
        raise ZeroDivisionError

    bench.subscribe(fail)
    bench.subscribe()
    eventually(lambda: all(not subscription.behind for subscription in bench.callbacks.all()))
    bench.publish(1, 2)
    eventually(lambda: sorted(map(str, bench.heard)) == ["1", "2", "failed", "failed"])
    eventually(lambda: len(bench.reports) == 2)
    assert all(isinstance(error, ZeroDivisionError) and "/chat" in where for error, where in bench.reports)


def test_a_function_that_was_removed_is_not_called_again(bench: Bench) -> None:
    bench.subscribe()
    bench.publish(1)
    bench.hears(1)
    assert bench.callbacks.remove(CHAT, bench.note)
    assert not bench.callbacks.remove(CHAT, bench.note)
    assert not bench.callbacks
    other: list[Any] = []
    bench.subscribe(lambda message: other.append(message.data), position=1)
    bench.publish(2)
    eventually(lambda: other == [2])
    assert bench.heard == [1]


def test_a_function_may_remove_itself(bench: Bench) -> None:
    def once(message: Message) -> None:
        bench.note(message)
        bench.callbacks.remove(CHAT, None)

    bench.publish(1, 2, 3)
    bench.subscribe(once)
    eventually(lambda: not bench.callbacks)
    assert bench.heard == [1]


def test_a_scope_is_one_channel_of_one_site_or_more(bench: Bench) -> None:
    heard: dict[Scope, list[Any]] = {
        scope: []
        for scope in (
            Scope("/chat", "red"),
            Scope("/chat", EVERY_SITE),
            Scope(None, "red"),
            Scope(None, EVERY_SITE),
            Scope("/global/x", "blue"),
        )
    }
    for scope, data in heard.items():
        bench.subscribe(lambda message, data=data: data.append(message.data), scope)  # type: ignore[misc]
    bench.publish("none")
    bench.publish("red", site="red")
    bench.publish("other", channel="/other", site="red")
    bench.publish("global", channel="/global/x", site="red")
    expected = {
        Scope("/chat", "red"): ["red"],
        Scope("/chat", EVERY_SITE): ["none", "red"],
        Scope(None, "red"): ["red", "other", "global"],
        Scope(None, EVERY_SITE): ["none", "red", "other", "global"],
        Scope("/global/x", "blue"): ["global"],
    }
    eventually(lambda: heard == expected, message=f"heard {heard}")


def test_after_a_reset_ids_start_again(bench: Bench) -> None:
    bench.subscribe()
    bench.publish("a", "b")
    bench.hears("a", "b")
    bench.store.reset()
    bench.publish("c")
    bench.hears("a", "b", "c")


def test_in_a_new_life_of_the_store_a_function_is_given_what_it_has_not_seen(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    everything = Scope(None, None)
    all_heard: list[Any] = []
    bench.subscribe()
    bench.subscribe(lambda message: all_heard.append(message.data), everything)
    bench.publish("a", "b")
    bench.publish("x", channel="/other")
    bench.hears("a", "b")
    for number in range(3):
        bench.store.renew_epoch(bench.store.state().epoch)
        bench.publish(number)
    bench.hears("a", "b", 0, 1, 2)
    eventually(lambda: all_heard == ["a", "b", "x", 0, 1, 2])
    assert "was reset" not in caplog.text


def test_a_function_that_has_heard_nothing_yet_knows_what_was_there_before_it(bench: Bench) -> None:
    bench.publish("a", "b", "c")
    subscription = bench.subscribe(position=2)
    bench.hears("c")
    bench.store.renew_epoch(bench.store.state().epoch)
    eventually(lambda: not subscription.behind)
    bench.publish("d")
    bench.hears("c", "d")


def test_ids_that_begin_again_under_a_function_are_reported(bench: Bench) -> None:
    reported = threading.Event()
    bench.callbacks.went_back = lambda partition: reported.set()
    bench.subscribe()
    bench.publish("a", "b", "c")
    bench.hears("a", "b", "c")
    bench.callbacks.received([Message(3, 3, "/chat", b"1")])
    bench.publish("d")
    bench.hears("a", "b", "c", "d")
    assert not reported.is_set(), "a message that came twice is none"
    bench.callbacks.received([Message(5, 1, "/chat", b"1")])
    eventually(reported.is_set)
    assert bench.heard == ["a", "b", "c", "d"]


def test_a_backlog_with_other_messages_than_were_heard_is_reported(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    reported = threading.Event()
    bench.callbacks.went_back = lambda partition: reported.set()
    bench.subscribe()
    bench.publish("a", "b", "c")
    bench.hears("a", "b", "c")
    other = MemoryStore(Options())
    for data in (b'"x"', b'"y"', b'"z"', b'"d"'):
        other.publish("/chat", encode_envelope(data), max_backlog_size=10, max_backlog_age=100)
    monkeypatch.setattr(bench.store, "backlog", other.backlog)
    bench.callbacks.resync(reset=False)
    eventually(reported.is_set)
    assert bench.heard == ["a", "b", "c"]
    bench.callbacks.resync(reset=True)
    bench.hears("a", "b", "c", "x", "y", "z", "d")


def test_a_reset_between_two_looks_of_a_worker_loses_nothing(bench: Bench) -> None:
    subscription = bench.subscribe()
    bench.publish(1, 2)
    bench.hears(1, 2)

    class ResetsOnce(deque[Message]):
        def popleft(self) -> Message:
            if subscription.life == 0:
                bench.callbacks.resync(True)
                bench.publish(3)
            return super().popleft()

    subscription.pending = ResetsOnce()
    bench.callbacks._wake(subscription)
    bench.hears(1, 2, 3)


def test_a_reset_while_a_function_catches_up_loses_nothing_of_what_follows(bench: Bench) -> None:
    def reset(message: Message) -> None:
        bench.note(message)
        if message.data == "b":
            bench.store.reset()
            bench.publish("new")

    bench.publish("a", "b", "c", "d")
    bench.subscribe(reset)
    bench.hears("a", "b", "new")


def test_a_read_that_fails_ends_neither_this_subscription_nor_another(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    backlog = bench.store.backlog
    failures = iter([ZeroDivisionError("a mistake")] * 2)

    def broken(name: str, after: int = 0) -> Any:
        for failure in failures:
            raise failure
        return backlog(name, after)

    monkeypatch.setattr(bench.store, "backlog", broken)
    bench.publish(1)
    bench.subscribe()
    bench.hears(1)
    assert "a mistake" in caplog.text


def test_messages_wait_for_a_store_that_is_gone(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    backlog = bench.store.backlog
    failures = iter([BackendUnavailable("gone")] * 3)

    def unavailable(name: str, after: int = 0) -> Any:
        for failure in failures:
            raise failure
        return backlog(name, after)

    monkeypatch.setattr(bench.store, "backlog", unavailable)
    bench.publish(1)
    bench.subscribe()
    bench.hears(1)
    assert bench.reports == []


def test_subscriptions_outlive_a_stop_and_go_on_where_they_were(bench: Bench) -> None:
    bench.subscribe()
    bench.publish(1)
    bench.hears(1)
    bench.callbacks.stop(5)
    bench.callbacks.resync(False)  # as whoever stopped it will start another feed
    bench.publish(2)
    bench.start()
    bench.hears(1, 2)
