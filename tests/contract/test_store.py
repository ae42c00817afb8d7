"""What every store promises (``messagebus/stores/base.py``), asked of each."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import threading
import time
import warnings

import pytest

from messagebus.errors import BackendUnavailable, BusClosed, PublishRefused
from messagebus.message import Ids, Message, encode_envelope
from messagebus.options import Options
from messagebus.stores import BacklogQuery, Publication, PublicationId, Store, StoreState, open_store
from tests.eventually import eventually
from tests.recorder import Recorder
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
    assert nothing == ([], 0, 0, 0, 1, math.inf)
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
    assert a == ([], 0, 3, 3, 4, math.inf)


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


# --- what is dropped ---


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


# --- feeds ---


def test_a_feed_starts_where_the_store_stands(store: Store) -> None:
    publish(store, "/a", 1)
    recorder = listen(store)
    publish(store, "/b", 2)
    eventually(lambda: recorder.messages)
    assert recorder.told("started") == [StoreState(1, store.state().epoch)]
    assert recorder.data == [2]
    assert recorder.told("healthy") == []


def test_every_listener_hears_every_message_in_the_order_of_the_ids(store: Store) -> None:
    recorders = [listen(store) for _ in range(3)]
    for number in range(100):
        publish(store, f"/{number % 3}", number)
    for recorder in recorders:
        eventually(lambda recorder=recorder: len(recorder.messages) == 100)  # type: ignore[misc]
        assert recorder.data == list(range(100))
        assert recorder.ids == list(range(1, 101))


def test_a_feed_that_loses_its_connection_while_messages_are_published_misses_none(harness: StoreUnderTest) -> None:
    store = harness.open()
    recorder = listen(store)
    for number in range(400):
        if number % 100 == 50:
            harness.cut_feeds()
        publish(store, f"/{number % 3}", number)
    eventually(lambda: len(recorder.messages) >= 400)
    assert recorder.data == list(range(400))
    assert recorder.told("resync") == []
    if harness.on_network:
        eventually(lambda: recorder.events[-1] == ("healthy", True) or recorder.told("healthy")[-1] is True)
        assert False in recorder.told("healthy")


def test_a_closed_feed_is_silent_and_its_thread_has_ended(harness: StoreUnderTest) -> None:
    store = harness.open()
    recorder = Recorder()
    feed = store.listen(recorder)
    eventually(lambda: recorder.told("started"))
    publish(store, "/a", 1)
    eventually(lambda: recorder.messages)
    began = time.monotonic()
    feed.close()
    feed.close()
    assert time.monotonic() - began < 10
    publish(store, "/a", 2)
    assert recorder.data == [1]
    assert not [thread for thread in recorder.threads - {threading.current_thread()} if thread.is_alive()]
    if harness.on_network:
        eventually(lambda: harness.feeds_of_server() == 0)


def test_a_closed_backend_refuses_everything(store: Store) -> None:
    recorder = listen(store)
    publish(store, "/a")
    store.close()
    store.close()
    with pytest.raises(BusClosed):
        publish(store, "/a")
    with pytest.raises(BusClosed):
        store.state()
    with pytest.raises(BusClosed):
        store.listen(recorder)


# --- other processes, threads and greenlets ---


def test_a_forked_child_publishes_and_listens_while_the_parent_goes_on_unharmed(harness: StoreUnderTest) -> None:
    store = harness.open()
    recorder = listen(store)
    publish(store, "/a", 1)
    eventually(lambda: recorder.messages)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of newer Pythons: forking with threads
        child = os.fork()
    if child == 0:  # pragma: no cover - coverage does not see the child
        status = 1
        try:
            store.after_fork()
            heard = listen(store)
            publish(store, "/a", 2)
            eventually(lambda: heard.data == [2])
            assert recorder.data == [1]
            store.close()
            status = 0
        finally:
            os._exit(status)
    _, result = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(result) == 0
    publish(store, "/a", 3)
    expected = [1, 3] if not store.shared else [1, 2, 3]
    eventually(lambda: recorder.data == expected)
    assert recorder.told("healthy") == []
    assert [message.data for message in store.backlog("/a").messages] == expected


def test_a_backend_that_was_made_before_gevent_patched_the_process_works_after_it(harness: StoreUnderTest) -> None:
    program = """if True:
        import sys
        from messagebus.stores import open_store
        from messagebus.options import Options
        store = open_store(Options(url=sys.argv[1]))
        from gevent import monkey
        monkey.patch_all()
        import gevent, threading
        from tests.eventually import eventually
        from tests.recorder import Recorder
        recorder = Recorder()
        store.listen(recorder)
        eventually(lambda: recorder.told("started"))
        def work():
            for _ in range(10):
                store.publish("/a", b'{"data":1}', max_backlog_size=1000, max_backlog_age=10)
                gevent.sleep(0)
        gevent.joinall([gevent.spawn(work) for _ in range(100)], raise_error=True)
        eventually(lambda: len(recorder.messages) == 1000)
        assert recorder.ids == list(range(1, 1001))
        store.close()
    """
    # gevent's own warning, for redis-py and ssl are imported before the patch here, is not what this test is about.
    subprocess.run([sys.executable, "-W", "ignore", "-c", program, harness.url], check=True, timeout=60)


def test_an_unavailable_store_says_so(harness: StoreUnderTest) -> None:
    if not harness.on_network:
        return  # there is nothing that could be unreachable
    scheme = harness.url.partition(":")[0]
    store = open_store(Options(url=f"{scheme}://u:secret@127.0.0.1:1/0", store_timeout=0.5))
    for ask in (
        lambda: publish(store, "/a"),
        lambda: store.backlog("/a"),
        lambda: store.last_ids(["/a"]),
        lambda: store.global_backlog(),
        lambda: store.state(),
        lambda: store.publish_many([Publication("/a", b"{}", 1, 1)]),
        lambda: store.expire_all_backlogs(),
        lambda: store.reset(),
    ):
        with pytest.raises(BackendUnavailable, match=r"127\.0\.0\.1:1 ") as caught:
            ask()
        assert "secret" not in str(caught.value)
    store.close()
