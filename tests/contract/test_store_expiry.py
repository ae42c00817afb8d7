"""What a store drops, when, and that ids go on all the same."""

from __future__ import annotations

from messagebus.message import Ids
from messagebus.stores import Store
from tests.eventually import eventually
from tests.store_helpers import listen

from .stores import StoreUnderTest
from .test_store import NAMES, ids, publish


def test_expired_backlogs_are_gone_while_ids_epoch_and_feeds_go_on(store: Store) -> None:
    recorder = listen(store)
    for name in NAMES:
        publish(store, name, 1)
        publish(store, name, 2)
    state = store.state()
    store.expire_all_backlogs()
    assert [store.backlog(name) for name in NAMES] == [([], 2, 3)] * len(NAMES)
    assert store.global_backlog() == []
    assert store.last_ids(NAMES) == [2] * len(NAMES)
    assert store.state() == state
    assert publish(store, NAMES[0], 3) == Ids(3, state.global_id + 1)
    assert [message.data for message in store.backlog(NAMES[0]).messages] == [3]
    assert store.backlog(NAMES[0]).first_id == 3
    assert [message.data for message in store.global_backlog()] == [3]
    eventually(lambda: len(recorder.messages) == 2 * len(NAMES) + 1)
    assert recorder.told("resync") == []


def test_the_global_backlog_is_limited_and_read_from_a_position(harness: StoreUnderTest) -> None:
    store = harness.open(max_global_backlog_size=4)
    for number in range(6):
        publish(store, f"/{number % 2}", number)
    assert [message.data for message in store.global_backlog()] == [2, 3, 4, 5]
    assert [message.global_id for message in store.global_backlog(4)] == [5, 6]
    assert store.global_backlog(6) == store.global_backlog(100) == []
    assert len(store.backlog("/0").messages) == 3


def test_the_global_backlog_leaves_out_what_a_channel_no_longer_keeps(store: Store) -> None:
    for _ in range(3):
        publish(store, "/a", size=1)
        publish(store, "/b")
    assert [message.global_id for message in store.global_backlog()] == [2, 4, 5, 6]


def test_with_clear_every_backlogs_are_trimmed_on_every_nth_message_only(harness: StoreUnderTest) -> None:
    store = harness.open(clear_every=5, max_global_backlog_size=4)
    for number in range(1, 10):
        publish(store, "/a", number, size=3)
        kept = 3 + number % 5 if number >= 5 else number
        assert len(store.backlog("/a").messages) == kept
    assert [message.global_id for message in store.global_backlog()] == [3, 4, 5, 6, 7, 8, 9]
    publish(store, "/a", 10, size=3)
    assert ids(store.backlog("/a").messages) == [8, 9, 10]


def test_a_backlog_is_dropped_some_time_after_its_last_message_but_its_ids_go_on(harness: StoreUnderTest) -> None:
    store = harness.open()
    publish(store, "/other", age=100)
    publish(store, "/a", age=10)
    harness.pass_time(8)
    publish(store, "/a", age=10)
    harness.pass_time(8)
    assert ids(store.backlog("/a").messages) == [1, 2]
    harness.pass_time(3)
    assert store.backlog("/a") == ([], 2, 3)
    assert [message.channel for message in store.global_backlog()] == ["/other"]
    assert publish(store, "/a", age=10).message_id == 3
    assert store.backlog("/a").first_id == 3


DAY = 24 * 3600


def test_a_channel_whose_messages_have_expired_goes_on_with_its_next_id_for_a_day_or_four_times_their_age(
    harness: StoreUnderTest,
) -> None:
    store = harness.open()
    publish(store, "/other", age=100 * DAY)
    publish(store, "/a", 1, age=10)
    publish(store, "/b", 1, age=DAY)
    harness.pass_time(DAY - 5)
    assert store.last_ids(["/a", "/b"]) == [1, 1]
    assert publish(store, "/a", 2, age=10) == Ids(2, 4)
    harness.pass_time(3 * DAY - 5)
    assert store.last_ids(["/b"]) == [1]
    assert publish(store, "/b", 2, age=DAY) == Ids(2, 5)


def test_ids_never_begin_again_however_long_a_channel_was_quiet(harness: StoreUnderTest) -> None:
    store = harness.open()
    recorder = listen(store)
    publish(store, "/other", age=1000 * DAY)
    for number in range(5):
        publish(store, "/a", number, age=10)
    last = 5
    for round_ in range(3):
        # What the feed has yet to read is not 30 days old anywhere but here.
        eventually(lambda heard=6 + 3 * round_: len(recorder.messages) == heard)  # type: ignore[misc]
        harness.pass_time(30 * DAY)
        publish(store, "/other", age=1000 * DAY)  # whoever publishes clears away what is over
        ids = publish(store, "/a", 7, age=10)
        assert ids.message_id > last
        last = publish(store, "/a", 8, age=10).message_id
        assert last == ids.message_id + 1
        assert [message.message_id for message in store.backlog("/a").messages] == [ids.message_id, last]
        assert store.backlog("/a").first_id == ids.message_id
    assert publish(store, "/new").message_id == 1
    eventually(lambda: len(recorder.messages) == 16)
    assert recorder.told("resync") == []
    # Pointers of before lead to no other message.
    for message in store.global_backlog():
        assert message.name != "/a" or message.data in (7, 8)


def test_the_global_backlog_lives_as_long_as_the_longest_age(harness: StoreUnderTest) -> None:
    store = harness.open()
    publish(store, "/a", age=20)
    publish(store, "/b", age=10)
    harness.pass_time(15)
    assert [message.channel for message in store.global_backlog()] == ["/a"]
    harness.pass_time(6)
    assert store.global_backlog() == []
    assert store.state().global_id == 2
    assert publish(store, "/a").global_id == 3
    assert [message.global_id for message in store.global_backlog()] == [3]
