"""Which slot of a Redis Cluster a partition is in. Pure.

A cluster shares out 16,384 slots among its nodes, mostly in runs of neighbours. A key is in the slot of what stands
between its first braces, its *hash tag*, and so all keys of a partition have one. Partition p of P gets the smallest
whole number whose slot is about the middle of the p-th of P equal parts of all slots: whichever way the nodes share the
slots, they share the partitions alike. The table follows from P alone, and never changes.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import count

from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot

SLOTS: int = REDIS_CLUSTER_HASH_SLOTS
COMMON = b"{messagebus}"
"""The hash tag of what belongs to no partition, whatever their number."""


@lru_cache(maxsize=8)
def hash_tags(partitions: int) -> tuple[bytes, ...]:
    """The hash tag of each partition, with its braces: what the names of its keys begin with."""
    tags: dict[int, bytes] = {}
    for number in count():
        part, eighth = divmod(slot_of(b"%d" % number) * partitions * 8 // SLOTS, 8)
        if eighth in (3, 4):
            tags.setdefault(part, b"{%d}" % number)
        if len(tags) == partitions:
            return tuple(tags[part] for part in range(partitions))
    raise AssertionError("numbers do not end")


def slot_of(key: bytes) -> int:
    """The slot of a key."""
    slot: int = key_slot(key)
    return slot
