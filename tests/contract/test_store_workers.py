"""What every store promises to workers that share it: announcements, reports, and the names of what is kept."""

from __future__ import annotations

import threading
from itertools import chain
from typing import Any

import pytest

from messagebus.errors import BackendUnavailable, BusClosed
from messagebus.message import encode_envelope
from messagebus.publishing.arguments import MAX_TRANSIENT
from messagebus.publishing.transient import tellings
from messagebus.stores import Store
from messagebus.stores.base import MAX_ANNOUNCEMENT, REPORT_LEASE
from messagebus.stores.parts import Joining
from tests.eventually import eventually
from tests.redis_server import RedisServer
from tests.store_helpers import LIMITS, listen, publish

from .stores import StoreUnderTest


def all_channels(store: Store, limit: int) -> set[str]:
    page = store.channels(limit=limit)
    names = {*page.names}
    while page.cursor:
        page = store.channels(page.cursor, limit)
        names |= {*page.names}
    return names


# --- announcements ---


def test_every_feed_hears_an_announcement_in_the_order_of_its_announcer(harness: StoreUnderTest) -> None:
    one, other = harness.open(), harness.open()
    recorders = [listen(one), listen(one)] + ([listen(other)] if one.shared else [])
    texts = ["1", "x" * MAX_ANNOUNCEMENT, '{"3": "|\'\\u00fc"}']
    for text in texts:
        one.announce(text)
    eventually(lambda: all(recorder.told("announced") == texts for recorder in recorders))


def test_the_largest_transient_message_reaches_every_feed_whole(harness: StoreUnderTest) -> None:
    one, other = harness.open(), harness.open()
    recorder = listen(other if one.shared else one)
    envelope = encode_envelope(b'"%b"' % (b"\xe4\xb8\x96" * (MAX_TRANSIENT // 3 - 1)))
    for text in tellings("/a", envelope, "key"):
        one.announce(text)
    joining = Joining()

    def whole() -> list[Any]:
        return [told for text in recorder.told("announced") if (told := joining.add(str(text)))]

    eventually(lambda: [told["value"]["envelope"].encode() for told in whole()] == [envelope])


def test_an_announcement_has_no_id_and_is_not_kept(store: Store) -> None:
    recorder = listen(store)
    publish(store, "/a", 1)
    store.announce("now")
    eventually(lambda: recorder.told("announced") == ["now"])
    publish(store, "/a", 2)
    eventually(lambda: recorder.ids == [1, 2])
    assert [message.data for message in store.global_backlog()] == [1, 2]
    late = listen(store)
    publish(store, "/a", 3)
    eventually(lambda: late.ids == [3])
    assert late.told("announced") == []


def test_announcements_go_on_after_an_outage_of_the_feed(harness: StoreUnderTest) -> None:
    store = harness.open()
    recorder = listen(store)
    harness.cut_feeds()

    def hears() -> bool:
        store.announce("again")
        return "again" in recorder.told("announced")

    eventually(hears)


def test_an_announcement_is_heard_once_while_others_are_made(harness: StoreUnderTest) -> None:
    store = harness.open()
    recorder = listen(store)
    texts = [[f"{name} {number}" for number in range(100)] for name in "abcd"]

    def announce(mine: list[str]) -> None:
        for text in mine:
            store.announce(text)

    threads = [threading.Thread(target=announce, args=(mine,)) for mine in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    store.announce("last")
    eventually(lambda: "last" in recorder.told("announced"))
    assert sorted(map(str, recorder.told("announced"))) == sorted([*chain(*texts), "last"])


# --- reports ---


def test_a_report_is_kept_until_its_lease_ends_or_it_is_withdrawn(harness: StoreUnderTest) -> None:
    store = harness.open()
    assert store.reports() == {}
    store.report("w1", '{"a": 1}')
    store.report("w2", "{}")
    store.report("w1", '{"a": 2}')
    assert store.reports() == {"w1": '{"a": 2}', "w2": "{}"}
    store.withdraw("w2")
    store.withdraw("w2")
    assert store.reports() == {"w1": '{"a": 2}'}
    harness.pass_time(REPORT_LEASE - 10)
    assert store.reports() == {"w1": '{"a": 2}'}
    store.report("w3", "3")
    harness.pass_time(11)
    assert store.reports() == {"w3": "3"}


def test_the_reports_of_workers_that_have_died_do_not_pile_up(harness: StoreUnderTest) -> None:
    store = harness.open()
    for number in range(150):
        store.report(f"dead{number}", "x")
    harness.pass_time(REPORT_LEASE + 1)
    for _ in range(3):
        store.report("alive", "y")
    assert store.reports() == {"alive": "y"}
    assert harness.reports_in_store() in (None, 1)


def test_reports_are_neither_messages_nor_channels(store: Store) -> None:
    store.report("w1", "{}")
    assert store.state().global_id == 0
    assert store.channels().names == []
    assert store.global_backlog() == []


# --- channels ---


def test_channels_are_those_with_a_backlog_a_page_at_a_time(harness: StoreUnderTest) -> None:
    store = harness.open()
    assert store.channels() == ([], "", ())
    names = {f"/c{number}" for number in range(50)} | {"/a|b$|$my|site", "/häuser/雪"}
    for name in names:
        store.publish(name, encode_envelope(b"1"), **LIMITS)
    store.publish("/short", encode_envelope(b"1"), max_backlog_size=10, max_backlog_age=10)
    assert all_channels(store, 7) == names | {"/short"}
    harness.pass_time(11)
    assert all_channels(store, 1000) == names


@pytest.mark.parametrize("cursor", ["x", "-1", "1_0", "²", "1" * 30, "1" * 5000, "\0"], ids=repr)
def test_a_cursor_of_no_page_finds_nothing_or_is_refused(store: Store, cursor: str) -> None:
    publish(store, "/a", 1)
    try:
        assert store.channels(cursor).cursor == ""
    except ValueError as error:
        assert "expected a page's cursor" in str(error)  # noqa: PT017  (both are right)


def test_a_forgotten_channel_has_no_backlog_and_its_ids_go_on(store: Store) -> None:
    recorder = listen(store)
    publish(store, "/a", 1)
    publish(store, "/b", 2)
    publish(store, "/a", 3)
    store.forget("/a")
    store.forget("/a")
    store.forget("/never")
    assert store.backlog("/a") == ([], 2, 3)
    assert [message.data for message in store.global_backlog()] == [2]
    assert all_channels(store, 10) == {"/b"}
    assert publish(store, "/a", 4).message_id == 3
    assert [message.data for message in store.backlog("/a").messages] == [4]
    eventually(lambda: recorder.data == [1, 2, 3, 4])
    assert recorder.told("resync") == []


# --- without a store ---


def test_a_closed_store_takes_none_of_it(store: Store) -> None:
    store.close()
    for call in (
        lambda: store.announce("x"),
        lambda: store.report("w", "x"),
        store.reports,
        store.channels,
        lambda: store.forget("/a"),
    ):
        with pytest.raises(BusClosed):
            call()


@pytest.mark.redis
def test_a_store_that_is_gone_is_unavailable_to_all_of_it(mortal_redis: RedisServer) -> None:
    from messagebus.options import Options
    from messagebus.stores import open_store

    store = open_store(Options(url=mortal_redis.url, store_timeout=2))
    store.report("w", "x")
    mortal_redis.kill()
    for call in (
        lambda: store.announce("x"),
        lambda: store.report("w", "x"),
        lambda: store.withdraw("w"),
        store.reports,
        store.channels,
        lambda: store.forget("/a"),
    ):
        with pytest.raises(BackendUnavailable):
            call()
    store.close()
