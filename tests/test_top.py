"""What ``messagebus top`` makes of two looks."""

from __future__ import annotations

from typing import Any

from messagebus.command.places import Channel
from messagebus.command.top import Look, busiest, rate


def look(at: float, channels: dict[str, int], complete: bool = True, **stats: Any) -> Look:
    """``channels``: with the messages that they have had."""
    found: dict[tuple[str, str | None], Channel] = {
        (name, None): Channel(name, 1, published) for name, published in channels.items()
    }
    return Look(at, stats, found, complete)


def rates(before: Look, now: Look) -> dict[str, float]:
    return {row.channel: row.per_second for row in busiest(before, now)}


def test_a_channel_that_is_new_has_had_all_its_messages_since() -> None:
    assert rates(look(0, {"/a": 10}), look(2, {"/a": 30, "/new": 8})) == {"/a": 10.0, "/new": 4.0}


def test_a_channel_that_was_not_looked_at_before_may_be_an_old_one() -> None:
    assert rates(look(0, {"/a": 10}, complete=False), look(2, {"/a": 30, "/b": 8})) == {"/a": 10.0, "/b": 0.0}


def test_a_partition_that_goes_or_comes_back_is_no_burst_of_messages() -> None:
    whole, less = look(0, {}, published_messages=1000), look(2, {}, published_messages=400, partitions_away=[3])
    assert rate(whole, less, "published_messages") == 0.0
    assert rate(less, whole._replace(at=4), "published_messages") == 0.0
    more = look(4, {}, published_messages=500, partitions_away=[3])
    assert rate(less, more, "published_messages") == 50.0
