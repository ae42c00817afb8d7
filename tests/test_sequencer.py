"""The sequencer between a store's live stream and a listener: no hole, no duplicate, or said to be lost."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from messagebus.errors import BackendUnavailable
from messagebus.message import Message
from messagebus.stores import StoreState, Trace
from messagebus.stores.sequencer import Entry, Gate, Sequencer, Unreadable

from .recorder import Recorder


def message(global_id: int) -> Message:
    return Message(global_id, global_id, "/a", b"null")


class Store:
    """A store in a list. ``live`` holds what the current connection's stream has not brought yet."""

    def __init__(self) -> None:
        self.life = 1
        self.global_id = 0
        self.kept: list[Entry] = []
        self.live: list[Entry] = []
        self.available = True
        self.epochs = True
        self.epoch = "epoch 1"
        self.renewed: list[str | None] = []
        """The epochs that somebody wanted to be over."""

    def named_state(self) -> StoreState:
        if not self.available:
            raise BackendUnavailable("gone")
        return StoreState(self.global_id, self.epoch if self.epochs else None)

    def renew_epoch(self, epoch: str | None) -> StoreState:
        if not self.available:
            raise BackendUnavailable("gone")
        self.renewed.append(epoch)
        if epoch == self.epoch:
            self.epoch = f"renewed {len(self.renewed)}"
        return self.named_state()

    def contradicts(self, traces: Sequence[Trace]) -> bool:
        if not self.available:
            raise BackendUnavailable("gone")
        places = {(trace.name, trace.message_id): trace for trace in traces}
        by_id = {trace.global_id: trace for trace in traces}
        return any(
            found not in (None, Trace.of(entry))
            for entry in self.kept
            if isinstance(entry, Message)
            for found in (places.get((entry.name, entry.message_id)), by_id.get(entry.global_id))
        )

    def entries(self, after: int) -> Sequence[Entry]:
        if not self.available:
            raise BackendUnavailable("gone")
        return [entry for entry in self.kept if entry.global_id > after]

    def publish(self, count: int = 1) -> None:
        for _ in range(count):
            self.global_id += 1
            new = Message(self.global_id, self.global_id, "/a", b"%d" % self.life)
            self.kept.append(new)
            self.live.append(new)

    def reset(self) -> None:
        self.life += 1
        self.global_id = 0
        self.kept = []
        self.epoch = f"epoch {self.life}"

    def go_back(self, count: int) -> None:
        """An older copy of the data takes its place, without the last ``count`` messages."""
        self.life += 1
        self.global_id -= count
        self.kept = [entry for entry in self.kept if entry.global_id <= self.global_id]


class Feed:
    def __init__(self, store: Store) -> None:
        self.store = store
        self.recorder = Recorder()
        self.sequencer = Sequencer(store, self.recorder)

    def connect(self, between: int = 0) -> None:
        """``between``: messages published after subscribing, before the store's state is read."""
        self.sequencer.prepare()
        self.store.live = []
        self.store.publish(between)
        self.sequencer.resume()

    def read(self, count: int | None = None) -> None:
        entries = self.store.live[:count]
        del self.store.live[:count]
        self.sequencer.received(entries)


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
    assert feed.recorder.told("lost") == []


def test_what_was_missed_between_two_connections_is_read_from_the_backlog_and_comes_once(feed: Feed) -> None:
    feed.connect()
    feed.store.publish(2)
    feed.read()
    feed.store.publish(3)
    feed.connect(between=2)
    feed.store.publish()
    feed.read()
    assert feed.recorder.ids == [1, 2, 3, 4, 5, 6, 7, 8]
    assert feed.recorder.told("lost") == []


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
    assert feed.recorder.told("lost") == [StoreState(6, "epoch 1")]


def test_an_id_that_goes_backwards_is_a_reset_and_the_message_still_comes(feed: Feed) -> None:
    feed.connect()
    feed.store.publish(2)
    feed.read()
    feed.store.reset()
    feed.store.publish(2)
    feed.read()
    assert feed.recorder.ids == [1, 2, 1, 2]
    assert feed.recorder.told("lost") == [StoreState(0, "epoch 2")]


def test_a_reset_store_whose_first_message_has_the_id_that_was_seen_last_is_noticed(feed: Feed) -> None:
    feed.connect()
    for _ in range(2):
        feed.store.publish()
        feed.read()
        feed.store.reset()
    assert feed.recorder.ids == [1, 1]
    assert len(feed.recorder.told("lost")) == 1


def test_a_reset_before_the_first_message_of_a_connection_is_not_taken_for_a_duplicate(feed: Feed) -> None:
    feed.store.publish(100)
    feed.connect()
    feed.store.reset()
    feed.store.publish()
    feed.read()
    assert feed.recorder.ids == [1]
    assert feed.recorder.told("lost") == [StoreState(0, "epoch 2")]


def test_a_reset_between_two_connections_is_noticed_by_the_smaller_id(feed: Feed) -> None:
    feed.store.publish(9)
    feed.connect()
    feed.store.reset()
    feed.connect()
    feed.store.publish()
    feed.read()
    assert feed.recorder.told("lost") == [StoreState(0, "epoch 2")]
    assert feed.recorder.ids == [1]


def test_a_reset_between_two_connections_is_noticed_by_the_epoch_where_the_id_has_grown_past_the_old_one(
    feed: Feed,
) -> None:
    feed.store.publish(2)
    feed.connect()
    feed.store.reset()
    feed.store.publish(5)
    feed.connect()
    assert feed.recorder.told("lost") == [StoreState(5, "epoch 2")]
    assert feed.recorder.ids == []


def test_an_epoch_that_appears_later_is_no_reset(feed: Feed) -> None:
    feed.store.epochs = False
    feed.connect()
    feed.store.epochs = True
    feed.store.publish()
    feed.read()
    feed.connect()
    assert feed.recorder.told("lost") == []


@pytest.mark.parametrize("published", [0, 3, 4, 10])
def test_a_store_that_went_back_between_two_connections_is_given_another_epoch_before_that_is_told(
    feed: Feed, published: int
) -> None:
    feed.connect()
    feed.store.publish(20)
    feed.read()
    feed.store.go_back(3)
    feed.store.publish(published)
    feed.connect()
    assert feed.recorder.told("lost") == [StoreState(17 + published, "renewed 1")]
    feed.connect()
    feed.store.publish()
    feed.read()
    assert feed.recorder.ids == [*range(1, 21), 18 + published]
    assert feed.store.renewed == ["epoch 1"]


def test_who_comes_second_to_a_store_that_went_back_leaves_it_the_epoch_that_it_was_given(feed: Feed) -> None:
    second = Feed(feed.store)
    for each in (feed, second):
        each.connect()
    feed.store.publish(5)
    live = [*feed.store.live]
    for each in (feed, second):
        each.sequencer.received(live)
    feed.store.go_back(1)
    feed.store.publish(2)
    for each in (feed, second):
        each.connect()
        assert each.recorder.told("lost") == [StoreState(6, "renewed 1")]
    assert feed.store.renewed == ["epoch 1"]


def test_ids_that_go_back_on_the_stream_give_the_store_another_epoch(feed: Feed) -> None:
    feed.connect()
    feed.store.publish(5)
    feed.read()
    feed.store.go_back(2)
    feed.store.publish(1)
    feed.read()
    assert feed.recorder.told("lost") == [StoreState(3, "renewed 1")]
    assert feed.recorder.ids == [1, 2, 3, 4, 5, 4]


def test_a_store_that_cannot_be_given_another_epoch_yet_is_tried_again_before_anybody_is_told(feed: Feed) -> None:
    feed.connect()
    feed.store.publish(5)
    feed.read()
    feed.store.go_back(2)
    feed.store.publish(1)
    feed.store.available = False
    with pytest.raises(BackendUnavailable):
        feed.read()
    assert feed.recorder.told("lost") == []
    feed.store.available = True
    feed.store.publish(5)
    feed.connect()
    assert feed.recorder.told("lost") == [StoreState(9, "renewed 1")]


def test_an_older_copy_with_an_epoch_that_was_over_is_not_taken_for_that_life(feed: Feed) -> None:
    feed.connect()
    feed.store.publish(5)
    feed.read()
    feed.store.go_back(1)
    feed.connect()
    feed.store.publish(5)
    feed.store.epoch = "epoch 1"
    feed.connect()
    assert [state.epoch for state in feed.recorder.told("lost") if isinstance(state, StoreState)] == [
        "renewed 1",
        "renewed 2",
    ]


def test_an_announcement_that_the_epoch_is_another_one_is_heard_among_messages(feed: Feed) -> None:
    feed.connect()
    feed.store.publish(2)
    feed.store.renew_epoch("epoch 1")
    feed.store.live.append(Message(-1, -1, "/__epoch", b"null"))
    feed.store.publish(2)
    feed.read(3)
    feed.read()
    assert feed.recorder.told("lost") == [StoreState(4, "renewed 1")]
    assert feed.recorder.ids == [1, 2]


def test_without_an_announcement_a_busy_feed_learns_of_the_epoch_when_it_asks(feed: Feed) -> None:
    feed.connect()
    feed.store.publish(2)
    feed.read()
    feed.sequencer.check_epoch()
    assert feed.recorder.told("lost") == []
    feed.store.renew_epoch("epoch 1")
    feed.sequencer.check_epoch()
    assert feed.recorder.told("lost") == [StoreState(2, "renewed 1")]


@pytest.mark.parametrize("went_back", [False, True])
def test_where_messages_are_lost_a_channel_whose_ids_began_again_is_found_by_its_newest_message(
    feed: Feed, went_back: bool
) -> None:
    feed.connect()
    feed.store.publish(5)
    feed.read()
    feed.recorder.known = [Trace.of(Message(3, 7, "/b", b"1"))]
    feed.store.publish(5)
    del feed.store.kept[:-1]
    if went_back:
        feed.store.kept[0] = Message(10, 7, "/b", b"1")
    feed.connect()
    assert feed.recorder.told("lost") == [StoreState(10, "renewed 1" if went_back else "epoch 1")]


def test_an_unreadable_message_uses_its_id_and_is_left_out(feed: Feed) -> None:
    feed.connect()
    feed.store.publish(3)
    feed.store.live[1] = Unreadable(2)
    feed.read()
    feed.store.publish(3)
    feed.store.kept[4] = Unreadable(5)
    feed.connect()
    assert feed.recorder.ids == [1, 3, 4, 6]
    assert feed.recorder.told("lost") == []


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
    assert feed.recorder.told("lost") == []


def test_a_shut_gate_lets_nothing_through() -> None:
    recorder = Recorder()
    gate = Gate(recorder)
    gate.healthy(True)
    gate.shut()
    gate.received([message(1)])
    gate.lost(StoreState(1, None))
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
            lives = len(feed.recorder.told("lost"))
            store.go_back(count)
            store.publish(count + 1)
            feed.connect()
            assert len(feed.recorder.told("lost")) == lives + 1
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
        assert feed.recorder.told("lost") == []
        assert feed.recorder.ids == list(range(4, store.global_id + 1))
