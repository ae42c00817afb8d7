"""What those are told who come back with the id of an event, when the store has begun another life."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from messagebus.hub.former import Former
from messagebus.hub.subscriber import Phase
from messagebus.hub.windows import Windows
from messagebus.options import Options
from messagebus.stores import StoreState
from messagebus.transports import EVENT_SOURCE, WEBSOCKET
from messagebus.transports.base import Transport
from messagebus.transports.event_ids import Spread
from messagebus.transports.plain import PlainEvents

from .partitioned import name_in

P = 4
NOWHERE = 10**18 - 4
"""Of partition 0."""


@pytest.fixture
def windows() -> Windows:
    """Of a process that has come to id 41 in partition 1, and to 20 in partition 0."""
    windows = Windows(Options(), lambda: 0.0, P)
    windows.reached[:] = [20, 41, 2, 3]
    for partition in range(P):
        windows.epochs.begin_life(partition, StoreState(partition, "former"))
    return windows


def reader(transport: Transport, *partitions: int, is_live: bool = True, state: Phase = Phase.OPEN) -> Any:
    told: list[bytes] = []
    names = {name_in(each, P, "/a") for each in partitions}
    catch_up = None if is_live else object()
    return SimpleNamespace(
        transport=transport, state=state, catch_up=catch_up, followed=names, put=told.append, told=told
    )


def another_life(windows: Windows, lineage: Mapping[str, int], epoch: str = "next") -> Former:
    return Former.of(windows, StoreState(1, epoch, lineage))


def test_who_has_seen_what_is_lost_goes_on_behind_what_is_shared(windows: Windows) -> None:
    one = reader(EVENT_SOURCE, 1)
    two = reader(EVENT_SOURCE.spread(Spread((0, 1), windows.reached)), 0, 1)
    another_life(windows, {"former": 29}).tell_where_to_go_on([one, two])
    assert one.told == [b"id: 29\ndata: []\n\n"]
    assert two.told == [b"id: 20.29\ndata: []\n\n"]


def test_nobody_is_told_of_more_than_the_process_has_delivered(windows: Windows) -> None:
    one = reader(EVENT_SOURCE, 1)
    another_life(windows, {"former": 101}).tell_where_to_go_on([one])
    assert one.told == [b"id: 41\ndata: []\n\n"]


def test_where_nothing_is_shared_the_id_is_one_that_no_store_will_have(windows: Windows) -> None:
    events = PlainEvents(lambda part, whole: "", named=False)
    one, two, plain = (
        reader(EVENT_SOURCE, 1),
        reader(EVENT_SOURCE.spread(Spread((0, 1), windows.reached)), 0, 1),
        reader(events, 1),
    )
    another_life(windows, {}).tell_where_to_go_on([one, two, plain])
    assert one.told == [b"id: %d\ndata: []\n\n" % (NOWHERE + 1)]
    assert two.told == [b"id: 20.%d\ndata: []\n\n" % (NOWHERE + 1)]
    assert plain.told == [b"id: %d\n\n" % (NOWHERE + 1)]


def test_who_still_catches_up_begins_anew_wherever_that_is(windows: Windows) -> None:
    one = reader(EVENT_SOURCE, 1, is_live=False)
    two = reader(EVENT_SOURCE.spread(Spread((0, 1), windows.reached)), 0, 1, is_live=False)
    another_life(windows, {"former": 29}).tell_where_to_go_on([one, two])
    assert one.told == [b"id: %d\ndata: []\n\n" % (NOWHERE + 1)]
    assert two.told == [b"id: %d.%d\ndata: []\n\n" % (NOWHERE, NOWHERE + 1)]


def test_who_has_no_ids_of_events_or_has_been_given_nothing_is_told_nothing(windows: Windows) -> None:
    readers = [reader(WEBSOCKET, 1), reader(EVENT_SOURCE, 1, state=Phase.OPENING)]
    another_life(windows, {"former": 29}).tell_where_to_go_on(readers)
    same = reader(EVENT_SOURCE, 1)
    another_life(windows, {}, epoch="former").tell_where_to_go_on([same])  # only this process has missed something
    assert [each.told for each in (*readers, same)] == [[], [], []]
