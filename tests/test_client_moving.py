"""When a client opens its next connection after the server's word that the present one will end."""

from __future__ import annotations

import pytest

from messagebus.client.moving import AGAIN, AGAIN_MOST, Move


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_it_has_no_end_in_sight_before_the_server_says_so(clock: Clock) -> None:
    assert Move(clock).at is None


@pytest.mark.parametrize("dice", [0.0, 0.25, 1.0])
def test_each_client_takes_a_time_of_its_own_within_the_one_that_all_are_told(clock: Clock, dice: float) -> None:
    move = Move(clock, lambda: dice)
    move.told(8000)
    assert move.at == 100.0 + 8 * dice


def test_the_first_word_counts(clock: Clock) -> None:
    move = Move(clock, lambda: 0.5)
    move.told(8000)
    move.told(100)
    assert move.at == 104.0


@pytest.mark.parametrize("value", [None, True, "8000", -1, 600_001, float("nan"), {}, []])
def test_what_is_no_time_is_ignored(clock: Clock, value: object) -> None:
    move = Move(clock)
    move.told(value)
    assert move.at is None


def test_where_no_other_server_is_there_it_tries_again_more_and_more_seldom(clock: Clock) -> None:
    move = Move(clock, lambda: 1.0)
    move.told(0)
    waits = []
    for _ in range(5):
        move.failed()
        assert move.at is not None
        waits.append(move.at - clock.now)
    assert waits == [AGAIN, 2 * AGAIN, 4 * AGAIN, AGAIN_MOST, AGAIN_MOST]
