"""What connected clients may have is asked again: when, of whom, and what comes of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from messagebus.hub.rechecks import AT_ONCE, Rechecks
from messagebus.hub.subscribe_request import ChannelRefusal, SubscribeParams, SubscribeRequest, Verdict
from messagebus.hub.subscriber import Identity, Subscriber
from messagebus.message import id_key
from messagebus.transports import LONG_POLLING_WSGI, STREAMING_WSGI, WEBSOCKET, Transport
from messagebus.wire import Position

from .test_dispatch import Finished, batches
from .test_dispatch import World as HubWorld

FORBIDDEN = ChannelRefusal("forbidden", "no more")
INTERVAL = 60.0


class World(HubWorld):
    """Clients that have joined, and whoever is asked about them, who answers when the test says so."""

    def __init__(self, interval: float = 0) -> None:
        super().__init__(recheck_interval=interval, long_polling_interval=3600)
        self.jobs: list[Callable[[], object]] = []
        self.rechecks = Rechecks(self.hub, self.jobs.append)
        self.asked: list[SubscribeRequest] = []
        self.verdict: Verdict | None = Verdict({}, {})

    def ask(self, request: SubscribeRequest) -> Verdict:
        self.asked.append(request)
        if self.verdict is None:
            raise RuntimeError("no answer at all")
        return self.verdict

    def join(self, *channels: str, transport: Transport = STREAMING_WSGI, **until: float) -> Finished:
        """``until``: channels without their slash, and the seconds that they are granted for."""
        identity = Identity("c", id_key(5))
        subscriber = Subscriber(self.hub, transport, identity, b"", None, "", None, True)
        writer = subscriber.writer = Finished()
        writer.owner = subscriber
        self.hub.add(subscriber)
        self.hub.membership.join(subscriber, [self.hub.windows.enter(name).name for name in channels])
        self.hub.hold_open(subscriber)
        self.show(writer, *channels, grants=("token",), **until)
        return writer

    def show(self, writer: Finished, *channels: str, grants: tuple[str, ...] = ("token",), **until: float) -> None:
        """A client subscribes, with these grants."""
        subscriber = writer.owner
        assert subscriber is not None
        params = SubscribeParams(dict.fromkeys(channels, Position(-1)), grants=grants)
        ends = {f"/{channel}": time.time() + seconds for channel, seconds in until.items()}
        request = SubscribeRequest(subscriber.identity, None, params, until=ends, ask=self.ask)
        self.rechecks.begin(subscriber, request)

    def answer(self, seconds: float = 1.0) -> None:
        """Let time pass, and whoever is asked answer."""
        self.turn(seconds)
        jobs, self.jobs[:] = self.jobs[:], []
        for job in jobs:
            job()
        self.turn()


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    world.reactor.abandon()


@pytest.fixture
def regular() -> Iterator[World]:
    """One that asks again from time to time."""
    world = World(INTERVAL)
    yield world
    world.reactor.abandon()


def refused(writer: Finished) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for batch in batches(writer):
        for message in batch:
            if message["channel"] == "/__refused":
                found |= message["data"]
    return found


def followed(writer: Finished) -> set[str]:
    assert writer.owner is not None
    return writer.owner.followed


def test_a_channel_ends_with_its_grant_and_no_other_is_asked_about(world: World) -> None:
    writer = world.join("/a", "/b", "/c", a=-1, b=3600)
    world.verdict = Verdict({"/a": FORBIDDEN}, {})
    world.answer()
    assert [{*request.params.positions} for request in world.asked] == [{"/a"}]
    assert world.asked[0].params.grants == ("token",)
    expired = {"code": "forbidden", "message": "/a: its grant has expired", "retry": True, "retry_after": 1}
    assert refused(writer) == {"/a": expired}
    assert followed(writer) == {"/b", "/c"}


def test_where_there_is_no_thread_to_ask_in_a_client_keeps_what_no_grant_had_allowed(regular: World) -> None:
    def refuse(call: Callable[[], object]) -> None:
        raise RuntimeError("can't start new thread")

    start = regular.jobs.append
    writers = [regular.join("/a", "/b", a=-1) for _ in range(2 * AT_ONCE)]
    regular.rechecks._start = refuse
    for _ in range(3):
        regular.answer()
    assert [followed(writer) for writer in writers] == [{"/b"}] * (2 * AT_ONCE)
    regular.rechecks._start = start
    for writer in writers:
        regular.show(writer, "/b", b=-1)
    for _ in range(3):
        regular.answer()
    assert len(regular.asked) == 2 * AT_ONCE, "nobody counts as being asked"


def test_a_channel_that_a_hook_allows_outlives_its_grant(world: World) -> None:
    writer = world.join("/a", a=-1)
    for _ in range(3):
        world.answer()
    assert len(world.asked) == 1
    assert followed(writer) == {"/a"}


@pytest.mark.parametrize("later", [3600, -1])
def test_another_grant_that_lasts_longer_is_asked_for_when_it_ends(world: World, later: float) -> None:
    writer = world.join("/a", a=-1)
    world.verdict = Verdict({}, {"/a": time.time() + later})
    world.answer()
    world.verdict = Verdict({"/a": FORBIDDEN}, {})
    world.answer()
    assert followed(writer) == ({"/a"} if later > 0 else set())


def test_a_grant_that_was_shown_in_time_takes_the_place_of_the_old_one(world: World) -> None:
    writer = world.join("/a", a=-1)
    world.show(writer, "/a", grants=("newer",), a=3600)
    world.answer()
    assert world.asked == []
    world.show(writer, "/a", grants=(), a=-1)
    world.answer()
    assert world.asked[0].params.grants == ("newer", "token")


@pytest.mark.parametrize("transport", [STREAMING_WSGI, LONG_POLLING_WSGI], ids=lambda transport: transport.name)
def test_a_held_poll_is_answered_with_it(world: World, transport: Transport) -> None:
    writer = world.join("/a", "/b", transport=transport, a=-1)
    world.verdict = Verdict({"/a": FORBIDDEN}, {})
    world.answer()
    assert {*refused(writer)} == {"/a"}
    assert writer.finished is (transport is LONG_POLLING_WSGI)


def test_everything_is_asked_again_within_the_interval_and_not_before_half_of_it(regular: World) -> None:
    writer = regular.join("/a", "/b")
    regular.answer(INTERVAL / 2 - 1)
    assert regular.asked == []
    regular.verdict = Verdict({"/a": FORBIDDEN}, {})
    regular.answer(INTERVAL / 2 + 2)
    assert {*regular.asked[0].params.positions} == {"/a", "/b"}
    assert refused(writer) == {"/a": FORBIDDEN.to_json()}
    regular.answer(INTERVAL + 1)
    assert {*regular.asked[1].params.positions} == {"/b"}


@pytest.mark.parametrize(
    "verdict", [None, Verdict({"/a": ChannelRefusal("internal", "LookupError", True)}, {})], ids=["none", "a failure"]
)
def test_without_an_answer_a_client_keeps_what_it_has_but_not_what_has_ended(
    regular: World, verdict: Verdict | None
) -> None:
    writer = regular.join("/a")
    regular.verdict = verdict
    regular.answer(INTERVAL + 1)
    assert len(regular.asked) == 1
    assert followed(writer) == {"/a"}
    regular.show(writer, "/a", a=-1)
    regular.answer()
    assert followed(writer) == set()


def test_who_is_somebody_else_by_now_has_to_come_back(regular: World) -> None:
    writer = regular.join("/a", transport=WEBSOCKET)
    regular.verdict = Verdict({}, {}, False)
    regular.answer(INTERVAL + 1)
    assert writer.finished
    assert (4000).to_bytes(2, "big") in writer.sent[-1]


def test_what_a_client_has_shown_meanwhile_is_not_taken_away(regular: World) -> None:
    writer = regular.join("/a")
    regular.turn(INTERVAL + 1)
    regular.show(writer, "/a", grants=("newer",), a=3600)
    regular.verdict = Verdict({"/a": FORBIDDEN}, {})
    regular.answer(0)
    assert followed(writer) == {"/a"}
    regular.verdict = Verdict({}, {"/a": time.time() + 3600})
    regular.answer()
    assert regular.asked[1].params.grants == ("newer", "token")


def test_of_a_crowd_a_few_are_asked_about_at_a_time_and_nobody_who_has_gone(world: World) -> None:
    writers = [world.join("/a", a=-1) for _ in range(3 * AT_ONCE)]
    world.turn(1)
    assert len(world.jobs) == AT_ONCE
    for writer in writers:
        assert writer.owner is not None
        writer.owner.on_closed()
    world.answer()
    assert len(world.asked) == AT_ONCE
    assert world.jobs == []


def test_a_client_that_has_gone_leaves_no_deadline_behind(world: World) -> None:
    writer = world.join("/a", a=3600)
    assert writer.owner is not None
    standing = writer.owner.standing
    assert standing is not None
    assert standing.tick
    writer.owner.on_closed()
    assert not standing.tick
