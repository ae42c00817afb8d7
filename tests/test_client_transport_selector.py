"""Which transport a client uses, and when: falling to the next, coming back to the better one, waiting in between."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from messagebus.client.settings import Settings
from messagebus.client.transport_selector import Attempt, TransportSelector
from messagebus.client.types import ConnectionState, Failure, StateInfo

MINUTE = 60.0
BROKEN = Failure("broken")


class World:
    """A selector, a clock that only tests move, and dice that always fall the same."""

    def __init__(self, **settings: Any) -> None:
        self.now = 1000.0
        self.told: list[tuple[ConnectionState, StateInfo]] = []
        self.blocked: set[str] = set()
        self.selector = TransportSelector(
            Settings(**settings),
            notify=lambda state, info: self.told.append((state, info)),
            clock=lambda: self.now,
            wall_clock=lambda: 1_000_000_000.0,
            dice=lambda: 1.0,
        )
        self.selector.start()

    def next(self) -> Attempt:
        """The next attempt, when it is due."""
        self.now = max(self.now, self.selector.next_at)
        return self.selector.attempt()

    def fail(self, failure: Failure = BROKEN, *, after: float = 0.0) -> Attempt:
        """An attempt that does not open."""
        attempt = self.next()
        self.now += after
        self.selector.ended(attempt, failure)
        return attempt

    def answer(self, *, after: float = 0.0, carried: bool = False) -> Attempt:
        """An attempt that opens, and ends in order: a poll."""
        attempt = self.open(carried=carried)
        self.now += after
        self.selector.ended(attempt, None)
        return attempt

    def open(self, *, carried: bool = False) -> Attempt:
        """An attempt that opens, and stays so."""
        attempt = self.next()
        self.selector.opened(attempt)
        attempt.progress = carried
        return attempt

    def settle(self) -> Attempt:
        """Go on until a connection stays open: those of ``blocked`` transports fail, the server itself is there."""
        for _ in range(100):
            attempt = self.next()
            if attempt.transport in self.blocked and not attempt.probe and not attempt.greeting:
                self.selector.ended(attempt, BROKEN)
                continue
            self.selector.opened(attempt)
            if not attempt.plain:
                return attempt
            self.selector.ended(attempt, None)
            if attempt.transport == "polling" and not attempt.probe:
                return attempt
        raise AssertionError("nothing stays open")

    @property
    def delay(self) -> float:
        return self.selector.next_at - self.now


def names(attempts: Iterable[Attempt]) -> list[str]:
    return [f"{attempt.transport}?" if attempt.probe else attempt.transport for attempt in attempts]


# --- which ---


def test_the_first_of_the_list_is_preferred_and_opens_at_once() -> None:
    world = World()
    assert (world.settle().transport, world.now) == ("websocket", 1000.0)
    assert [state for state, _ in world.told] == ["connecting", "connected"]
    assert world.selector.transport == "websocket"


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_transports_that_fail_to_open_are_passed_over_one_after_the_other(count: int) -> None:
    transports = Settings().transports
    world = World()
    world.blocked = set(transports[:count])
    assert world.settle().transport == transports[count]
    assert world.selector.state == "connected"
    assert world.now < 1002.0


def test_after_a_failure_one_plain_poll_asks_whether_the_server_is_there() -> None:
    world = World()
    attempts = [world.fail(), world.answer(), world.fail(), world.answer(), world.open()]
    assert names(attempts) == ["websocket", "polling?", "eventsource", "polling?", "streaming"]


def test_where_the_server_is_gone_no_lesser_transport_is_used() -> None:
    world = World()
    attempts = [world.fail(), world.fail(), world.fail(), world.answer(), world.open()]
    assert names(attempts) == ["websocket", "polling?", "polling?", "polling?", "websocket"]


def _end(world: World, attempt: Attempt, *, after: float, failure: Failure | None = BROKEN) -> None:
    world.now += after
    world.selector.ended(attempt, None if attempt.probe else failure)


def test_a_transport_that_has_settled_is_left_after_three_failures_in_a_row() -> None:
    world = World()
    _end(world, world.open(), after=10.0)
    attempts = [attempt for _ in range(3) for attempt in (world.fail(), world.answer())] + [world.open()]
    assert names(attempts) == ["websocket", "polling?"] * 3 + ["eventsource"]


def test_a_connection_that_has_settled_comes_back_as_it_was() -> None:
    world = World()
    for _ in range(10):
        attempt = world.open()
        assert attempt.transport == "websocket"
        _end(world, attempt, after=10.0)
        assert world.delay == pytest.approx(0.5)
    assert world.selector.reconnects == 9


@pytest.mark.parametrize("carried", [True, False])
def test_connections_that_end_soon_after_they_have_opened_are_strikes_whatever_they_brought(carried: bool) -> None:
    world = World()
    seen: list[Attempt] = []
    while not seen or seen[-1].transport != "eventsource":
        seen.append(world.open(carried=carried))
        if seen[-1].transport != "eventsource":
            _end(world, seen[-1], after=0.3)
    assert names(seen) == ["websocket", "polling?"] * 3 + ["eventsource"]


def test_a_connection_that_brings_nothing_after_its_first_batch_is_a_strike_however_long_it_lasts() -> None:
    world = World()
    seen: list[Attempt] = []
    while not seen or seen[-1].transport != "eventsource":
        seen.append(world.open())
        seen[-1].batches = 1
        if seen[-1].transport != "eventsource":
            _end(world, seen[-1], after=0.0 if seen[-1].probe else 40.0, failure=Failure("silent", silence=True))
    assert names(seen) == ["websocket", "polling?"] * 3 + ["eventsource"]


def test_the_servers_word_that_it_ends_a_connection_is_no_strike() -> None:
    world = World()
    for _ in range(10):
        attempt = world.open()
        assert attempt.transport == "websocket"
        _end(world, attempt, after=1.0, failure=Failure("closed: 1001", by_server=True))


def test_a_slow_line_gets_more_time_and_no_strike() -> None:
    world = World()
    assert world.fail(after=3.0).timeout == 3.0
    world.answer(after=4.0)  # the probe shows how slow everything is
    again = world.next()
    assert (again.transport, again.timeout) == ("websocket", 8.0)


def test_a_connection_is_opened_again_at_the_time_that_the_server_named() -> None:
    world = World()
    attempt = world.open()
    attempt.reconnect = 0.75
    _end(world, attempt, after=1.0)
    assert world.delay == pytest.approx(0.75)
    assert world.next().transport == "websocket"
    attempt = world.open()
    attempt.reconnect = 1e9
    _end(world, attempt, after=1.0)
    assert world.delay == pytest.approx(60.0)


def test_the_first_of_held_polls_is_answered_at_once() -> None:
    world = World(transports=("long-polling", "polling"))
    greeting = world.answer()
    assert (greeting.transport, greeting.greeting, greeting.plain) == ("long-polling", True, True)
    assert world.delay == pytest.approx(0.1)
    held = world.next()
    assert (held.transport, held.plain) == ("long-polling", False)


def test_a_held_poll_that_never_gets_through_leaves_plain_polling() -> None:
    world = World(transports=("long-polling", "polling"))
    world.blocked = {"long-polling"}
    assert world.settle().transport == "polling"


def test_settings_rule_transports_out() -> None:
    assert World(enable_long_polling=False).selector.usable() == ["websocket", "eventsource", "polling"]
    assert "streaming" not in World(enable_chunked_encoding=False).selector.usable()
    assert World(transports=("streaming",), enable_chunked_encoding=False).selector.usable() == ["polling"]


def test_channels_that_fit_into_no_request_line_rule_eventsource_out() -> None:
    world = World(transports=("eventsource", "polling"))
    assert world.open().transport == "eventsource"
    world.selector.query_fits = False
    assert world.next().transport == "polling"


def test_where_all_are_blocked_the_probes_take_the_place_of_polling() -> None:
    world = World(transports=("websocket", "eventsource"))
    attempts = [world.fail(), world.answer(), world.fail(), world.answer()]
    assert names(attempts) == ["websocket", "polling?", "eventsource", "polling?"]
    assert world.delay == pytest.approx(15.0)
    assert world.next().transport == "websocket"


def test_what_worked_is_remembered_over_a_stop() -> None:
    world = World()
    world.blocked = {"websocket"}
    world.settle()
    world.selector.stop()
    assert (world.selector.state, world.selector.transport) == ("stopped", None)
    world.selector.start()
    assert world.next().transport == "eventsource"


# --- better ones ---


def test_better_transports_are_tried_again_after_five_minutes_then_less_and_less_often() -> None:
    world = World()
    world.blocked = {"websocket"}
    world.settle()
    tries = []
    for _ in range(6):
        better_at = world.selector.better_at
        assert better_at is not None
        tries.append(round((better_at - 1000.0) / MINUTE))
        world.now = better_at
        assert world.selector.better_attempt().transport == "websocket"
        world.selector.kept(BROKEN)
        assert (world.selector.state, world.selector.transport) == ("connected", "eventsource")
    assert tries == [5, 15, 35, 75, 135, 195]


def test_a_better_transport_takes_over_once_the_bus_has_spoken_on_it() -> None:
    world = World()
    world.blocked = {"websocket"}
    world.settle()
    world.now += 5 * MINUTE
    attempt = world.selector.better_attempt()
    used = [world.selector.transport]
    world.selector.took_over(attempt)
    used.append(world.selector.transport)
    assert used == ["eventsource", "websocket"], "the one in use goes on until the better one has spoken"
    assert world.selector.better_at is None


def test_streaming_is_tried_again_after_some_held_polls() -> None:
    world = World(transports=("streaming", "long-polling"), retry_chunked_after_requests=3)
    world.blocked = {"streaming"}
    attempt = world.settle()
    for _ in range(3):
        assert attempt.transport == "long-polling"
        world.now += 25.0
        world.selector.ended(attempt, None)
        attempt = world.next()
        world.selector.opened(attempt)
    assert attempt.transport == "streaming"


# --- when ---


def test_polls_that_bring_nothing_wait_for_the_interval_and_others_come_soon() -> None:
    world = World(transports=("polling",))
    world.answer(after=1.0)
    assert world.delay == pytest.approx(14.0)
    world.answer(carried=True)
    assert world.delay == pytest.approx(0.1)


def test_a_held_poll_is_followed_at_once_and_a_plain_one_after_the_interval() -> None:
    world = World(transports=("long-polling",))
    world.answer()
    world.answer(after=25.0)
    assert world.delay == pytest.approx(0.1)
    world.answer(after=0.5)  # a server that holds as many as it can
    assert world.delay == pytest.approx(14.5)


def test_delays_double_up_to_two_seconds_and_then_grow_with_the_time_that_the_server_is_away() -> None:
    world = World(transports=("polling",))
    delays = []
    for _ in range(40):
        world.fail()
        delays.append(world.delay)
    assert [round(delay, 3) for delay in delays[:5]] == [0.5, 1.0, 2.0, 2.0, 2.0]
    away = world.now - 1000.0
    assert delays[-1] == pytest.approx(away / 15)


def test_delays_never_pass_the_longest_and_begin_again_after_an_answer() -> None:
    world = World(transports=("polling",), max_poll_interval=1.5)
    delays = []
    for _ in range(4):
        world.fail()
        delays.append(round(world.delay, 3))
    assert delays == [0.5, 1.0, 1.5, 1.5]
    world.answer()
    world.fail()
    assert world.delay == pytest.approx(0.5)


def test_one_message_does_not_begin_the_delays_again() -> None:
    world = World(transports=("websocket",))
    delays = []
    for _ in range(3):
        _end(world, world.open(carried=True), after=1.0)
        delays.append(round(world.delay, 3))
    assert delays == [0.5, 1.0, 2.0]


def test_delays_are_spread_over_their_whole_length() -> None:
    for dice, delay in [(0.0, 0.0), (0.5, 0.25), (1.0, 0.5)]:
        selector = TransportSelector(Settings(transports=("polling",)), clock=lambda: 0.0, dice=lambda dice=dice: dice)  # type: ignore[misc]
        selector.start()
        selector.ended(selector.attempt(), BROKEN)
        assert selector.next_at == pytest.approx(delay)


def test_a_retry_that_is_asked_for_does_not_wait() -> None:
    world = World(transports=("polling",))
    world.fail(Failure("no", 403))
    world.selector.retry()
    assert world.delay == 0.0


def test_no_server_can_ask_for_more_than_an_hour() -> None:
    world = World(transports=("polling",))
    world.fail(Failure("503", 503, "2678400"))
    assert world.delay == pytest.approx(3600.0)
    world.fail(Failure("503", 503, "Fri, 31 Dec 9999 23:59:59 GMT"))
    assert world.delay == pytest.approx(3600.0)


@pytest.mark.parametrize("transport", ["websocket", "eventsource", "streaming", "long-polling", "polling"])
@pytest.mark.parametrize(("asked", "delay"), [("40", 40.0), ("2", 15.0), (None, 15.0), ("soon", 15.0)])
def test_too_many_requests_wait_as_long_as_the_server_says_and_fifteen_seconds_at_least(
    transport: str, asked: str | None, delay: float
) -> None:
    world = World(transports=(transport,))
    world.fail(Failure("429", 429, asked))
    assert world.delay == pytest.approx(delay)
    assert world.next().transport == transport


def test_an_unavailable_server_says_when_to_come_back_in_seconds_or_as_a_date() -> None:
    world = World(transports=("polling",))
    world.fail(Failure("503", 503, "30"))
    assert world.delay == pytest.approx(30.0)
    world.fail(Failure("503", 503, "Sun, 09 Sep 2001 01:47:40 GMT"))  # a minute later
    assert world.delay == pytest.approx(60.0)
    world.fail(Failure("503", 503, "Sun, 09 Sep 2001 01:00:00 GMT"))
    assert world.delay <= 2.0


def test_one_503_does_not_demote_a_transport_but_a_server_without_room_for_it_is_polled() -> None:
    world = World(transports=("websocket", "long-polling"))
    seen = []
    for _ in range(3):
        seen += [world.fail(Failure("503", 503, "30")), world.answer()]
    assert names([*seen, world.next()]) == ["websocket", "polling?"] * 3 + ["long-polling"]


@pytest.mark.parametrize("status", [400, 401, 403, 413])
def test_what_is_refused_is_asked_again_at_the_longest_interval_or_with_other_channels(status: int) -> None:
    world = World()
    world.fail(Failure("no", status))  # a browser would not know the status of a WebSocket
    world.fail(Failure("no", status))
    assert world.delay == pytest.approx(180.0)
    assert world.selector.waits_for_channels
    assert world.told[-1] == ("connecting", StateInfo(None, "no", status, world.delay, retry=False))


@pytest.mark.parametrize("status", [404, 408, 425, 500, 502])
def test_what_a_proxy_says_of_a_server_that_is_gone_is_tried_again_soon(status: int) -> None:
    world = World(transports=("polling",))
    world.fail(Failure("gone", status))
    assert world.delay < 1.0
    assert not world.selector.waits_for_channels


# --- what is told ---


def test_states_and_problems_are_told_and_nothing_twice() -> None:
    world = World(transports=("polling",))
    world.answer()
    world.answer()
    world.fail(Failure("broken", 500))
    world.answer()
    world.selector.stop()
    assert world.told == [
        ("connecting", StateInfo()),
        ("connected", StateInfo("polling")),
        ("reconnecting", StateInfo("polling", "broken", 500, 0.5)),
        ("connected", StateInfo("polling")),
        ("stopped", StateInfo()),
    ]
    assert (world.selector.reconnects, world.selector.last_error) == (1, "broken")


def test_giving_a_connection_up_for_other_channels_tells_nobody_and_waits_for_nothing() -> None:
    world = World()
    world.selector.replace(world.open())
    assert world.delay == 0.0
    assert (world.next().transport, len(world.told)) == ("websocket", 2)
