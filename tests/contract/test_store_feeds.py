"""What a store's feeds bring, and other processes, threads and greenlets that use it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
import warnings

import pytest

from messagebus.errors import BackendUnavailable, BusClosed
from messagebus.options import Options
from messagebus.stores import Publication, Store, StoreState, open_store
from tests.eventually import eventually
from tests.recorder import Recorder
from tests.store_helpers import listen

from .stores import StoreUnderTest
from .test_store import publish


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
