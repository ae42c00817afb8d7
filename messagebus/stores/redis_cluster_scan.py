"""What goes over all keys of a Redis Cluster, one node after the other: the names that have a backlog, and deleting."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .base import ChannelPage
from .hash_tags import hash_tags
from .redis_cluster_nodes import ClusterNodes
from .redis_reading import SCANS_FOR_A_PAGE

BACKLOG = b"__mb_backlog_n_"
"""What stands between the hash tag of a backlog's key and the name."""


def channel_page(nodes: ClusterNodes, cursor: str, limit: int) -> ChannelPage:
    """See ``Store.channels``. A cursor is the number of a node and its own cursor."""
    node, _, position = (cursor or "0:0").partition(":")
    for number in (node, position):
        if not (number.isascii() and number.isdigit() and len(number) <= 20 and int(number) < 2**64):
            raise ValueError(f"expected a page's cursor, not {cursor!r:.80}")
    at, where = int(node), int(position)
    names: list[str] = []
    tags = frozenset(hash_tags(nodes.url.partitions))
    primaries = nodes.primaries()
    for _ in range(SCANS_FOR_A_PAGE):
        if at >= len(primaries):
            return ChannelPage(names, "")
        found: tuple[int, list[Any]] = primaries[at][1].client.scan(where, match=b"{*}" + BACKLOG + b"*", count=1000)
        where, keys = found
        for key in keys:
            tag, _, name = key.partition(BACKLOG)
            if tag in tags:
                names.append(name.decode(errors="replace"))
        if not where:
            at += 1
        if len(names) >= limit:
            break
    return ChannelPage(names, f"{at}:{where}" if at < len(primaries) else "")


def delete_matching(nodes: ClusterNodes, patterns: Sequence[bytes]) -> None:
    """Delete the keys that match, on all nodes."""
    for _, connections in nodes.primaries():
        client = connections.client
        for pattern in patterns:
            found = list(client.scan_iter(match=pattern, count=1000))
            for begin in range(0, len(found), 1000):
                with client.pipeline(transaction=False) as pipeline:
                    for key in found[begin : begin + 1000]:  # of many slots: not in one command
                        pipeline.delete(key)
                    pipeline.execute()
