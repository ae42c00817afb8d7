"""The arithmetic of partitions: it must not change, for the ids and the places of what is stored depend on it."""

from __future__ import annotations

from messagebus.stores.partitions import MAX_PARTITIONS, decode_id, encode_id, partition_of


def test_a_name_is_in_the_same_partition_in_every_process_and_for_ever() -> None:
    assert [partition_of(name, 64) for name in ("/chat", "/chat$^MessageBus$^1", "/häuser")] == [62, 8, 8]
    assert partition_of("/chat", 1) == 0


def test_a_global_id_says_its_partition_and_grows_with_the_local_one() -> None:
    for partitions in (1, 2, 64, 1024):
        for partition in {0, partitions // 2, partitions - 1}:
            ids = [encode_id(local, partition, partitions) for local in (0, 1, 2, 10**9)]
            assert ids == sorted(ids)
            assert [decode_id(each, partitions) for each in ids] == [(n, partition) for n in (0, 1, 2, 10**9)]
    assert encode_id(7, 0, 1) == 7


def test_a_partition_of_the_most_has_room_for_milliseconds_since_1970() -> None:
    assert encode_id(4_000_000_000_000, MAX_PARTITIONS - 1, MAX_PARTITIONS) < 2**53
