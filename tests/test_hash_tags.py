"""Which slot a partition is in."""

from __future__ import annotations

from collections import Counter

import pytest

from messagebus.stores.hash_tags import SLOTS, hash_tags, slot_of


@pytest.mark.parametrize("partitions", [1, 3, 16, 48, 64, 1000, 1024])
def test_partitions_lie_evenly_in_the_slots(partitions: int) -> None:
    tags = hash_tags(partitions)
    slots = [slot_of(tag + b"key") for tag in tags]
    assert [slot * partitions // SLOTS for slot in slots] == list(range(partitions))
    for nodes in (1, 2, 3, 5, 6):
        shares = Counter(slot * nodes // SLOTS for slot in slots)
        if partitions >= nodes:
            assert max(shares.values()) - min(shares.values()) <= 2


def test_the_table_never_changes() -> None:
    assert hash_tags(4) == (b"{3}", b"{2}", b"{1}", b"{0}")
    assert hash_tags(64)[0] != hash_tags(64)[1]


def test_a_name_with_braces_changes_no_slot() -> None:
    tag = hash_tags(64)[7]
    assert slot_of(tag + b"__mb_backlog_n_/a{x}") == slot_of(tag)
