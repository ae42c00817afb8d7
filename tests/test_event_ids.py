"""The id of an event: it says how far its reader is in each partition, and never outgrows a header."""

from __future__ import annotations

import pytest

from messagebus.hub.epochs import Epochs
from messagebus.hub.subscribe_request import SubscribeParams, SubscribeRequest
from messagebus.hub.subscriber import Identity
from messagebus.options import Options
from messagebus.stores import StoreState
from messagebus.stores.partitions import MAX_PARTITIONS
from messagebus.transports.event_ids import LONGEST, PACKED, join_ids, split_ids
from messagebus.wire import parse_position

LARGEST = 10**18 - 1
"""No position has more digits."""


def ids(partitions: int, local_id: int) -> list[int]:
    return [local_id * MAX_PARTITIONS + number for number in range(partitions)]


def test_a_client_of_as_many_channels_as_there_may_be_by_default_is_given_numbers_whatever_they_are() -> None:
    text = join_ids([LARGEST] * Options().max_channels)
    assert len(text) <= LONGEST
    assert split_ids(text.decode()) == [LARGEST] * Options().max_channels
    assert set(text) <= set(b"0123456789.")


@pytest.mark.parametrize("local_id", [10**9, 10**10, 2**46 - 1])
def test_no_id_outgrows_its_bound_and_each_says_all_or_that_it_does_not(local_id: int) -> None:
    for partitions in range(1, MAX_PARTITIONS + 1):
        given = ids(partitions, local_id)
        text = join_ids(given)
        assert len(text) <= LONGEST
        assert split_ids(text.decode()) == (None if text == PACKED else given)
        assert partitions > 438 or text != PACKED


@pytest.mark.parametrize("local_id", [0, 1, 60])
def test_a_young_bus_has_room_for_all_partitions(local_id: int) -> None:
    given = ids(MAX_PARTITIONS, local_id)
    assert split_ids(join_ids(given).decode()) == given


@pytest.mark.parametrize(
    "text", ["~A", "~====", "~CA", "~BQEC", "~AA", "~AQ", "~ ", "~é", "1.", ".1", "1~", "~~", "-1", "1" * 19, "~B!AA"]
)
def test_what_is_no_id_of_an_event_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        split_ids(text)


@pytest.mark.parametrize("position", [-1, 0, 7, "@2049"])
def test_who_comes_with_an_id_that_says_nothing_begins_anew_and_is_told(position: int | str) -> None:
    params = SubscribeParams({"/a": parse_position("/a", position)}, resumed_at=split_ids("~"))
    epochs = Epochs(2)
    epochs.begin_life(0, StoreState(0, "e"))
    [want] = SubscribeRequest(Identity("c"), None, params).cursors(epochs)
    assert want.stale
    assert want.shared is None
