"""Positions as clients write them."""

from __future__ import annotations

import pytest

from messagebus.errors import InvalidPosition
from messagebus.hub.epochs import Epochs
from messagebus.hub.history import Cursor
from messagebus.hub.subscribe_request import SubscribeParams, SubscribeRequest
from messagebus.hub.subscriber import Identity
from messagebus.wire import parse_position


def cursors(
    positions: dict[str, object],
    site_id: str | None = None,
    client_epoch: str | None = None,
    store_epoch: str | None = None,
) -> list[Cursor]:
    params = SubscribeParams({name: parse_position(name, value) for name, value in positions.items()}, client_epoch)
    epochs = Epochs()
    epochs[0] = store_epoch
    return SubscribeRequest(Identity("c"), site_id, params).cursors(epochs)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("12", (12, None)),
        (12, (12, None)),
        ("0", (0, None)),
        ("-1", (-1, None)),
        ("-7", (-7, None)),
        (-7, (-7, None)),
        ("", (-1, None)),
        ("@345", (-1, 345)),
        ("007", (7, None)),
        ("9" * 18, (10**18 - 1, None)),
    ],
)
def test_a_position_is_a_number_or_at_and_a_global_id(text: object, expected: tuple[int, int | None]) -> None:
    assert parse_position("/a", text) == expected


@pytest.mark.parametrize(
    "value", ["x", "1.0", 1.0, True, None, [], "+1", " 1", "1\n", "@", "@-1", "٣", "9" * 19, 10**18]
)
def test_anything_else_is_refused_with_the_channel_and_the_value(value: object) -> None:
    with pytest.raises(InvalidPosition) as refused:
        parse_position("/a", value)
    assert (refused.value.channel, refused.value.position) == ("/a", value)


def test_the_site_is_part_of_the_stored_name() -> None:
    wants = cursors({"/a": 1, "/global/b": 2}, site_id="red")
    assert [(want.channel, want.name) for want in wants] == [("/a", "/a$|$red"), ("/global/b", "/global/b")]


@pytest.mark.parametrize(
    ("position", "resumed"),
    [("-1", (-1, 9)), ("-5", (-1, 9)), ("", (-1, 9)), ("@3", (-1, 9)), ("@12", (-1, 12)), ("3", (3, 9))],
)
def test_after_a_last_event_id_the_later_of_both_counts_and_a_lookback_is_over(
    position: str, resumed: tuple[int, int]
) -> None:
    assert parse_position("/a", position).resumed_at(9) == resumed


@pytest.mark.parametrize(
    ("client", "store", "stale", "strict"),
    [
        (None, "a", False, False),
        ("", "a", False, False),
        ("a", "a", False, True),
        ("b", "a", True, False),
        ("b", None, False, True),
    ],
)
def test_a_position_of_another_epoch_is_stale(client: str | None, store: str | None, stale: bool, strict: bool) -> None:
    [want] = cursors({"/a": 3}, client_epoch=client, store_epoch=store)
    assert (want.stale, want.strict) == (stale, strict)


def test_a_position_that_says_nothing_of_the_past_is_never_stale() -> None:
    wants = cursors({"/a": -1, "/b": -3, "/c": "@5"}, client_epoch="b", store_epoch="a")
    assert [want.stale for want in wants] == [False, False, True]
