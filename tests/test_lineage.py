"""Positions of a former epoch: they hold as far as the present one has the same messages."""

from __future__ import annotations

import threading
from collections.abc import Mapping

import pytest

from messagebus.errors import BackendUnavailable
from messagebus.hub.epochs import Epochs
from messagebus.hub.history import Cursor, HistoryView, appended, merged, trimmed, view_of_page
from messagebus.hub.lineage import NO_LINEAGE, is_shared, judged
from messagebus.hub.subscribe_request import SubscribeParams, SubscribeRequest
from messagebus.hub.subscriber import Identity
from messagebus.message import Message
from messagebus.stores import BacklogPage, BacklogQuery, StoreState
from messagebus.stores.redis_history import read_lineage
from messagebus.wire import parse_position

from .late_feed import NAME, LateFeed, late_feed
from .planning import request_for
from .sequencer_feed import Feed, Store

EPOCHS = {"former": 10, "oldest": 4}


def message(message_id: int, global_id: int) -> Message:
    return Message(global_id, message_id, NAME, b"0")


def page(*messages: Message, after: int = 0, last_id: int = 0, first_id: int = 0) -> HistoryView:
    last = messages[-1].message_id if messages else last_id
    found = BacklogPage([*messages], after, last, last, first_id or (messages[0].message_id if messages else last + 1))
    return view_of_page(found, 0.0)


def cursor(position: int | str, epoch: str, channel: str = NAME) -> Cursor:
    params = SubscribeParams({channel: parse_position(channel, position)}, epoch)
    epochs = Epochs()
    epochs.begin_life(0, StoreState(0, "present", EPOCHS))
    [want] = SubscribeRequest(Identity("c"), None, params).cursors(epochs)
    return want


@pytest.mark.parametrize(
    ("position", "epoch", "stale"),
    [
        ("@10", "former", False),
        ("@11", "former", True),
        ("@5", "oldest", True),
        ("@5", "unknown", True),
        (0, "former", False),
        (-1, "former", False),
        (5, "unknown", True),
        (5, "present", False),
    ],
)
def test_what_the_position_alone_tells(position: int | str, epoch: str, stale: bool) -> None:
    want = cursor(position, epoch)
    assert (want.stale, want.shared) == (stale, None)


@pytest.mark.parametrize(("position", "stale"), [(10, False), (11, True)])
def test_a_patternʼs_positions_are_global_ids(position: int, stale: bool) -> None:
    want = cursor(position, "former", "/news/*")
    assert (want.stale, want.shared) == (stale, None)


def test_a_message_id_is_judged_by_the_global_id_of_its_message() -> None:
    view = page(message(5, 9), message(6, 11))
    assert is_shared(view, 5, 10)
    assert is_shared(view, 6, 10) is False
    assert is_shared(view, 7, 10) is None  # the store may know more
    # Message 3 is gone, and older than 5, which is shared.
    assert is_shared(view, 3, 10)
    # Message 5 may have been the last one of the old epoch, or one of the new that is gone already.
    assert is_shared(page(message(6, 11)), 5, 10) is None
    assert is_shared(page(last_id=5), 5, 10) is None


def test_who_has_followed_the_channel_all_the_time_knows_it_where_nothing_is_kept() -> None:
    quiet = merged(None, page(last_id=5), entered=8)
    assert quiet is not None
    assert is_shared(quiet, 5, 10)
    late = merged(None, page(last_id=5), entered=12)
    assert late is not None
    assert is_shared(late, 5, 10) is None
    busy = appended(quiet, [message(6, 11), message(7, 12)], 0.0)
    assert is_shared(busy, 5, 10)
    assert is_shared(busy, 6, 10) is False
    assert is_shared(trimmed(busy, 1), 6, 10) is None


def test_what_this_process_does_not_remember_is_read_and_what_nobody_can_tell_is_stale() -> None:
    asked: list[BacklogQuery] = []

    def read(queries: list[BacklogQuery]) -> Mapping[str, HistoryView]:
        asked.extend(queries)
        return {
            "/b": page(message(5, 9), after=4, first_id=1),
            "/c": page(last_id=5),
            "/d": page(message(5, 11), after=4),
        }

    wants = [cursor(5, "former", name) for name in ("/a", "/b", "/c", "/d")]
    known = {"/a": page(message(5, 10))}
    found = judged(wants, known.get, read)
    assert [query.name for query in asked] == ["/b", "/c", "/d"]
    assert [want.stale for want in found] == [False, False, True, True]
    assert {want.shared for want in found} == {None}


def test_a_lineage_counts_for_the_epoch_that_it_was_written_for() -> None:
    assert read_lineage(b"now then:12 before:3", "now") == {"then": 12, "before": 3}
    assert read_lineage(b"now then:12", "other") == NO_LINEAGE == read_lineage(None, "now")
    assert read_lineage(b"now then:x :4 5", "now") == {}


# --- feeds ---


@pytest.mark.parametrize("shared", [2, 3, 9])
def test_a_feed_goes_on_in_an_epoch_that_has_all_that_it_delivered(shared: int) -> None:
    feed = Feed(Store())
    feed.connect()
    feed.store.publish(3)
    feed.read()
    feed.store.epoch = "epoch 2"
    feed.store.lineage = {"epoch 1": shared}
    feed.connect()
    state = StoreState(3, "epoch 2", {"epoch 1": shared})
    if shared < 3:
        assert (feed.recorder.told("resync"), feed.recorder.told("renewed")) == ([state], [])
    else:
        assert (feed.recorder.told("resync"), feed.recorder.told("renewed")) == ([], [state])


# --- a process ---


def of_a_shared_store(feed: LateFeed, epoch: str) -> None:
    feed.node.store.shared = True
    feed.node.hub.start(StoreState(0, epoch))


def test_a_client_that_knows_a_newer_epoch_than_the_process_waits_for_it() -> None:
    with late_feed(kept=10, window=10) as feed:
        feed.do("ppp")
        of_a_shared_store(feed, "old")
        epoch = feed.node.store.state().epoch
        plans = []
        request = request_for(Cursor(NAME, NAME, 3), epoch=epoch)
        thread = threading.Thread(target=lambda: plans.append(feed.node.plan(request)))
        thread.start()
        thread.join(0.2)
        assert not plans
        feed.renewed(StoreState(3, epoch, {"old": 3}))
        while thread.is_alive():
            feed.node.reactor.turn(0)
        assert [plan.epoch for plan in plans] == [epoch]


def test_a_process_that_does_not_come_to_the_epoch_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("messagebus.hub.planner.PATIENCE", 0.05)
    with late_feed(kept=10, window=10) as feed:
        feed.do("p")
        of_a_shared_store(feed, "old")
        with pytest.raises(BackendUnavailable, match="what became of the store"):
            feed.node.plan(request_for(Cursor(NAME, NAME, 3), epoch=feed.node.store.state().epoch))
        # An epoch that nobody knows any more is nothing to wait for.
        assert feed.node.plan(request_for(Cursor(NAME, NAME, 3, stale=True), epoch="lost")).epoch == "old"


def whose_pages_tell_the_epoch(feed: LateFeed, monkeypatch: pytest.MonkeyPatch) -> str:
    """Returns the store's."""
    store = feed.node.store
    read, epoch = store.backlogs, store.state().epoch
    assert epoch
    monkeypatch.setattr(store, "backlogs", lambda *given: [each._replace(epoch=epoch) for each in read(*given)])
    return epoch


def test_nobody_is_given_what_is_of_an_epoch_that_the_process_has_not_come_to(monkeypatch: pytest.MonkeyPatch) -> None:
    with late_feed(kept=10, window=10) as feed:
        feed.do("ppp")
        epoch = whose_pages_tell_the_epoch(feed, monkeypatch)
        of_a_shared_store(feed, "old")
        plans = []
        thread = threading.Thread(target=lambda: plans.append(feed.node.plan(request_for(Cursor(NAME, NAME, 0)))))
        thread.start()
        thread.join(0.5)
        assert not plans
        window = feed.node.hub.windows.find(NAME)
        assert window is None or window.state is None
        feed.renewed(StoreState(3, epoch, {"old": 3}))
        while thread.is_alive():
            feed.node.reactor.turn(0)
        [plan] = plans
        assert plan.epoch == epoch
        assert [message.message_id for message in plan.pages[NAME].messages] == [1, 2, 3]


def test_a_reading_of_an_epoch_to_which_the_process_does_not_come_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("messagebus.hub.planner.PATIENCE", 0.05)
    with late_feed(kept=10, window=10) as feed:
        feed.do("p")
        whose_pages_tell_the_epoch(feed, monkeypatch)
        of_a_shared_store(feed, "old")
        with pytest.raises(BackendUnavailable, match="what became of the store"):
            feed.node.plan(request_for(Cursor(NAME, NAME, 0)))


def test_a_plan_of_another_epoch_is_made_again() -> None:
    with late_feed(kept=10, window=10) as feed:
        feed.do("ppp")
        feed.dispatch(3)
        plan = feed.plan(Cursor(NAME, NAME, 1))
        again: list[object] = []

        def plan_again() -> object:
            again.append(1)
            return feed.plan(Cursor(NAME, NAME, 1))

        feed.renewed(StoreState(3, "new", {plan.epoch or "": 3}))
        client = feed.open(plan, plan_again)  # type: ignore[arg-type]
        assert again
        assert client.ids == [2, 3]
