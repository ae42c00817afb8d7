"""Epochs of several partitions in one text, and event ids: what is told, and what is understood."""

from __future__ import annotations

import pytest

from messagebus.hub.epochs import Epochs, longest_text
from messagebus.stores.partitions import MAX_PARTITIONS
from messagebus.transports import EVENT_SOURCE, NAMED_EVENTS, WEBSOCKET
from messagebus.transports.event_ids import Reached, Spread


def epochs_of(*values: str | None) -> Epochs:
    epochs = Epochs(len(values))
    for number, value in enumerate(values):
        epochs[number] = value
    return epochs


def test_of_one_partition_the_text_is_its_epoch() -> None:
    epochs = epochs_of("9f2c1a0b7d6e5f40")
    assert epochs.text([0]) == epochs.text([]) == "9f2c1a0b7d6e5f40"
    assert epochs.outdated("another") == frozenset()
    assert epochs.named("another").is_over(0)
    assert not epochs.named("9f2c1a0b7d6e5f40").is_over(0)
    assert not epochs.named("").is_over(0)
    assert not epochs.named(None).is_over(0)
    assert epochs.named("9f2c1a0b").is_over(0), "a beginning is another one"


def test_of_several_it_has_those_that_are_asked_for_and_known() -> None:
    epochs = epochs_of("a" * 16, None, "c" * 16, "d" * 16)
    assert epochs.text([3, 0, 1, 0]) == "0-aaaaaaaa.3-dddddddd"
    assert epochs.text([1]) is None
    named = epochs.named("0-aaaaaaaa.2-xxxxxxxx")
    assert (named[0], named[1], named[2]) == ("aaaaaaaa", None, "xxxxxxxx")
    assert [named.is_over(number) for number in range(4)] == [False, False, True, False]
    assert epochs.outdated("0-aaaaaaaa.2-xxxxxxxx") == {2}
    assert epochs.outdated("of another store") == {0, 2, 3}
    assert epochs.outdated("") == epochs.outdated(None) == frozenset()


def test_a_text_of_all_partitions_is_one_that_a_client_may_name() -> None:
    epochs = epochs_of(*["f" * 16] * MAX_PARTITIONS)
    text = epochs.text(range(MAX_PARTITIONS))
    assert text is not None
    assert len(text) <= longest_text(len(epochs))
    assert epochs.outdated(text) == frozenset()


BATCH = (
    b'[{"global_id":14,"message_id":1,"channel":"/c","data":1},{"global_id":17,"message_id":1,"channel":"/b","data":2}]'
)


def test_an_event_says_how_far_its_reader_is_in_each_of_its_partitions() -> None:
    reached = [0, 9, 10, 11]
    transport = EVENT_SOURCE.spread(Spread((1, 2), reached))
    assert transport.encode(b"[1]", 13) == b"id: 13.10\ndata: [1]\n\n"
    reached[2] = 18
    assert transport.encode(b"[1]", 13) == b"id: 13.18\ndata: [1]\n\n", "as it is by now"
    assert transport.encode(b"[1]", None) == b"data: [1]\n\n"
    piece = Reached({1: 5, 2: 6}, {2: 14})
    assert b"".join(transport.encode_parts([b"[1", b"]"], piece)) == b"id: 5.14\ndata: [1]\n\n"
    assert EVENT_SOURCE.encode(b"[1]", 13) == b"id: 13\ndata: [1]\n\n"
    assert WEBSOCKET.spread(Spread((1, 2), reached)) is WEBSOCKET


@pytest.mark.parametrize("event_id", [Reached({1: 5, 2: 6}, {1: 17, 2: 14})])
def test_each_of_several_events_says_it_after_that_message(event_id: Reached) -> None:
    transport = NAMED_EVENTS.spread(Spread((1, 2), [0, 99, 98, 97]))
    text = transport.encode(BATCH, event_id).decode()
    assert [line for line in text.split("\n") if line.startswith("id: ")] == ["id: 5.14", "id: 17.14", "id: 17.14"]
