"""The arithmetic of a store with partitions: which one a name is in, and global ids that say theirs. Pure.

A partition numbers its messages itself, with *local* ids, one by one. The bus sees *global* ids, of which each ends in
its partition. Where there is one partition the two are the same.
"""

from __future__ import annotations

from zlib import crc32

MAX_PARTITIONS = 1024
"""JavaScript's whole numbers end at 2^53: that leaves 8.8e12 local ids for each partition."""


def partition_of(name: str, partitions: int) -> int:
    """The partition of a name: the same in every process, for as long as there are so many."""
    return crc32(name.encode()) % partitions if partitions > 1 else 0


def encode_id(local_id: int, partition: int, partitions: int) -> int:
    """The global id of a message. 0 in a partition is what stands before its first message."""
    return local_id * partitions + partition


def decode_id(global_id: int, partitions: int) -> tuple[int, int]:
    """The local id and the partition of a global id."""
    return divmod(global_id, partitions)
