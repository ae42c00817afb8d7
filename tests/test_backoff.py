"""Pauses between attempts: short at first, bounded, and not the same in every process."""

from __future__ import annotations

from messagebus.backoff import Backoff, growing


def test_each_pause_is_twice_the_one_before_up_to_the_longest() -> None:
    backoff = Backoff(0.05, 1.0, dice=lambda: 1.0)
    assert [backoff.next() for _ in range(7)] == [0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0]


def test_up_to_half_of_a_pause_is_left_out_at_random() -> None:
    assert Backoff(0.05, 1.0, dice=lambda: 0.0).next() == 0.025
    assert len({Backoff(0.05, 1.0).next() for _ in range(10)}) > 1


def test_a_success_resets_the_pauses() -> None:
    backoff = Backoff(0.05, 1.0, dice=lambda: 1.0)
    for _ in range(5):
        backoff.next()
    backoff.reset()
    assert backoff.next() == 0.05


def test_a_million_attempts_overflow_nothing() -> None:
    assert growing(0.05, 10**6, 2.0) == 2.0
    assert growing(0.05, -1, 2.0) == 0.05
