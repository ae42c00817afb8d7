"""Connections and subscriptions that the application ends."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest

from messagebus import Bus, InvalidChannel, InvalidOption, InvalidSite, InvalidTargets
from messagebus.hub.history import view_of_page
from messagebus.hub.joining import join_when_ready
from messagebus.hub.orders import MAX_REMEMBERED, MAX_TARGETS, REMEMBERED_SECONDS, Order, tellings, unsubscribe_order
from messagebus.hub.revoking import Revoking
from messagebus.hub.subscribe_request import SubscribeParams, SubscribeRequest, SubscriptionPlan
from messagebus.hub.subscriber import Identity, Subscriber
from messagebus.message import id_key
from messagebus.stores import BacklogPage
from messagebus.stores.parts import Joining
from messagebus.transports import LONG_POLLING_WSGI, STREAMING_WSGI, WEBSOCKET, Transport
from messagebus.wire import Position

from .planning import StubPlanner
from .test_dispatch import Finished, World, batches


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    world.reactor.abandon()


def follow(
    world: World,
    *names: str,
    user: Any = 5,
    client: str = "c",
    site: str | None = None,
    transport: Transport = STREAMING_WSGI,
    takes_refusals: bool = True,
) -> Finished:
    identity = Identity(client, id_key(user))
    subscriber = Subscriber(world.hub, transport, identity, b"", None, "", site, takes_refusals)
    writer = subscriber.writer = Finished()
    writer.owner = subscriber
    world.hub.add(subscriber)
    world.hub.membership.join(subscriber, [world.hub.windows.enter(name).name for name in names])
    world.hub.hold_open(subscriber)
    return writer


def disconnect(world: World, **given: Any) -> None:
    Revoking(world.hub).disconnect(Order.of(**given).to_json())


def unsubscribe(world: World, channel: str, **given: Any) -> None:
    Revoking(world.hub).unsubscribe(unsubscribe_order(channel, **given).to_json())


def said(writer: Finished, channel: str) -> list[dict[str, Any]]:
    return [message["data"] for batch in batches(writer) for message in batch if message["channel"] == channel]


def refused(writer: Finished) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for data in said(writer, "/__refused"):
        found |= data
    return found


def test_the_connections_of_a_user_end_and_no_others(world: World) -> None:
    tabs = [follow(world, "/a", client=f"tab-{number}") for number in range(3)]
    others = [follow(world, "/a", user="5", client="text"), follow(world, "/a", user=6, client="six")]
    disconnect(world, user_ids=[5])
    assert [tab.finished for tab in tabs] == [True] * 3
    assert [other.finished for other in others] == [False] * 2


def test_users_and_clients_may_be_named_together_and_each_is_met_once(world: World) -> None:
    ann, bob, eve = (follow(world, "/a", user=user, client=user) for user in ("ann", "bob", "eve"))
    disconnect(world, user_ids=["ann"], client_ids=["ann", "bob"])
    assert (ann.finished, bob.finished, eve.finished) == (True, True, False)
    assert len(said(ann, "/__refused")) == 1


def test_who_is_not_to_come_back_is_refused_every_channel(world: World) -> None:
    writer = follow(world, "/a", "/b")
    disconnect(world, user_ids=[5], reason="logged out")
    refusal = {"code": "disconnected", "message": "logged out", "retry": False}
    assert refused(writer) == {"/a": refusal, "/b": refusal}


def test_who_is_to_come_back_is_told_when_and_refused_nothing(world: World) -> None:
    writer = follow(world, "/a")
    disconnect(world, user_ids=[5], reconnect=True)
    [status] = said(writer, "/__status")
    assert "__reconnect" in status
    assert refused(writer) == {}
    assert writer.finished


def test_a_client_that_knows_no_refusals_is_told_none(world: World) -> None:
    gone = follow(world, "/a", takes_refusals=False)
    disconnect(world, user_ids=[5])
    assert gone.finished
    writer = follow(world, "/a", takes_refusals=False)
    unsubscribe(world, "/a", user_ids=[5])
    assert refused(gone) == refused(writer) == {}
    assert not writer.finished


@pytest.mark.parametrize(("reconnect", "code"), [(False, 4403), (True, 4000)])
def test_a_websocket_is_closed_with_the_reason(world: World, reconnect: bool, code: int) -> None:
    writer = follow(world, "/a", transport=WEBSOCKET)
    disconnect(world, client_ids=["c"], reason="ende ü", reconnect=reconnect)
    assert b"".join(writer.sent).endswith(code.to_bytes(2, "big") + "ende ü".encode())


def test_only_clients_of_the_site_are_met(world: World) -> None:
    none, one, other = (follow(world, "/a", client=f"{site}", site=site) for site in (None, "one", "other"))
    disconnect(world, user_ids=[5])
    assert (none.finished, one.finished, other.finished) == (True, False, False)
    disconnect(world, user_ids=[5], site_id="one")
    assert (one.finished, other.finished) == (True, False)
    disconnect(world, user_ids=[5], site_id="*")
    assert other.finished


def test_one_channel_ends_and_the_others_of_the_connection_go_on(world: World) -> None:
    writer, other = follow(world, "/a", "/b"), follow(world, "/a", user=6, client="d")
    unsubscribe(world, "/a", user_ids=[5], reason="the room is closed")
    assert refused(writer) == {"/a": {"code": "unsubscribed", "message": "the room is closed", "retry": False}}
    assert not writer.finished
    world.publish("/a")
    world.publish("/b")
    assert [len(said(each, name)) for each, name in ((writer, "/a"), (writer, "/b"), (other, "/a"))] == [0, 1, 1]


def test_a_held_poll_is_answered_with_the_refusal(world: World) -> None:
    writer = follow(world, "/a", "/b", transport=LONG_POLLING_WSGI)
    unsubscribe(world, "/a", user_ids=[5])
    assert {*refused(writer)} == {"/a"}
    assert writer.finished


def test_a_prefix_ends_all_that_begin_so(world: World) -> None:
    writer = follow(world, "/rooms/1", "/rooms/2", "/other")
    unsubscribe(world, "/rooms/*", user_ids=[5])
    assert {*refused(writer)} == {"/rooms/1", "/rooms/2"}


def test_who_follows_other_channels_is_told_nothing(world: World) -> None:
    writer = follow(world, "/a")
    unsubscribe(world, "/b", user_ids=[5])
    assert writer.sent == []


class Late:
    """A client whose request was allowed at 100 s, and that joins when it is told to."""

    def __init__(self, world: World, *channels: str, **request: Any) -> None:
        self.world = world
        identity, takes_refusals = Identity("c", id_key(5)), request.get("takes_refusals", True)
        params = SubscribeParams(dict.fromkeys(channels, Position(-1)), takes_refusals=takes_refusals)
        asked = SubscribeRequest(identity, None, params, began=request.get("began", 100.0))
        cursors = asked.cursors(world.hub.epochs)
        for cursor in cursors:
            world.hub.windows.enter(cursor.name)
        empty = view_of_page(BacklogPage([], 0, 0, 0, 1), world.now)
        self.plan = SubscriptionPlan(asked, cursors, {cursor.name: empty for cursor in cursors}, [])
        self.subscriber = Subscriber(world.hub, STREAMING_WSGI, identity, b"", None, "", None, takes_refusals)
        self.writer = self.subscriber.writer = Finished()

    def join(self) -> Late:
        join_when_ready(StubPlanner(self.world.hub, lambda: self.plan), self.subscriber, self.plan)
        return self


def test_who_was_allowed_before_an_order_and_joins_after_it_does_not_get_the_channel(world: World) -> None:
    joining = Late(world, "/a", "/b")
    world.now += 1
    unsubscribe(world, "/a", user_ids=[5], reason="left the room")
    joining.join()
    assert joining.subscriber.followed == {"/b"}
    assert refused(joining.writer) == {"/a": {"code": "unsubscribed", "message": "left the room", "retry": False}}


def test_who_was_allowed_before_a_disconnect_and_joins_after_it_is_refused_all(world: World) -> None:
    joining = Late(world, "/a", "/b")
    world.now += 1
    disconnect(world, client_ids=["c"], reason="logged out")
    joining.join()
    refusal = {"code": "disconnected", "message": "logged out", "retry": False}
    assert refused(joining.writer) == {"/a": refusal, "/b": refusal}
    assert joining.writer.finished


def test_who_is_to_come_back_is_sent_back_once(world: World) -> None:
    joining = Late(world, "/a")
    world.now += 1
    disconnect(world, user_ids=[5], reconnect=True)
    assert joining.join().writer.finished
    world.now += 1
    assert not Late(world, "/a", began=world.now).join().writer.finished


@pytest.mark.parametrize("seconds", [-1.0, REMEMBERED_SECONDS + 1])
def test_an_order_is_remembered_for_a_few_seconds_and_meets_nobody_who_asked_later(
    world: World, seconds: float
) -> None:
    disconnect(world, user_ids=[5])
    joining = Late(world, "/a", began=world.now + (1 if seconds < 0 else 0))
    world.now += abs(seconds)
    world.hub.orders.forget()
    assert not joining.join().writer.finished
    assert bool(world.hub.orders) is (seconds < 0)


def test_a_client_that_knows_no_refusals_is_not_let_in_either(world: World) -> None:
    joining = Late(world, "/a", "/b", takes_refusals=False)
    unsubscribe(world, "/a", user_ids=[5])
    assert joining.join().subscriber.followed == {"/b"}
    assert refused(joining.writer) == {}


def test_a_client_between_two_polls_hears_an_order_once(world: World) -> None:
    orders, absent = world.hub.orders, Identity("absent", id_key(5))
    follow(world, "/a", client="present")
    disconnect(world, user_ids=[5], reason="logged out")
    assert orders.missed(Identity("present", id_key(5)), None) == []
    assert orders.missed(absent, "elsewhere") == []
    assert [order.reason for order in orders.missed(absent, None)] == ["logged out"]
    assert orders.missed(absent, None) == []


def test_orders_that_are_remembered_have_a_bound(world: World) -> None:
    for start in range(0, MAX_REMEMBERED + 1, MAX_TARGETS):
        disconnect(world, user_ids=range(start, start + MAX_TARGETS))
    assert world.hub.orders.missed(Identity("c", id_key(0)), None) == []
    assert world.hub.orders.missed(Identity("c", id_key(MAX_REMEMBERED)), None) != []


def test_an_order_that_cannot_be_read_changes_nothing(world: World) -> None:
    writer = follow(world, "/a")
    for told in (None, 5, {"user_ids": [5]}, {"user_ids": 5, "client_ids": [], "site_id": None, "reason": ""}):
        Revoking(world.hub).disconnect(told)
        Revoking(world.hub).unsubscribe(told)
    assert not writer.finished


@pytest.mark.parametrize(
    ("given", "error", "named"),
    [
        ({}, InvalidTargets, "user_ids or client_ids"),
        ({"user_ids": []}, InvalidTargets, "user_ids or client_ids"),
        ({"user_ids": "5"}, InvalidTargets, "user_ids"),
        ({"user_ids": [True]}, InvalidTargets, "user_ids"),
        ({"client_ids": ["a b"]}, InvalidTargets, "client_ids"),
        ({"user_ids": range(MAX_TARGETS + 1)}, InvalidTargets, "10000"),
        ({"user_ids": [5], "site_id": ""}, InvalidSite, "site"),
        ({"user_ids": [5], "reason": "a\nb"}, InvalidOption, "reason"),
        ({"user_ids": [5], "reason": "ü" * 62}, InvalidOption, "123"),
        ({"user_ids": [5], "reason": None}, InvalidOption, "reason"),
        ({"user_ids": [5], "reconnect": 1}, InvalidOption, "reconnect"),
    ],
)
def test_wrong_arguments_are_named(given: dict[str, Any], error: type[Exception], named: str) -> None:
    with contextlib.closing(Bus(url="memory://")) as bus, pytest.raises(error, match=named):
        bus.disconnect(**given)


def test_ends_of_callbacks_and_of_clients_are_kept_apart() -> None:
    with contextlib.closing(Bus(url="memory://")) as bus:

        @bus.subscribe("/a")
        def heard(message: object) -> None: ...

        bus.unsubscribe("/a", user_ids=[5])
        with pytest.raises(InvalidTargets):
            bus.unsubscribe("/a", user_ids=None)  # type: ignore[call-overload]
        with pytest.raises(TypeError, match="not both"):
            bus.unsubscribe("/a", heard, user_ids=[5])  # type: ignore[call-overload]
        with pytest.raises(InvalidChannel):
            bus.unsubscribe("a", user_ids=[5])
        assert bus.unsubscribe("/a", heard)


def test_as_many_ids_as_are_allowed_reach_the_workers_however_long_they_are() -> None:
    with contextlib.closing(Bus(url="memory://")) as bus:
        ids = [f"{number:0>128}" for number in range(MAX_TARGETS // 2)]
        users = ["ü" * 200 + each for each in ids]
        texts = tellings("disconnect", Order.of(users, ids, reason="enough"))
        joining = Joining()
        told = [order for order in map(joining.add, texts) if order is not None]
        assert len(told) > 1
        assert {order["value"]["reason"] for order in told} == {"enough"}
        assert sorted(each for order in told for each in order["value"]["client_ids"]) == ids
        assert sorted(each for order in told for each in order["value"]["user_ids"]) == sorted(users)
        bus.disconnect(client_ids=ids, user_ids=users)


def test_an_id_that_is_too_long_to_be_told_is_named_before_anybody_is_told() -> None:
    with contextlib.closing(Bus(url="memory://")) as bus, pytest.raises(InvalidTargets, match="'zzz"):
        bus.disconnect(user_ids=["fine", "z" * 2_000_000])
