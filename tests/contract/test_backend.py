"""What every store promises (``messagebus/backends/base.py``), asked of each."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator

import pytest

from messagebus.stores import Backend, Publication, State, open_backend
from messagebus.errors import BackendUnavailable, BusClosed
from messagebus.message import Ids, Message, encode_envelope
from messagebus.options import Options
from tests.backends import listen
from tests.eventually import eventually
from tests.recorder import Recorder

from .stores import PostgresStore, RedisStore, Store

NAMES = ["/a", "/chat|room", "/häuser/雪/🎉", "/a b?c=d&e", "/a$|$site", "/a|b$|$my|site", "/global/x"]


@pytest.fixture(
    params=[
        "memory",
        pytest.param("redis", marks=pytest.mark.redis),
        pytest.param("postgres", marks=pytest.mark.postgres),
    ]
)
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    if request.param == "memory":
        store = Store()
    elif request.param == "redis":
        request.getfixturevalue("redis_url")
        store = RedisStore(request.getfixturevalue("redis_server"))
    else:
        request.getfixturevalue("postgres_url")
        store = PostgresStore(request.getfixturevalue("postgres_server"))
    before = set(threading.enumerate())
    yield store
    for backend in store.backends:
        backend.close()
    eventually(lambda: set(threading.enumerate()) <= before, message="a closed backend left threads behind")


@pytest.fixture
def backend(store: Store) -> Backend:
    return store.open()


def publish(backend: Backend, name: str, data: object = None, size: int = 1000, age: int = 1000) -> Ids:
    raw = b"null" if data is None else b"%d" % data if isinstance(data, int) else b'"%b"' % str(data).encode()
    return backend.publish(name, encode_envelope(raw), max_backlog_size=size, max_backlog_age=age)


def ids(messages: list[Message]) -> list[int]:
    return [message.message_id for message in messages]


# --- publishing and reading ---


def test_an_empty_store_has_no_ids_no_epoch_and_no_messages(backend: Backend) -> None:
    assert backend.state() == State(0, None)
    assert backend.backlog("/a") == ([], 0, 1)
    assert backend.last_ids(["/a", "/b"]) == [0, 0]
    assert backend.last_ids([]) == []
    assert backend.global_backlog() == []


def test_message_ids_count_per_name_and_global_ids_over_all(backend: Backend) -> None:
    assert [publish(backend, name) for name in ("/a", "/b", "/a")] == [Ids(1, 1), Ids(1, 2), Ids(2, 3)]
    assert backend.last_ids(["/b", "/c", "/a"]) == [1, 0, 2]
    assert backend.state().global_id == 3


@pytest.mark.parametrize("name", NAMES)
def test_any_name_is_kept_and_given_back(backend: Backend, name: str) -> None:
    recorder = listen(backend)
    publish(backend, name, "x")
    (message,) = backend.backlog(name).messages
    (same,) = backend.global_backlog()
    (heard,) = eventually(lambda: recorder.messages)
    assert message.name == same.name == heard.name == name
    assert message.data == same.data == heard.data == "x"


def test_a_channel_on_two_sites_is_two(backend: Backend) -> None:
    publish(backend, "/a$|$one", 1)
    publish(backend, "/a$|$two", 2)
    (message,) = backend.backlog("/a$|$two").messages
    assert (message.channel, message.site_id, message.message_id, message.data) == ("/a", "two", 1, 2)
    assert backend.backlog("/a").messages == []


def test_targets_and_data_come_back_as_they_were_published(backend: Backend) -> None:
    raw = '{"k":\r\n"|\\r\\n|ü\\u0000"}'.encode()
    envelope = encode_envelope(raw, user_ids=[1, "u"], group_ids=[2], client_ids=["c"])
    backend.publish("/a", envelope, max_backlog_size=10, max_backlog_age=10)
    (message,) = backend.backlog("/a").messages
    assert message.raw == raw
    assert (message.user_ids, message.group_ids, message.client_ids) == ((1, "u"), (2,), ("c",))


def test_a_backlog_is_read_from_a_position_and_says_where_the_channel_stands(backend: Backend) -> None:
    for number in range(1, 8):
        publish(backend, "/a", number, size=5)
    assert ids(backend.backlog("/a").messages) == [3, 4, 5, 6, 7]
    assert [message.data for message in backend.backlog("/a", 5).messages] == [6, 7]
    for after in (-1, 0, 5, 7, 100):
        assert backend.backlog("/a", after)[1:] == (7, 3)
    assert backend.backlog("/a", 7).messages == backend.backlog("/a", 100).messages == []


def test_ids_have_no_holes_under_eight_publishers_and_each_ones_order_is_kept(store: Store) -> None:
    backend = store.open(max_global_backlog_size=1000)
    recorder = listen(backend)
    given: list[Ids] = []

    def work(publisher: int) -> None:
        given.extend(publish(backend, f"/{publisher % 2}", publisher * 1000 + number) for number in range(50))

    threads = [threading.Thread(target=work, args=(publisher,)) for publisher in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(ids.global_id for ids in given) == list(range(1, 401))
    assert ids(backend.backlog("/0").messages) == ids(backend.backlog("/1").messages) == list(range(1, 201))
    assert [message.global_id for message in backend.global_backlog()] == list(range(1, 401))
    eventually(lambda: len(recorder.messages) == 400)
    assert recorder.ids == list(range(1, 401))
    numbers = [int(str(data)) for data in recorder.data]
    for publisher in range(8):
        assert [number for number in numbers if number // 1000 == publisher] == [
            publisher * 1000 + number for number in range(50)
        ]


# --- many at once ---


def test_many_messages_are_published_in_their_order_and_their_ids_are_returned(backend: Backend) -> None:
    recorder = listen(backend)
    publish(backend, "/b")
    names = ["/a", "/a", "/b", "/a|x$|$s", "/a"]
    given = backend.publish_many(
        [Publication(name, encode_envelope(b"%d" % number), 10, 10) for number, name in enumerate(names)]
    )
    assert given == [Ids(1, 2), Ids(2, 3), Ids(2, 4), Ids(1, 5), Ids(3, 6)]
    eventually(lambda: len(recorder.messages) == 6)
    assert recorder.ids == [1, 2, 3, 4, 5, 6]
    assert [message.name for message in recorder.messages] == ["/b", *names]
    assert [message.data for message in backend.backlog("/a").messages] == [0, 1, 4]
    assert [message.global_id for message in backend.global_backlog()] == [1, 2, 3, 4, 5, 6]
    assert backend.publish_many([]) == []


@pytest.mark.parametrize("clear_every", [1, 7])
def test_many_at_once_leave_the_same_as_one_by_one(store: Store, clear_every: int) -> None:
    backend = store.open(clear_every=clear_every, max_global_backlog_size=40)
    messages = [
        Publication(f"/{number // 3 % 4}", encode_envelope(b"%d" % number), 3 + number // 3 % 4, 100)
        for number in range(100)
    ]

    def kept() -> object:
        global_backlog = [(m.global_id, m.name, m.message_id, m.data) for m in backend.global_backlog()]
        return global_backlog, [
            ([m.data for m in backlog.messages], backlog.last_id, backlog.first_id)
            for backlog in map(backend.backlog, ("/0", "/1", "/2", "/3"))
        ]

    one_by_one = [
        backend.publish(name, envelope, max_backlog_size=size, max_backlog_age=age)
        for name, envelope, size, age in messages
    ]
    expected = kept()
    backend.reset()
    assert backend.publish_many(messages[:60]) + backend.publish_many(messages[60:]) == one_by_one
    assert kept() == expected


def test_thousands_of_messages_at_once_reach_the_listeners_without_a_hole(store: Store) -> None:
    backend = store.open(max_global_backlog_size=10_000)
    recorder = listen(backend)
    messages = [Publication(f"/{number % 7}", encode_envelope(b"%d" % number), 1000, 100) for number in range(2500)]
    assert [ids.global_id for ids in backend.publish_many(messages)] == list(range(1, 2501))
    eventually(lambda: len(recorder.messages) == 2500)
    assert recorder.data == list(range(2500))


# --- what is dropped ---


def test_expired_backlogs_are_gone_while_ids_epoch_and_feeds_go_on(backend: Backend) -> None:
    recorder = listen(backend)
    for name in NAMES:
        publish(backend, name, 1)
        publish(backend, name, 2)
    state = backend.state()
    backend.expire_all_backlogs()
    assert [backend.backlog(name) for name in NAMES] == [([], 2, 3)] * len(NAMES)
    assert backend.global_backlog() == []
    assert backend.last_ids(NAMES) == [2] * len(NAMES)
    assert backend.state() == state
    assert publish(backend, NAMES[0], 3) == Ids(3, state.global_id + 1)
    assert [message.data for message in backend.backlog(NAMES[0]).messages] == [3]
    assert backend.backlog(NAMES[0]).first_id == 3
    assert [message.data for message in backend.global_backlog()] == [3]
    eventually(lambda: len(recorder.messages) == 2 * len(NAMES) + 1)
    assert recorder.told("lost") == []


def test_the_global_backlog_is_limited_and_read_from_a_position(store: Store) -> None:
    backend = store.open(max_global_backlog_size=4)
    for number in range(6):
        publish(backend, f"/{number % 2}", number)
    assert [message.data for message in backend.global_backlog()] == [2, 3, 4, 5]
    assert [message.global_id for message in backend.global_backlog(4)] == [5, 6]
    assert backend.global_backlog(6) == backend.global_backlog(100) == []
    assert len(backend.backlog("/0").messages) == 3


def test_the_global_backlog_leaves_out_what_a_channel_no_longer_keeps(backend: Backend) -> None:
    for _ in range(3):
        publish(backend, "/a", size=1)
        publish(backend, "/b")
    assert [message.global_id for message in backend.global_backlog()] == [2, 4, 5, 6]


def test_with_clear_every_backlogs_are_trimmed_on_every_nth_message_only(store: Store) -> None:
    backend = store.open(clear_every=5, max_global_backlog_size=4)
    for number in range(1, 10):
        publish(backend, "/a", number, size=3)
        kept = 3 + number % 5 if number >= 5 else number
        assert len(backend.backlog("/a").messages) == kept
    assert [message.global_id for message in backend.global_backlog()] == [3, 4, 5, 6, 7, 8, 9]
    publish(backend, "/a", 10, size=3)
    assert ids(backend.backlog("/a").messages) == [8, 9, 10]


def test_a_backlog_is_dropped_some_time_after_its_last_message_but_its_ids_go_on(store: Store) -> None:
    backend = store.open()
    publish(backend, "/other", age=100)
    publish(backend, "/a", age=10)
    store.pass_time(8)
    publish(backend, "/a", age=10)
    store.pass_time(8)
    assert ids(backend.backlog("/a").messages) == [1, 2]
    store.pass_time(3)
    assert backend.backlog("/a") == ([], 2, 3)
    assert [message.channel for message in backend.global_backlog()] == ["/other"]
    assert publish(backend, "/a", age=10).message_id == 3
    assert backend.backlog("/a").first_id == 3


def test_ids_are_forgotten_after_four_times_the_age_and_old_pointers_do_not_lead_to_new_messages(store: Store) -> None:
    backend = store.open()
    publish(backend, "/other", age=100)
    publish(backend, "/a", 1, age=10)
    store.pass_time(38)
    assert backend.last_ids(["/a"]) == [1]
    store.pass_time(4)
    assert backend.last_ids(["/a"]) == [0]
    assert publish(backend, "/a", 2, age=10) == Ids(1, 3)
    assert [(message.global_id, message.data) for message in backend.global_backlog()] == [(1, None), (3, 2)]


def test_the_global_backlog_lives_as_long_as_the_longest_age(store: Store) -> None:
    backend = store.open()
    publish(backend, "/a", age=20)
    publish(backend, "/b", age=10)
    store.pass_time(15)
    assert [message.channel for message in backend.global_backlog()] == ["/a"]
    store.pass_time(6)
    assert backend.global_backlog() == []
    assert backend.state().global_id == 2
    assert publish(backend, "/a").global_id == 3
    assert [message.global_id for message in backend.global_backlog()] == [3]


# --- the epoch, and resets ---


def test_the_epoch_is_made_with_the_first_message_and_stays(backend: Backend) -> None:
    publish(backend, "/a")
    epoch = backend.state().epoch
    assert epoch
    publish(backend, "/a")
    assert backend.state() == State(2, epoch)


def test_a_feed_of_an_empty_store_knows_the_epoch_from_the_beginning(backend: Backend) -> None:
    recorder = listen(backend)
    (state,) = recorder.told("started")
    publish(backend, "/a")
    assert isinstance(state, State)
    assert state.epoch
    assert state == State(0, backend.state().epoch)


def test_a_reset_store_begins_anew_with_another_epoch(backend: Backend) -> None:
    for name in NAMES:
        publish(backend, name)
    before = backend.state().epoch
    backend.reset()
    assert backend.state() == State(0, None)
    assert backend.last_ids(NAMES) == [0] * len(NAMES)
    assert backend.backlog("/a") == ([], 0, 1)
    assert backend.global_backlog() == []
    assert publish(backend, "/a") == Ids(1, 1)
    assert backend.state().epoch not in (None, before)


def test_a_feed_notices_that_the_store_was_reset_and_goes_on(backend: Backend) -> None:
    recorder = listen(backend)
    for number in range(3):
        publish(backend, "/a", number)
    eventually(lambda: len(recorder.messages) == 3)
    backend.reset()
    publish(backend, "/a", 3)
    publish(backend, "/a", 4)
    eventually(lambda: recorder.told("lost") and len(recorder.messages) == 5)
    assert recorder.data == [0, 1, 2, 3, 4]
    assert recorder.ids == [1, 2, 3, 1, 2]


# --- feeds ---


def test_a_feed_starts_where_the_store_stands(backend: Backend) -> None:
    publish(backend, "/a", 1)
    recorder = listen(backend)
    publish(backend, "/b", 2)
    eventually(lambda: recorder.messages)
    assert recorder.told("started") == [State(1, backend.state().epoch)]
    assert recorder.data == [2]
    assert recorder.told("healthy") == []


def test_every_listener_hears_every_message_in_the_order_of_the_ids(backend: Backend) -> None:
    recorders = [listen(backend) for _ in range(3)]
    for number in range(100):
        publish(backend, f"/{number % 3}", number)
    for recorder in recorders:
        eventually(lambda recorder=recorder: len(recorder.messages) == 100)  # type: ignore[misc]
        assert recorder.data == list(range(100))
        assert recorder.ids == list(range(1, 101))


def test_a_feed_that_loses_its_connection_while_messages_are_published_misses_none(store: Store) -> None:
    backend = store.open()
    recorder = listen(backend)
    for number in range(400):
        if number % 100 == 50:
            store.cut_feeds()
        publish(backend, f"/{number % 3}", number)
    eventually(lambda: len(recorder.messages) >= 400)
    assert recorder.data == list(range(400))
    assert recorder.told("lost") == []
    if store.on_network:
        eventually(lambda: recorder.events[-1] == ("healthy", True) or recorder.told("healthy")[-1] is True)
        assert False in recorder.told("healthy")


def test_a_closed_feed_is_silent_and_its_thread_has_ended(store: Store) -> None:
    backend = store.open()
    recorder = Recorder()
    feed = backend.listen(recorder)
    eventually(lambda: recorder.told("started"))
    publish(backend, "/a", 1)
    eventually(lambda: recorder.messages)
    began = time.monotonic()
    feed.close()
    feed.close()
    assert time.monotonic() - began < 1
    publish(backend, "/a", 2)
    assert recorder.data == [1]
    assert not [thread for thread in recorder.threads - {threading.current_thread()} if thread.is_alive()]
    if store.on_network:
        eventually(lambda: store.feeds_of_server() == 0)


def test_a_closed_backend_refuses_everything(backend: Backend) -> None:
    recorder = listen(backend)
    publish(backend, "/a")
    backend.close()
    backend.close()
    with pytest.raises(BusClosed):
        publish(backend, "/a")
    with pytest.raises(BusClosed):
        backend.state()
    with pytest.raises(BusClosed):
        backend.listen(recorder)


# --- other processes, threads and greenlets ---


def test_a_forked_child_publishes_and_listens_while_the_parent_goes_on_unharmed(store: Store) -> None:
    backend = store.open()
    recorder = listen(backend)
    publish(backend, "/a", 1)
    eventually(lambda: recorder.messages)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of newer Pythons: forking with threads
        child = os.fork()
    if child == 0:  # pragma: no cover - coverage does not see the child
        status = 1
        try:
            backend.after_fork()
            heard = listen(backend)
            publish(backend, "/a", 2)
            eventually(lambda: heard.data == [2])
            assert recorder.data == [1]
            backend.close()
            status = 0
        finally:
            os._exit(status)
    _, result = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(result) == 0
    publish(backend, "/a", 3)
    expected = [1, 3] if not backend.shared else [1, 2, 3]
    eventually(lambda: recorder.data == expected)
    assert recorder.told("healthy") == []
    assert [message.data for message in backend.backlog("/a").messages] == expected


def test_a_backend_that_was_made_before_gevent_patched_the_process_works_after_it(store: Store) -> None:
    program = """if True:
        import sys
        from messagebus.backends import open_backend
        from messagebus.options import Options
        backend = open_backend(Options(url=sys.argv[1]))
        from gevent import monkey
        monkey.patch_all()
        import gevent, threading
        from tests.eventually import eventually
        from tests.recorder import Recorder
        recorder = Recorder()
        backend.listen(recorder)
        eventually(lambda: recorder.told("started"))
        def work():
            for _ in range(10):
                backend.publish("/a", b'{"data":1}', max_backlog_size=1000, max_backlog_age=10)
                gevent.sleep(0)
        gevent.joinall([gevent.spawn(work) for _ in range(100)], raise_error=True)
        eventually(lambda: len(recorder.messages) == 1000)
        assert recorder.ids == list(range(1, 1001))
        backend.close()
    """
    # gevent's own warning, for redis-py and ssl are imported before the patch here, is not what this test is about.
    subprocess.run([sys.executable, "-W", "ignore", "-c", program, store.url], check=True, timeout=60)


def test_an_unavailable_store_says_so(store: Store) -> None:
    if not store.on_network:
        assert not store.open().shared
        return
    scheme = store.url.partition(":")[0]
    backend = open_backend(Options(url=f"{scheme}://u:secret@127.0.0.1:1/0", store_timeout=0.5))
    for ask in (
        lambda: publish(backend, "/a"),
        lambda: backend.backlog("/a"),
        lambda: backend.last_ids(["/a"]),
        lambda: backend.global_backlog(),
        lambda: backend.state(),
        lambda: backend.publish_many([Publication("/a", b"{}", 1, 1)]),
        lambda: backend.expire_all_backlogs(),
        lambda: backend.reset(),
    ):
        with pytest.raises(BackendUnavailable, match=r"127\.0\.0\.1:1 ") as caught:
            ask()
        assert "secret" not in str(caught.value)
    backend.close()
