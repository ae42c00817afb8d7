"""The sequencer between a store's live stream and a listener: no hole, no duplicate, or said to be lost."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from messagebus.errors import BackendUnavailable
from messagebus.message import Message
from messagebus.stores import StoreState
from messagebus.stores.sequencer import Gate, Unreadable

from .recorder import Recorder
from .sequencer_feed import Feed, Store


def message(global_id: int) -> Message:
    return Message(global_id, global_id, "/a", b"null")


@pytest.fixture
def feed() -> Feed:
    return Feed(Store())


def test_a_feed_starts_where_the_store_stands_and_gets_what_comes_then(feed: Feed) -> None:
    feed.store.publish(3)
    feed.connect()
    feed.store.publish(2)
    feed.read()
    assert feed.recorder.told("started") == [StoreState(3, "epoch 1")]
    assert feed.recorder.ids == [4, 5]


def test_messages_that_the_state_already_counted_are_not_delivered_when_the_stream_brings_them(feed: Feed) -> None:
    feed.store.publish(3)
    feed.connect(between=2)
    feed.store.publish()
    feed.read()
    assert feed.recorder.told("started") == [StoreState(5, "epoch 1")]
    assert feed.recorder.ids == [6]
    assert feed.recorder.told("resync") == []


def test_what_was_missed_between_two_connections_is_read_from_the_backlog_and_comes_once(feed: Feed) -> None:
    feed.connect()
    feed.store.publish(2)
    feed.read()
    feed.store.publish(3)
    feed.connect(between=2)
    feed.store.publish()
    feed.read()
    assert feed.recorder.ids == [1, 2, 3, 4, 5, 6, 7, 8]
    assert feed.recorder.told("resync") == []


def test_a_hole_on_the_stream_is_filled_from_the_backlog(feed: Feed) -> None:
    feed.connect()
    feed.store.publish(5)
    del feed.store.live[1:3]
    feed.read()
    assert feed.recorder.ids == [1, 2, 3, 4, 5]


def test_a_hole_that_the_backlog_has_as_well_is_said_to_be_lost_and_nothing_behind_it_comes_twice(feed: Feed) -> None:
    feed.connect()
    feed.store.publish(2)
    feed.read()
    feed.store.publish(4)
    del feed.store.kept[2]
    feed.connect()
    feed.store.publish()
    feed.read()
    assert feed.recorder.ids == [1, 2, 7]
    assert feed.recorder.told("resync") == [StoreState(6, "epoch 1")]


def test_an_unreadable_message_uses_its_id_and_is_left_out(feed: Feed) -> None:
    feed.connect()
    feed.store.publish(3)
    feed.store.live[1] = Unreadable(2)
    feed.read()
    feed.store.publish(3)
    feed.store.kept[4] = Unreadable(5)
    feed.connect()
    assert feed.recorder.ids == [1, 3, 4, 6]
    assert feed.recorder.told("resync") == []


def test_a_store_that_fails_while_a_hole_is_filled_is_asked_again_on_the_next_connection(feed: Feed) -> None:
    feed.connect()
    feed.store.publish(4)
    del feed.store.live[1]
    feed.store.available = False
    with pytest.raises(BackendUnavailable):
        feed.read()
    feed.store.available = True
    feed.connect()
    assert feed.recorder.ids == [1, 2, 3, 4]
    assert feed.recorder.told("resync") == []


def test_a_shut_gate_lets_nothing_through() -> None:
    recorder = Recorder()
    gate = Gate(recorder)
    gate.healthy(True)
    gate.shut()
    gate.received([message(1)])
    gate.resync(StoreState(1, None))
    assert recorder.events == [("healthy", True)]


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("publish"), st.integers(1, 6)),
        st.tuples(st.just("read"), st.integers(1, 6)),
        st.tuples(st.just("drop"), st.integers(0, 5)),
        st.tuples(st.just("connect"), st.integers(0, 3)),
        st.tuples(st.just("trim"), st.integers(0, 8)),
        st.tuples(st.just("fail"), st.integers(1, 6)),
        st.tuples(st.just("reset"), st.just(0)),
        st.tuples(st.just("go back"), st.integers(1, 6)),
    ),
    max_size=40,
)


@given(STEPS)
def test_whatever_happens_every_message_comes_once_and_in_order_or_is_said_to_be_lost(
    steps: list[tuple[str, int]],
) -> None:
    feed = Feed(Store())
    store = feed.store
    store.publish(3)
    feed.connect()
    for step, count in steps:
        if step == "publish":
            store.publish(count)
        elif step == "read":
            feed.read(count)
        elif step == "drop" and count < len(store.live):
            # Never the first after a reset: a stream that stands drops nothing by itself.
            if store.live[count].global_id > 1:
                del store.live[count]
        elif step == "connect":
            feed.connect(between=count)
        elif step == "trim":
            del store.kept[: -count or None]
        elif step == "fail":
            store.available = False
            try:
                feed.read(count)
            except BackendUnavailable:
                pass
            store.available = True
            feed.connect()
        elif step == "reset" and store.global_id:
            # One reset at a time: the stream of the old life is read to its end, and the new life has begun.
            feed.read()
            store.reset()
            store.publish()
        elif step == "go back" and store.global_id > count:
            feed.connect()
            feed.read()
            lives = len(feed.recorder.told("resync"))
            store.go_back(count)
            store.publish(count + 1)
            feed.connect()
            assert len(feed.recorder.told("resync")) == lives + 1
    store.publish()
    feed.connect()
    feed.read()

    position: int | None = None
    for kind, value in feed.recorder.events:
        if isinstance(value, StoreState):
            position = value.global_id
        elif isinstance(value, Message):
            assert kind == "message"
            assert position is not None
            assert value.global_id == position + 1, "a hole or a duplicate that was not said to be lost"
            position = value.global_id
    assert position == store.global_id, "the end is missing"
    if store.life == 1 and len(store.kept) == store.global_id:
        assert feed.recorder.told("resync") == []
        assert feed.recorder.ids == list(range(4, store.global_id + 1))
