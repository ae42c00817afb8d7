"""Catching up: whatever the store keeps, wherever a subscriber stands and however far behind the feed is, what it is
due and what it then gets live are together exactly what it misses."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple

import gevent
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from messagebus.errors import RESYNC, BackendUnavailable
from messagebus.hub.catch_up import CatchUp
from messagebus.hub.history import Cursor, HistoryView, covers, query_for, view_of_page
from messagebus.hub.subscribe_request import SubscribeParams, SubscribeRequest, SubscriptionPlan
from messagebus.hub.subscriber import Identity, Subscriber
from messagebus.message import Message
from messagebus.stores import BacklogPage, StoreState

from .late_feed import NAME, LateFeed, Plain, RecordingClient, late_feed
from .planning import request_for

actions = st.text(alphabet="ppoddt", max_size=14)
sizes = st.sampled_from([1, 2, 3, 8, 1000])


class Story(NamedTuple):
    """What happens, in the actions of :meth:`LateFeed.do`: before a subscriber's backlog is read, between that and its
    joining, and afterwards."""

    before: str
    between: str
    after: str
    kept: int
    """Messages that the store keeps."""
    window: int
    """And the process."""

    def tell(self, feed: LateFeed, want: Cursor) -> RecordingClient:
        """From ``between`` on; what the subscriber got."""
        client = feed.subscribe(want, self.between)
        feed.do(self.after)
        feed.finish(client)
        return client


stories = st.builds(Story, before=actions, between=actions, after=actions, kept=sizes, window=sizes)


def last_that_came(feed: LateFeed, client: RecordingClient, position: int, is_known: bool) -> int:
    """The last message id that a client got; each after ``position`` came once and in order, or is in a gap that begins
    where the client stands. ``is_known``: whether the client has said its position, and not only a global id."""
    reached = least = position
    for message in [message for batch in client.batches for message in batch]:
        if message["channel"] == "/__gap":
            gap = message["data"][NAME]
            assert gap["after"] == (reached if is_known else None)
            # Of what is gone only the ids are known, and so not always whether a global id is of before or after it.
            assert reached + is_known < gap["before"] <= feed.node.store.backlog(NAME).first_id
            reached = gap["before"] - 1
        elif message["channel"] == NAME:
            # What the store has dropped before the feed brought it may still come with the feed.
            assert least < message["message_id"] <= reached + 1
            reached = least = message["message_id"]
        is_known = True
    return reached


@settings(max_examples=250, deadline=None)
@given(story=stories, data=st.data())
def test_from_a_position_everything_after_it_arrives_once_or_is_said_to_be_gone(
    story: Story, data: st.DataObject
) -> None:
    with late_feed(story.kept, story.window) as feed:
        feed.do(story.before)
        position = data.draw(st.integers(0, len(feed.global_ids)))
        client = story.tell(feed, Cursor(NAME, NAME, position))
        assert last_that_came(feed, client, position, True) == len(feed.global_ids)


@settings(max_examples=250, deadline=None)
@given(story=stories, data=st.data())
def test_from_minus_k_the_last_messages_arrive_once_and_then_the_new_ones(story: Story, data: st.DataObject) -> None:
    with late_feed(story.kept, story.window) as feed:
        feed.do(story.before)
        known = len(feed.global_ids)
        position = data.draw(st.integers(-8, -1))
        client = story.tell(feed, Cursor(NAME, NAME, position))
        total = len(feed.global_ids)
        assert client.ids == list(range(total - len(client.ids) + 1, total + 1))
        if position == -1:
            [status] = client.told("/__status")
            # At least what comes after; more where the store has dropped what the feed had not brought yet.
            assert len(client.ids) >= total - status[NAME]
        elif "p" not in story.between:
            assert len(client.ids) >= min(-position - 1, story.kept, known)


@settings(max_examples=250, deadline=None)
@given(story=stories, data=st.data())
def test_from_a_global_id_everything_after_it_arrives_once_or_is_said_to_be_gone(
    story: Story, data: st.DataObject
) -> None:
    with late_feed(story.kept, story.window) as feed:
        feed.do(story.before)
        since = data.draw(st.integers(0, feed.node.store.state().global_id))
        client = story.tell(feed, Cursor(NAME, NAME, -1, after=since))
        seen = sum(global_id <= since for global_id in feed.global_ids)
        assert last_that_came(feed, client, seen, False) == len(feed.global_ids)


def page(
    first_id: int, last_id: int, after: int = 0, global_id: Callable[[int], int] = lambda n: 10 * n
) -> HistoryView:
    """What is read after a position of a channel that keeps the messages from ``first_id`` on."""
    messages = [Message(global_id(n), n, NAME, b"1") for n in range(max(first_id, after + 1), last_id + 1)]
    return view_of_page(BacklogPage(messages, after, last_id, last_id, first_id), 0.0)


def caught_up(view: HistoryView, want: Cursor) -> tuple[list[int], dict[str, Any], dict[str, Any]]:
    """The ids of the messages that are due, the gaps and the status."""
    catch_up = CatchUp(Identity("c"))
    catch_up.add(want, view)
    piece = catch_up.take(lambda name, position: view, lambda message: True, 1 << 20, None)
    assert piece.done
    notices: dict[str, dict[str, Any]] = {m.channel: m.data for m in piece.batch if m.message_id < 0}
    ids = [message.message_id for message in piece.batch if message.message_id > 0]
    return ids, notices.get("/__gap", {}), notices.get("/__status", {})


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
    query = query_for(want)
    after = query.after if query.after >= 0 else max(last_id + query.after, 0)
    first_id = last_id - kept + 1
    if strict and position > last_id:
        after = 0  # read again, for that shows only then
    view = page(first_id, last_id, after)
    ids, gaps, status = caught_up(view, want)
    whole = list(range(first_id, last_id + 1))
    if stale or (strict and position > last_id):
        assert ids == whole
        assert gaps == {NAME: {"after": None, "before": first_id}}
    elif position > last_id:
        assert ids == []
        assert status == {NAME: last_id}
    elif position >= 0:
        assert ids == [number for number in whole if number > position]
        assert gaps == ({NAME: {"after": position, "before": first_id}} if position < first_id - 1 else {})
    else:
        assert ids == whole[max(0, len(whole) - (-position - 1)) :]
        assert not gaps
    if position <= last_id:
        assert covers(view, want)


def test_a_position_that_the_backlog_has_lost_is_no_gap_where_a_later_global_id_is_known() -> None:
    """An EventSource that reconnects gives both: the position of its page, and its Last-Event-ID."""
    view, want = page(51, 60, global_id=lambda n: 50 + n), Cursor(NAME, NAME, 12, after=105)
    assert covers(view, want)
    assert caught_up(view, want) == ([56, 57, 58, 59, 60], {}, {})
    ids, gaps, _ = caught_up(view, want._replace(after=90))
    assert ids == list(range(51, 61))
    assert gaps == {NAME: {"after": 12, "before": 51}}


def test_nothing_that_is_kept_is_no_gap_to_who_has_a_global_id() -> None:
    with late_feed(kept=1, window=8) as feed:
        feed.do("pod")
        feed.node.store.expire_all_backlogs()
        feed.dispatch(1)
        client = feed.subscribe(Cursor(NAME, NAME, after=1), "")
        assert client.told("/__gap") == []
        assert [status[NAME] for status in client.told("/__status")] == [1]


def test_what_the_store_had_dropped_when_it_was_read_and_the_feed_brings_afterwards_is_said_to_be_gone() -> None:
    with late_feed(kept=1, window=1) as feed:
        feed.do("oopp")
        client = feed.subscribe(Cursor(NAME, NAME, after=1), "")
        feed.finish(client)
        assert client.told("/__gap") == [{NAME: {"after": None, "before": 2}}]
        assert client.ids == [2]


def test_who_is_beyond_the_backlog_is_served_from_memory_where_that_is_all_that_is_kept() -> None:
    with late_feed(kept=5, window=8) as feed:
        feed.do("pppppppppp" + "d" * 10)
        feed.subscribe(Cursor(NAME, NAME, 0), "")
        for position in (0, 1, 3):
            assert feed.node.hub.windows.knows(Cursor(NAME, NAME, position))
            client = feed.subscribe(Cursor(NAME, NAME, position), "")
            assert client.told("/__gap") == [{NAME: {"after": position, "before": 6}}] if position == 0 else True
            assert client.ids[-5:] == [6, 7, 8, 9, 10]


def test_what_was_forgotten_since_it_was_read_has_a_subscriber_come_back() -> None:
    with late_feed(kept=8, window=8) as feed:
        feed.do("ppdd")
        plan = feed.plan(Cursor(NAME, NAME, 0))
        feed.node.hub.resync(StoreState(0, "another life"))
        assert feed.open(plan, lambda: plan).finished
        window = feed.node.hub.windows.enter(NAME)
        assert window.state is None, "what was read of the former life is nothing that is known of this one"


def test_a_window_that_moves_on_before_a_subscriber_is_let_in_has_it_read_again() -> None:
    with late_feed(kept=1000, window=4) as feed:
        feed.do("ppppdddd")
        want = Cursor(NAME, NAME, 1)
        assert feed.node.plan_at_once(request_for(want)), "nothing is read for it"
        client = feed.subscribe(want, "ppppdddd")
        assert client.ids == [2, 3, 4, 5, 6, 7, 8]
        feed.do("pd")
        assert client.ids == [2, 3, 4, 5, 6, 7, 8, 9]


@pytest.mark.parametrize("outage", [BackendUnavailable("away"), ValueError("a mistake"), gevent.Timeout(1)])
def test_a_subscriber_is_sent_back_where_it_cannot_be_read_again(outage: BaseException) -> None:
    def fail() -> SubscriptionPlan:
        raise outage

    with late_feed(kept=1000, window=4) as feed:
        feed.do("ppppdddd")
        feed.subscribe(Cursor(NAME, NAME, 0), "")
        plan = feed.plan(Cursor(NAME, NAME, 1))
        assert not plan.pages, "it is in the window"
        feed.do("ppppdddd")
        client = feed.open(plan, fail)
        assert client.finished
        assert len(feed.node.hub.membership) == 1  # the other one


def test_a_subscriber_is_sent_back_where_the_window_moves_on_each_time() -> None:
    with late_feed(kept=1000, window=4) as feed:
        feed.do("ppppdddd")
        feed.subscribe(Cursor(NAME, NAME, 0), "")
        plan = feed.plan(Cursor(NAME, NAME, 1))
        assert not plan.pages, "it is in the window"
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
        subscriber.writer = RecordingClient()
        called: list[Subscriber] = []
        assert hub.add(subscriber)
        hub.feed_wait.when_over([2], subscriber, lambda waiting: waiting.end(RESYNC))
        hub.feed_wait.when_over([1], subscriber, called.append)
        subscriber.on_deadline()
        assert called == []


def test_who_is_ahead_of_this_process_is_never_told_without_the_store() -> None:
    with late_feed(kept=8, window=8) as feed:
        feed.do("pd")
        feed.subscribe(Cursor(NAME, NAME, 0), "")
        feed.node.store.shared = True
        assert feed.node.plan_at_once(request_for(Cursor(NAME, NAME, after=1)))
        assert not feed.node.plan_at_once(request_for(Cursor(NAME, NAME, after=2)))
        feed.node.hub.epochs[0] = None
        assert not feed.node.plan_at_once(request_for(Cursor(NAME, NAME, after=1)))


def test_a_batch_has_gaps_first_then_messages_by_global_id_then_the_status() -> None:
    views = {
        "/a": page(3, 4, global_id=lambda n: 3 * n),
        "/b": page(1, 5, global_id=lambda n: 2 * n + 1),
    }
    catch_up = CatchUp(Identity("c"))
    catch_up.add(Cursor("/a", "/a", 1), views["/a"])
    catch_up.add(Cursor("/b", "/b", after=3), views["/b"])
    piece = catch_up.take(lambda name, _: views[name], lambda message: True, 1 << 20, "epoch")
    assert [m.channel for m in piece.batch[:1]] == ["/__gap"]
    assert [m.global_id for m in piece.batch[1:-1]] == [5, 7, 9, 9, 11, 12]
    assert piece.batch[-1].data == {"/b": 5, "__epoch": "epoch"}
    assert piece.batch[0].data == {"/a": {"after": 1, "before": 3}}


def test_the_epoch_is_said_by_itself_where_it_has_to_be() -> None:
    catch_up = CatchUp(Identity("c"))
    assert catch_up.take(lambda *_: None, lambda _: True, 1, "epoch").batch == []
    catch_up.say_epoch = True
    [status] = catch_up.take(lambda *_: None, lambda _: True, 1, "epoch").batch
    assert json.loads(status.raw) == {"__epoch": "epoch"}
