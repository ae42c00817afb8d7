"""What every store promises (``messagebus/stores/base.py``), asked of each."""

from __future__ import annotations

import math
import threading

import pytest

from messagebus.errors import PublishRefused
from messagebus.message import Ids, Message, encode_envelope
from messagebus.stores import BacklogQuery, Publication, PublicationId, Store, StoreState
from tests.eventually import eventually
from tests.store_helpers import listen

from .stores import StoreUnderTest

NAMES = ["/a", "/chat|room", "/häuser/雪/🎉", "/a b?c=d&e", "/a$|$site", "/a|b$|$my|site", "/global/x"]


def publish(store: Store, name: str, data: object = None, size: int = 1000, age: int = 1000) -> Ids:
    raw = b"null" if data is None else b"%d" % data if isinstance(data, int) else b'"%b"' % str(data).encode()
    return store.publish(name, encode_envelope(raw), max_backlog_size=size, max_backlog_age=age)


def ids(messages: list[Message]) -> list[int]:
    return [message.message_id for message in messages]


# --- publishing and reading ---


def test_an_empty_store_has_no_ids_no_epoch_and_no_messages(store: Store) -> None:
    assert store.state() == StoreState(0, None)
    assert store.backlog("/a") == ([], 0, 1)
    assert store.last_ids(["/a", "/b"]) == [0, 0]
    assert store.last_ids([]) == []
    assert store.global_backlog() == []


def test_message_ids_count_per_name_and_global_ids_over_all(store: Store) -> None:
    assert [publish(store, name) for name in ("/a", "/b", "/a")] == [Ids(1, 1), Ids(1, 2), Ids(2, 3)]
    assert store.last_ids(["/b", "/c", "/a"]) == [1, 0, 2]
    assert store.state().global_id == 3


@pytest.mark.parametrize("name", NAMES)
def test_any_name_is_kept_and_given_back(store: Store, name: str) -> None:
    recorder = listen(store)
    publish(store, name, "x")
    (message,) = store.backlog(name).messages
    (same,) = store.global_backlog()
    (heard,) = eventually(lambda: recorder.messages)
    assert message.name == same.name == heard.name == name
    assert message.data == same.data == heard.data == "x"


def test_a_channel_on_two_sites_is_two(store: Store) -> None:
    publish(store, "/a$|$one", 1)
    publish(store, "/a$|$two", 2)
    (message,) = store.backlog("/a$|$two").messages
    assert (message.channel, message.site_id, message.message_id, message.data) == ("/a", "two", 1, 2)
    assert store.backlog("/a").messages == []


def test_targets_and_data_come_back_as_they_were_published(store: Store) -> None:
    raw = '{"k":\r\n"|\\r\\n|ü\\u0000"}'.encode()
    envelope = encode_envelope(raw, user_ids=[1, "u"], group_ids=[2], client_ids=["c"])
    store.publish("/a", envelope, max_backlog_size=10, max_backlog_age=10)
    (message,) = store.backlog("/a").messages
    assert message.raw == raw
    assert (message.user_ids, message.group_ids, message.client_ids) == ((1, "u"), (2,), ("c",))


def test_a_backlog_is_read_from_a_position_and_says_where_the_channel_stands(store: Store) -> None:
    for number in range(1, 8):
        publish(store, "/a", number, size=5)
    assert ids(store.backlog("/a").messages) == [3, 4, 5, 6, 7]
    assert [message.data for message in store.backlog("/a", 5).messages] == [6, 7]
    for after in (-1, 0, 5, 7, 100):
        assert store.backlog("/a", after)[1:] == (7, 3)
    assert store.backlog("/a", 7).messages == store.backlog("/a", 100).messages == []


EVERYTHING = 1 << 30


def test_several_backlogs_are_read_at_once_and_each_says_where_its_channel_stands(store: Store) -> None:
    for number in range(1, 8):
        publish(store, "/a", number, size=5)
    publish(store, "/b", 1)
    a, newest, beyond, b, nothing = store.backlogs(
        [BacklogQuery(*query) for query in (("/a", 5), ("/a", -2), ("/a", 9), ("/b", 0), ("/c", -3))],
        EVERYTHING,
    )
    assert [message.data for message in a.messages] == [6, 7]
    assert a[1:5] == (5, 7, 7, 3)
    assert [message.data for message in newest.messages] == [6, 7]
    assert newest[1:5] == (5, 7, 7, 3)
    assert beyond[:5] == ([], 9, 7, 7, 3)
    assert [message.data for message in b.messages] == [1]
    assert b[1:5] == (0, 1, 1, 1)
    assert nothing[:6] == ([], 0, 0, 0, 1, math.inf)
    assert store.backlogs([], EVERYTHING) == []


def test_a_large_backlog_is_read_in_pages_that_follow_each_other_without_a_hole(store: Store) -> None:
    texts = ["x" * (number % 7 * 1000 + 1) for number in range(250)]
    for text in texts:
        publish(store, "/a", text)
    read: list[object] = []
    pages = 0
    through = 0
    while through < 250:
        page, other = store.backlogs([BacklogQuery("/a", through), BacklogQuery("/a", -1)], 10_000)
        assert page.after == through < page.through
        sizes = [len(message.raw) for message in page.messages]
        assert sum(sizes[:-1]) < 10_000, "it ends with the message that takes it there"
        assert other.messages[0].data == texts[-1]
        read += [message.data for message in page.messages]
        through = page.through
        pages += 1
    assert read == texts
    assert 250 > pages > 50


def test_a_page_says_how_long_what_is_kept_lasts(harness: StoreUnderTest) -> None:
    store = harness.open()
    publish(store, "/a", 1, age=100)
    publish(store, "/b", 1, age=1000)
    publish(store, "/a", 2, age=10)
    a, b, c = store.backlogs([BacklogQuery(name, 0) for name in ("/a", "/b", "/c")], EVERYTHING)
    assert 5 < a.expires_in <= 10
    assert 900 < b.expires_in <= 1000
    assert c.expires_in == math.inf
    publish(store, "/a", 3, age=1)
    harness.pass_time(2)
    [a] = store.backlogs([BacklogQuery("/a", 0)], EVERYTHING)
    assert a[:6] == ([], 0, 3, 3, 4, math.inf)


def test_a_page_says_of_which_epoch_it_is_where_the_store_may_change_that_by_itself(harness: StoreUnderTest) -> None:
    store = harness.open()

    def epoch_of_page() -> str | None:
        [page] = store.backlogs([BacklogQuery("/a", 0)], EVERYTHING)
        return page.epoch

    assert epoch_of_page() is None
    publish(store, "/a", 1)
    partition, tells = store.partition_of("/a"), harness.url.startswith("redis")
    before = store.state(partition).epoch
    assert epoch_of_page() == (before if tells else None)
    after = store.renew_epoch(before, partition).epoch
    assert before != after
    assert epoch_of_page() == (after if tells else None)


def test_ids_have_no_holes_under_eight_publishers_and_each_ones_order_is_kept(harness: StoreUnderTest) -> None:
    store = harness.open(max_global_backlog_size=1000)
    recorder = listen(store)
    given: list[Ids] = []

    def work(publisher: int) -> None:
        given.extend(publish(store, f"/{publisher % 2}", publisher * 1000 + number) for number in range(50))

    threads = [threading.Thread(target=work, args=(publisher,)) for publisher in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(ids.global_id for ids in given) == list(range(1, 401))
    assert ids(store.backlog("/0").messages) == ids(store.backlog("/1").messages) == list(range(1, 201))
    assert [message.global_id for message in store.global_backlog()] == list(range(1, 401))
    eventually(lambda: len(recorder.messages) == 400)
    assert recorder.ids == list(range(1, 401))
    numbers = [int(str(data)) for data in recorder.data]
    for publisher in range(8):
        assert [number for number in numbers if number // 1000 == publisher] == [
            publisher * 1000 + number for number in range(50)
        ]


# --- many at once ---


def test_many_messages_are_published_in_their_order_and_their_ids_are_returned(store: Store) -> None:
    recorder = listen(store)
    publish(store, "/b")
    names = ["/a", "/a", "/b", "/a|x$|$s", "/a"]
    given = store.publish_many(
        [Publication(name, encode_envelope(b"%d" % number), 10, 10) for number, name in enumerate(names)]
    )
    assert given == [Ids(1, 2), Ids(2, 3), Ids(2, 4), Ids(1, 5), Ids(3, 6)]
    eventually(lambda: len(recorder.messages) == 6)
    assert recorder.ids == [1, 2, 3, 4, 5, 6]
    assert [message.name for message in recorder.messages] == ["/b", *names]
    assert [message.data for message in store.backlog("/a").messages] == [0, 1, 4]
    assert [message.global_id for message in store.global_backlog()] == [1, 2, 3, 4, 5, 6]
    assert store.publish_many([]) == []


@pytest.mark.parametrize("clear_every", [1, 7])
def test_many_at_once_leave_the_same_as_one_by_one(harness: StoreUnderTest, clear_every: int) -> None:
    store = harness.open(clear_every=clear_every, max_global_backlog_size=40)
    messages = [
        Publication(f"/{number // 3 % 4}", encode_envelope(b"%d" % number), 3 + number // 3 % 4, 100)
        for number in range(100)
    ]

    def kept() -> object:
        global_backlog = [(m.global_id, m.name, m.message_id, m.data) for m in store.global_backlog()]
        return global_backlog, [
            ([m.data for m in backlog.messages], backlog.last_id, backlog.first_id)
            for backlog in map(store.backlog, ("/0", "/1", "/2", "/3"))
        ]

    one_by_one = [
        store.publish(name, envelope, max_backlog_size=size, max_backlog_age=age)
        for name, envelope, size, age in messages
    ]
    expected = kept()
    store.reset()
    assert store.publish_many(messages[:60]) + store.publish_many(messages[60:]) == one_by_one
    assert kept() == expected


def test_thousands_of_messages_at_once_reach_the_listeners_without_a_hole(harness: StoreUnderTest) -> None:
    store = harness.open(max_global_backlog_size=10_000)
    recorder = listen(store)
    messages = [Publication(f"/{number % 7}", encode_envelope(b"%d" % number), 1000, 100) for number in range(3000)]
    given = [ids for begin in (0, 1000, 2000) for ids in store.publish_many(messages[begin : begin + 1000])]
    assert [ids.global_id for ids in given] == list(range(1, 3001))
    eventually(lambda: len(recorder.messages) == 3000)
    assert recorder.data == list(range(3000))


# --- published again ---


@pytest.mark.parametrize("names", [["/a"], ["/a", "/b", "/a", "/a", "/c$|$s"]], ids=["one", "many"])
def test_what_is_published_again_gets_its_first_ids_and_is_not_stored_again(store: Store, names: list[str]) -> None:
    recorder = listen(store)
    publish(store, "/a")
    # So few are kept that the first of them are gone when they come again.
    messages = [Publication(name, encode_envelope(b"%d" % number), 2, 100) for number, name in enumerate(names)]
    given = store.publish_many(messages, PublicationId("lane1", 7))
    publish(store, "/a")
    assert store.publish_many(messages, PublicationId("lane1", 7)) == given
    assert store.state().global_id == len(names) + 2
    assert store.publish_many(messages, PublicationId("lane2", 7)) != given
    eventually(lambda: len(recorder.messages) == 2 * len(names) + 2)
    assert recorder.ids == list(range(1, 2 * len(names) + 3))


def test_only_the_newest_of_a_record_is_remembered_and_an_older_one_is_not_stored(store: Store) -> None:
    messages = [Publication("/a", encode_envelope(b"1"), 10, 100)]
    assert [store.publish_many(messages, PublicationId("lane", number)) for number in (1, 2)] == [
        [Ids(1, 1)],
        [Ids(2, 2)],
    ]
    with pytest.raises(PublishRefused):
        store.publish_many(messages, PublicationId("lane", 1))
    assert store.publish_many(messages, PublicationId("lane", 3)) == [Ids(3, 3)]


def test_a_publication_is_forgotten_after_ten_minutes_and_with_a_reset(harness: StoreUnderTest) -> None:
    store = harness.open()
    messages = [Publication("/a", encode_envelope(b"1"), 10, 10_000)]

    def again() -> int:
        return store.publish_many(messages, PublicationId("lane", 1))[0].global_id

    assert [again(), again()] == [1, 1]
    harness.pass_time(590)
    assert again() == 1
    harness.pass_time(100)  # PostgreSQL counts in whole minutes
    assert [again(), again()] == [2, 2]
    store.reset()
    assert [again(), again()] == [1, 1]


# --- the epoch, and resets ---


def test_the_epoch_is_made_with_the_first_message_and_stays(store: Store) -> None:
    publish(store, "/a")
    epoch = store.state().epoch
    assert epoch
    publish(store, "/a")
    assert store.state() == StoreState(2, epoch)


def test_a_feed_of_an_empty_store_knows_the_epoch_from_the_beginning(store: Store) -> None:
    recorder = listen(store)
    (state,) = recorder.told("started")
    publish(store, "/a")
    assert isinstance(state, StoreState)
    assert state.epoch
    assert state == StoreState(0, store.state().epoch)


def test_a_reset_store_starts_again_with_another_epoch(store: Store) -> None:
    for name in NAMES:
        publish(store, name)
    before = store.state().epoch
    store.reset()
    assert store.state() == StoreState(0, None)
    assert store.last_ids(NAMES) == [0] * len(NAMES)
    assert store.backlog("/a") == ([], 0, 1)
    assert store.global_backlog() == []
    assert publish(store, "/a") == Ids(1, 1)
    assert store.state().epoch not in (None, before)


def test_a_feed_notices_that_the_store_was_reset_and_goes_on(store: Store) -> None:
    recorder = listen(store)
    for number in range(3):
        publish(store, "/a", number)
    eventually(lambda: len(recorder.messages) == 3)
    store.reset()
    publish(store, "/a", 3)
    publish(store, "/a", 4)
    eventually(lambda: recorder.told("resync") and len(recorder.messages) == 5)
    assert recorder.data == [0, 1, 2, 3, 4]
    assert recorder.ids == [1, 2, 3, 1, 2]


def test_an_epoch_is_renewed_by_the_first_who_asks_and_every_feed_is_told(harness: StoreUnderTest) -> None:
    store, other = harness.open(), harness.open()
    if not store.shared:
        other = store
    recorders = [listen(store), listen(other)]
    publish(store, "/a", 1)
    before = store.state().epoch
    state = store.renew_epoch(before)
    assert state.epoch not in (None, before)
    assert state == store.state() == other.renew_epoch(before) == StoreState(1, state.epoch)
    for recorder in recorders:
        eventually(lambda recorder=recorder: recorder.told("resync") == [state])  # type: ignore[misc]
    publish(store, "/a", 2)
    for recorder in recorders:
        eventually(lambda recorder=recorder: recorder.data == [1, 2])  # type: ignore[misc]
        assert recorder.told("resync") == [state]
