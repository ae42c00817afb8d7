"""What goes over all keys of a Redis Cluster, one node after the other: the names that have a backlog, and deleting."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import redis

from ..errors import BackendUnavailable
from .base import ChannelPage
from .hash_tags import hash_tags, slot_of
from .redis_cluster_nodes import ClusterNodes, NoNode, translate
from .redis_cluster_url import Place
from .redis_reading import SCANS_FOR_A_PAGE

BACKLOG = b"__mb_backlog_n_"
"""What stands between the hash tag of a backlog's key and the name."""


def channel_page(nodes: ClusterNodes, cursor: str, limit: int) -> ChannelPage:
    """See ``Store.channels``. A cursor is a partition, of which the next node is, and that node's own cursor."""
    begin, _, position = (cursor or "0:0").partition(":")
    for number in (begin, position):
        if not (number.isascii() and number.isdigit() and len(number) <= 20 and int(number) < 2**64):
            raise ValueError(f"expected a page's cursor, not {cursor!r:.80}")
    walk = _Walk(nodes, int(begin), int(position))
    tags = frozenset(hash_tags(nodes.url.partitions))
    names: list[str] = []
    for _ in range(SCANS_FOR_A_PAGE):
        place = walk.next_node()
        if place is None:
            break
        client = nodes.connections_to(place).client
        try:
            found: tuple[int, list[Any]] = client.scan(walk.position, match=b"{*}" + BACKLOG + b"*", count=1000)
        except (redis.RedisError, OSError) as error:
            if not isinstance(translate(error, nodes.url.where), BackendUnavailable):
                raise
            walk.is_away(place, error)
            continue
        walk.position, keys = found
        for key in keys:
            tag, _, name = key.partition(BACKLOG)
            if tag in tags:
                names.append(name.decode(errors="replace"))
        if not walk.position:
            walk.is_done(place)
        if len(names) >= limit:
            break
    return ChannelPage(names, walk.cursor(), tuple(sorted(walk.away)))


class _Walk:
    """From node to node, each in the place of the first partition that it has: the node that takes the place of another
    has that, too."""

    def __init__(self, nodes: ClusterNodes, begin: int, position: int) -> None:
        self._nodes = nodes
        self._slots = [slot_of(tag) for tag in hash_tags(nodes.url.partitions)]
        self._places = nodes.places(self._slots)
        first: dict[Place | None, int] = {}
        for number, place in enumerate(self._places):
            first.setdefault(place, number)
        self._left = [
            n for n, place in enumerate(self._places) if n >= begin and (place is None or first[place] >= begin)
        ]
        self._dead: dict[Place, Exception] = {}
        self.away: list[int] = []
        self.position = position if self._left[:1] == [begin] else 0
        """How far the node is that comes next: its own cursor."""

    def next_node(self) -> Place | None:
        """``None``: there is none."""
        while self._left:
            place = self._places[self._left[0]]
            if place is not None and place not in self._dead:
                if not self._nodes.is_silent(place):
                    return place
                self._dead[place] = redis.TimeoutError("a moment ago")
            self.away += self.is_done(place)
        if len(self.away) == len(self._slots):  # otherwise an empty page looks like an empty bus
            raise next(iter(self._dead.values()), NoNode("no slot has a node"))
        return None

    def is_done(self, place: Place | None) -> list[int]:
        """Go on to the next node. Returns the partitions of this one."""
        self.position = 0
        done = [number for number in self._left if self._places[number] == place]
        self._left = [number for number in self._left if self._places[number] != place]
        return done

    def is_away(self, place: Place, error: Exception) -> None:
        """A node gives no answer: another one may have taken its place."""
        self._dead[place] = error
        self._nodes.gave_no_answer(place, error)
        self.position = 0
        for number in self._left:
            if self._places[number] == place:
                self._nodes.failed(self._slots[number])
        with suppress(redis.RedisError, OSError):
            self._places = self._nodes.places(self._slots)

    def cursor(self) -> str:
        return f"{self._left[0]}:{self.position}" if self._left else ""


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
