"""Catching up: whatever the store keeps, wherever a subscriber stands and however far behind the feed is, what it is
due and what it then gets live are together exactly what it misses."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import gevent
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from messagebus.errors import FEED_LOST, BackendUnavailable
from messagebus.hub.hub import Hub
from messagebus.hub.permissions import Access
from messagebus.hub.recovery import CatchUp, Cursor, HistoryView, add_due, covers, read_after
from messagebus.hub.subscribe_request import SubscribeParams, SubscribeRequest, SubscriptionPlan
from messagebus.hub.subscriber import Identity, Subscriber
from messagebus.hub.window import ChannelWindow
from messagebus.loop.reactor import Reactor
from messagebus.message import Message
from messagebus.options import Options
from messagebus.stores import Backlog, StoreState

from .late_feed import NAME, Paper, Plain, late_feed
from .planning import request_for

actions = st.text(alphabet="ppoddt", max_size=14)
sizes = st.sampled_from([1, 2, 3, 8, 1000])
story = given(before=actions, between=actions, after=actions, kept=sizes, window=sizes, data=st.data())


@settings(max_examples=250, deadline=None)
@story
def test_from_a_position_everything_after_it_arrives_once_or_is_said_to_be_gone(
    before: str, between: str, after: str, kept: int, window: int, data: st.DataObject
) -> None:
    with late_feed(kept, window) as feed:
        feed.do(before)
        position = data.draw(st.integers(0, len(feed.global_ids)))
        want = Cursor(NAME, NAME, position)
        paper = feed.subscribe(want, between)
        feed.do(after)
        feed.finish(paper)
        first = position + 1
        for gap in paper.told("/__gap"):
            assert gap[NAME]["after"] == position
            assert position + 1 < gap[NAME]["before"] <= feed.node.store.backlog(NAME).first_id
            # What the store has dropped before the feed brought it may still come with the feed.
            first = min(gap[NAME]["before"], *paper.ids[:1] or [1 << 30])
        assert position < first
        assert paper.ids == list(range(first, len(feed.global_ids) + 1))


@settings(max_examples=250, deadline=None)
@story
def test_from_minus_k_the_last_messages_arrive_once_and_then_the_new_ones(
    before: str, between: str, after: str, kept: int, window: int, data: st.DataObject
) -> None:
    with late_feed(kept, window) as feed:
        feed.do(before)
        known = len(feed.global_ids)
        position = data.draw(st.integers(-8, -1))
        want = Cursor(NAME, NAME, position)
        paper = feed.subscribe(want, between)
        feed.do(after)
        feed.finish(paper)
        total = len(feed.global_ids)
        assert paper.ids == list(range(total - len(paper.ids) + 1, total + 1))
        if position == -1:
            [status] = paper.told("/__status")
            # At least what comes after; more where the store has dropped what the feed had not brought yet.
            assert len(paper.ids) >= total - status[NAME]
        elif "p" not in between:
            assert len(paper.ids) >= min(-position - 1, kept, known)


@settings(max_examples=250, deadline=None)
@story
def test_from_a_global_id_everything_after_it_arrives_once_or_is_said_to_be_gone(
    before: str, between: str, after: str, kept: int, window: int, data: st.DataObject
) -> None:
    with late_feed(kept, window) as feed:
        feed.do(before)
        since = data.draw(st.integers(0, feed.node.store.state().global_id))
        want = Cursor(NAME, NAME, -1, after=since)
        paper = feed.subscribe(want, between)
        feed.do(after)
        feed.finish(paper)
        expected = [global_id for global_id in feed.global_ids if global_id > since]
        if paper.told("/__gap"):
            assert len(feed.global_ids) > kept, "nothing is gone"
            assert paper.global_ids == feed.global_ids[len(feed.global_ids) - len(paper.global_ids) :]
        else:
            assert paper.global_ids == expected


@settings(deadline=None)
@given(
    last_id=st.integers(0, 12),
    kept=st.integers(0, 12),
    position=st.integers(-14, 14),
    stale=st.booleans(),
    strict=st.booleans(),
)
def test_what_is_read_from_the_store_for_a_position_suffices_for_it(
    last_id: int, kept: int, position: int, stale: bool, strict: bool
) -> None:
    kept = min(kept, last_id)
    want = Cursor(NAME, NAME, position, stale=stale, strict=strict)
    after = read_after(want, last_id)
    first_id = last_id - kept + 1
    messages = [Message(10 * n, n, NAME, b"1") for n in range(max(first_id, after + 1), last_id + 1)]
    view = HistoryView.of(Backlog(messages, last_id, first_id), after)
    due = CatchUp()
    ids = [message.message_id for message in add_due(due, view, want)]
    whole = list(range(first_id, last_id + 1))
    if stale or (strict and position > last_id):
        assert ids == whole
        assert due.gaps == {NAME: (None, first_id)}
    elif position > last_id:
        assert ids == []
        assert due.positions == {NAME: last_id}
    elif position >= 0:
        assert ids == [number for number in whole if number > position]
        assert due.gaps == ({NAME: (position, first_id)} if position < first_id - 1 else {})
    else:
        assert ids == whole[max(0, len(whole) - (-position - 1)) :]
        assert not due.gaps
    if kept == last_id and position <= last_id:
        assert covers(view, want)


def test_a_position_that_the_backlog_has_lost_is_no_gap_where_a_later_global_id_is_known() -> None:
    """An EventSource that reconnects gives both: the position of its page, and its Last-Event-ID."""
    kept = [Message(100 + n, 50 + n, NAME, b"1") for n in range(1, 11)]
    view = HistoryView.of(Backlog(kept, 60, 51), 0)
    due, want = CatchUp(), Cursor(NAME, NAME, 12, after=105)
    assert covers(view, want)
    assert add_due(due, view, want) == kept[5:]
    assert due.gaps == {}
    add_due(due, view, want._replace(after=90))
    assert due.gaps == {NAME: (12, 51)}


def test_nothing_that_is_kept_is_no_gap_to_who_has_a_global_id() -> None:
    with late_feed(kept=1, window=8) as feed:
        feed.do("pod")
        feed.node.store.expire_all_backlogs()
        feed.dispatch(1)
        paper = feed.subscribe(Cursor(NAME, NAME, after=1), "")
        assert paper.told("/__gap") == []
        assert [status[NAME] for status in paper.told("/__status")] == [1]


def test_what_was_forgotten_since_it_was_read_has_a_subscriber_come_back() -> None:
    with late_feed(kept=8, window=8) as feed:
        feed.do("ppdd")
        plan = feed.plan(Cursor(NAME, NAME, 0))
        feed.node.hub.lost(StoreState(0, "another life"))
        assert feed.open(plan, lambda: plan).finished
        view = feed.node.hub.enter(NAME).view()
        assert view is None, "what was read of the former life is nothing that is known of this one"


def test_a_window_that_moves_on_before_a_subscriber_is_let_in_has_it_read_again() -> None:
    with late_feed(kept=1000, window=4) as feed:
        feed.do("ppppdddd")
        want = Cursor(NAME, NAME, 1)
        assert feed.node.plan_at_once(request_for(want)), "nothing is read for it"
        paper = feed.subscribe(want, "ppppdddd")
        assert paper.ids == [2, 3, 4, 5, 6, 7, 8]
        feed.do("pd")
        assert paper.ids == [2, 3, 4, 5, 6, 7, 8, 9]


@pytest.mark.parametrize("outage", [BackendUnavailable("away"), ValueError("a mistake"), gevent.Timeout(1)])
def test_a_subscriber_is_sent_back_where_it_cannot_be_read_again(outage: BaseException) -> None:
    def fail() -> SubscriptionPlan:
        raise outage

    with late_feed(kept=1000, window=4) as feed:
        feed.do("ppppdddd")
        plan = feed.plan(Cursor(NAME, NAME, 1))
        feed.do("ppppdddd")
        paper = feed.open(plan, fail)
        assert paper.finished
        assert not feed.node.hub.subscribers


def test_a_subscriber_is_sent_back_where_the_window_moves_on_each_time() -> None:
    with late_feed(kept=1000, window=4) as feed:
        feed.do("ppppdddd")
        plan = feed.plan(Cursor(NAME, NAME, 1))
        feed.do("ppppdddd")
        plans: list[None] = []

        def plan_the_same() -> SubscriptionPlan:
            plans.append(None)
            return plan

        assert feed.open(plan, plan_the_same).finished
        assert 1 < len(plans) < 10


@pytest.mark.parametrize(("known", "unasked", "told"), [("old", False, True), (None, False, False), (None, True, True)])
def test_a_client_is_told_the_epoch_that_it_does_not_know(known: str | None, unasked: bool, told: bool) -> None:
    request = SubscribeRequest(Identity("c"), None, SubscribeParams({}, known))
    assert request.lacks_epoch("new", unasked) is told
    assert not request.lacks_epoch(None, unasked), "there is none"
    assert request.lacks_epoch("old", unasked) is unasked


def test_who_is_sent_away_while_waiting_for_the_feed_is_let_in_nowhere() -> None:
    with late_feed(kept=8, window=8) as feed:
        hub = feed.node.hub
        subscriber = Subscriber(hub, Plain(), Identity("c"), b"", None)
        subscriber.outlet = Paper()
        called: list[Subscriber] = []
        assert hub.add(subscriber)
        hub.when_reached(2, subscriber, lambda waiting: waiting.end(FEED_LOST))
        hub.when_reached(1, subscriber, called.append)
        subscriber.on_deadline()
        assert called == []


def test_who_is_ahead_of_this_process_is_never_told_without_the_store() -> None:
    with late_feed(kept=8, window=8) as feed:
        feed.do("pd")
        feed.subscribe(Cursor(NAME, NAME, 0), "")
        feed.node.store.shared = True
        assert feed.node.plan_at_once(request_for(Cursor(NAME, NAME, after=1)))
        assert not feed.node.plan_at_once(request_for(Cursor(NAME, NAME, after=2)))
        feed.node.hub.epoch = None
        assert not feed.node.plan_at_once(request_for(Cursor(NAME, NAME, after=1)))


def test_what_is_read_of_a_channel_while_it_is_appended_to_is_whole() -> None:
    channel = ChannelWindow(NAME, 0)
    channel.append([Message(1, 1, NAME, b"1")], 8, 1000)
    views: list[HistoryView | None] = []

    class Appended(list[Message]):
        def __iter__(self) -> Iterator[Message]:
            views.append(channel.view())  # as another thread might, in the middle
            return super().__iter__()

    channel.append(Appended([Message(2, 2, NAME, b"2")]), 8, 1000)
    assert views
    assert all(view is not None and view.last_id == view.messages[-1].message_id for view in views)


def test_a_store_that_does_not_answer_keeps_nobody_waiting_behind_all_the_others() -> None:
    hub = Hub(Options(store_timeout=0.1), Reactor(), 10, Access(), lambda error, where: None)
    hub.start(StoreState(0, "epoch"))
    waits: list[float] = []

    def hang(*arguments: Any) -> Any:
        time.sleep(0.1)
        raise BackendUnavailable("no answer")

    def read() -> None:
        began = time.monotonic()
        with contextlib.suppress(BackendUnavailable):
            hub.read(Cursor(NAME, NAME, 0), hang, hang)
        waits.append(time.monotonic() - began)

    threads = [threading.Thread(target=read) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    hub.reactor.abandon()
    assert max(waits) < 0.5  # 1.0 where each of them waits for all before it


def test_a_batch_has_gaps_first_then_messages_by_global_id_then_the_status() -> None:
    due = CatchUp([Message(9, 1, "/a", b"1"), Message(4, 2, "/b", b"2")], {"/a": (None, 1)}, {"/b": 2})
    batch = due.batch("epoch", False)
    assert [message.channel for message in batch] == ["/__gap", "/b", "/a", "/__status"]
    assert json.loads(batch[-1].raw) == {"/b": 2, "__epoch": "epoch"}
    assert json.loads(batch[0].raw) == {"/a": {"after": None, "before": 1}}


def test_the_epoch_is_said_by_itself_where_it_has_to_be() -> None:
    assert CatchUp().batch("epoch", False) == []
    [status] = CatchUp().batch("epoch", True)
    assert json.loads(status.raw) == {"__epoch": "epoch"}
