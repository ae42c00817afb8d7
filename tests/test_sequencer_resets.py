"""The sequencer and a store that was reset or went back: the epoch changes, and what is lost is told."""

from __future__ import annotations

import pytest

from messagebus.errors import BackendUnavailable
from messagebus.message import Message
from messagebus.stores import StoreState, Trace

from .sequencer_feed import Feed, Store


@pytest.fixture
def feed() -> Feed:
    return Feed(Store())


def test_an_id_that_goes_backwards_is_a_reset_and_the_message_still_comes(feed: Feed) -> None:
    feed.connect()
    feed.store.publish(2)
    feed.read()
    feed.store.reset()
    feed.store.publish(2)
    feed.read()
    assert feed.recorder.ids == [1, 2, 1, 2]
    assert feed.recorder.told("resync") == [StoreState(0, "epoch 2")]


def test_a_reset_store_whose_first_message_has_the_id_that_was_seen_last_is_noticed(feed: Feed) -> None:
    feed.connect()
    for _ in range(2):
        feed.store.publish()
        feed.read()
        feed.store.reset()
    assert feed.recorder.ids == [1, 1]
    assert len(feed.recorder.told("resync")) == 1


def test_a_reset_before_the_first_message_of_a_connection_is_not_taken_for_a_duplicate(feed: Feed) -> None:
    feed.store.publish(100)
    feed.connect()
    feed.store.reset()
    feed.store.publish()
    feed.read()
    assert feed.recorder.ids == [1]
    assert feed.recorder.told("resync") == [StoreState(0, "epoch 2")]


def test_a_reset_between_two_connections_is_noticed_by_the_smaller_id(feed: Feed) -> None:
    feed.store.publish(9)
    feed.connect()
    feed.store.reset()
    feed.connect()
    feed.store.publish()
    feed.read()
    assert feed.recorder.told("resync") == [StoreState(0, "epoch 2")]
    assert feed.recorder.ids == [1]


def test_a_reset_between_two_connections_is_noticed_by_the_epoch_where_the_id_has_grown_past_the_old_one(
    feed: Feed,
) -> None:
    feed.store.publish(2)
    feed.connect()
    feed.store.reset()
    feed.store.publish(5)
    feed.connect()
    assert feed.recorder.told("resync") == [StoreState(5, "epoch 2")]
    assert feed.recorder.ids == []


def test_an_epoch_that_appears_later_is_no_reset(feed: Feed) -> None:
    feed.store.epochs = False
    feed.connect()
    feed.store.epochs = True
    feed.store.publish()
    feed.read()
    feed.connect()
    assert feed.recorder.told("resync") == []


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
    assert feed.recorder.told("resync") == [StoreState(17 + published, "renewed 1")]
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
        assert each.recorder.told("resync") == [StoreState(6, "renewed 1")]
    assert feed.store.renewed == ["epoch 1"]


def test_ids_that_go_back_on_the_stream_give_the_store_another_epoch(feed: Feed) -> None:
    feed.connect()
    feed.store.publish(5)
    feed.read()
    feed.store.go_back(2)
    feed.store.publish(1)
    feed.read()
    assert feed.recorder.told("resync") == [StoreState(3, "renewed 1")]
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
    assert feed.recorder.told("resync") == []
    feed.store.available = True
    feed.store.publish(5)
    feed.connect()
    assert feed.recorder.told("resync") == [StoreState(9, "renewed 1")]


def test_an_older_copy_with_an_epoch_that_was_over_is_not_taken_for_that_life(feed: Feed) -> None:
    feed.connect()
    feed.store.publish(5)
    feed.read()
    feed.store.go_back(1)
    feed.connect()
    feed.store.publish(5)
    feed.store.epoch = "epoch 1"
    feed.connect()
    assert [state.epoch for state in feed.recorder.told("resync") if isinstance(state, StoreState)] == [
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
    assert feed.recorder.told("resync") == [StoreState(4, "renewed 1")]
    assert feed.recorder.ids == [1, 2]


def test_without_an_announcement_a_busy_feed_learns_of_the_epoch_when_it_asks(feed: Feed) -> None:
    feed.connect()
    feed.store.publish(2)
    feed.read()
    feed.sequencer.check_epoch()
    assert feed.recorder.told("resync") == []
    feed.store.renew_epoch("epoch 1")
    feed.sequencer.check_epoch()
    assert feed.recorder.told("resync") == [StoreState(2, "renewed 1")]


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
    assert feed.recorder.told("resync") == [StoreState(10, "renewed 1" if went_back else "epoch 1")]
