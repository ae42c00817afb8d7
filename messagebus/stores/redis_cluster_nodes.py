"""The nodes of a Redis Cluster: which of them has a slot, and connections to it.

redis-py knows the topology: which node has which slot, where the others are, who was promoted. This module asks it
again when a node does not answer or says that a slot has moved, and keeps connections to each node that are as fast as
those to a single Redis; redis-py's own way to a node takes several times as long.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any

import redis
from redis.cluster import ClusterNode, RedisCluster
from redis.exceptions import NoScriptError, RedisClusterException

from .. import forks
from ..errors import BackendUnavailable, BusClosed, InvalidOption
from .hash_tags import COMMON, SLOTS, slot_of
from .redis_cluster_url import EXPECTED, ClusterUrl, Place
from .redis_connection import Connections, Meaning, Prepare, WrongServer, explain
from .redis_scripts import CLUSTER_LAYOUT

ASK_SECONDS = 1.0
"""Seconds at most for one node to say where all slots are: the next one knows it as well."""
ASK_PAUSE = 0.1
"""Seconds at least between two such questions, however many threads find that a node is gone."""
SILENT_SECONDS = 5.0
"""How long a node that gave no answer in time is not asked for what can be had without it: each time takes a
``store_timeout``."""
LAYOUT_KEY = COMMON + b"__mb_layout"
LAYOUT_VERSION = 1


class NoNode(redis.ConnectionError):
    """Nobody is known to have a slot; the text says why."""


class Moved(BackendUnavailable):
    """Another node has the slot by now. Nothing was done; the next attempt finds it."""

    def __init__(self, where: str, error: redis.exceptions.MovedError) -> None:
        """``where``: the partition, as errors name it."""
        super().__init__(f"Redis at {where} has moved: {error}", "busy")
        self.to: Place = (error.host, error.port)
        """The node that has it."""


class _Topology(RedisCluster):
    """redis-py's cluster, for what it knows of nodes and slots alone.

    It begins by asking a node which commands there are, and none other where just that one is away. Nobody calls any
    command here, so the answer is that there are none."""

    def execute_command(self, *args: Any, **kwargs: Any) -> Any:
        return {}


class ClusterNodes:
    """See the module. Safe from any thread and greenlet; connects to nothing yet."""

    def __init__(self, url: ClusterUrl, timeout: float) -> None:
        """``timeout``: seconds that a caller waits for a free connection."""
        self.url = url
        self._timeout = timeout
        self._closed = False
        self._begin()

    def _begin(self) -> None:
        # Nothing is waited for under this one, so it may be made before gevent patches the process; the other is made
        # on first use.
        self._guard = threading.Lock()
        self._asking: threading.Lock | None = None
        self._cluster: RedisCluster | None = None
        self._asked_at = -ASK_PAUSE
        self._is_outdated = False
        self._owners: dict[int, Place] = {}
        """Of the slots that were asked for: the node that has it, until it turns out that it has not."""
        self._connections: dict[Place, Connections] = {}
        self._silent: dict[Place, float] = {}
        self._has_layout = False

    def connections(self, slot: int) -> Connections:
        """Connections to the node that has a slot.

        Raises:
            InvalidOption: The cluster holds a bus with another number of partitions.
            redis.RedisError: No node says where it is.
        """
        try:
            return self._connections[self._owners[slot]]
        except KeyError:
            return self._to(self.place(slot))

    def place(self, slot: int) -> Place:
        """The node that has a slot; raises like :meth:`connections`."""
        place = self._owners.get(slot)
        if place is not None:
            return place
        with self._one_asks():
            cluster = self._topology()
            if not self._has_layout:
                self._check_layout(cluster)
            place = self._owners[slot] = _owner(cluster, slot)
            return place

    def places(self, slots: Sequence[int]) -> list[Place | None]:
        """The node that has each slot, ``None`` where none has it; raises like :meth:`connections`."""
        self.place(slot_of(LAYOUT_KEY))
        with self._one_asks():
            cluster = self._topology()
            return [self._owners.get(slot) or _owner_if_any(cluster, slot) for slot in slots]

    def connections_to(self, place: Place) -> Connections:
        """Connections to a node, whatever it has."""
        return self._to(place)

    def known_place(self, slot: int) -> Place | None:
        """The node that has a slot as far as is known; asks nobody."""
        return self._owners.get(slot)

    def primaries(self) -> list[tuple[Place, Connections]]:
        """All nodes that have slots, in the order of their addresses."""
        self.place(slot_of(LAYOUT_KEY))
        with self._one_asks():
            nodes = self._topology().nodes_manager.get_nodes_by_server_type("primary")
        return [(place, self._to(place)) for place in sorted((node.host, node.port) for node in nodes)]

    def left(self, slot: int, to: Place | None = None) -> None:
        """A node says that it has the slot no longer, and perhaps which one has it."""
        self._is_outdated = True
        # The others may not know that yet, and would name the former one.
        if to is not None and all(to):
            self._owners[slot] = to
        else:
            self._owners.pop(slot, None)

    def failed(self, slot: int) -> None:
        """The node that had a slot does not answer, or does not serve."""
        place = self._owners.get(slot)
        self.left(slot)
        connections = self._connections.get(place) if place is not None else None
        if connections is not None:
            connections.discard_idle()

    def gave_no_answer(self, place: Place, error: BaseException | None) -> None:
        """Asking a node has failed with an error of redis-py. One that refuses, or hangs up, costs no time."""
        if isinstance(error, redis.TimeoutError):
            self._silent[place] = time.monotonic() + SILENT_SECONDS

    def is_silent(self, place: Place) -> bool:
        """Whether a node gave no answer in time a moment ago."""
        return time.monotonic() < self._silent.get(place, 0.0)

    def delete_layout(self) -> None:
        """The bus was reset: whoever comes next notes how it is laid out."""
        self.connections(slot_of(LAYOUT_KEY)).call((b"DEL", LAYOUT_KEY))
        self._has_layout = False
        self._owners.clear()

    def check_layout(self) -> None:
        """Check it once more, as the bus was reset; raises like :meth:`connections`."""
        with self._one_asks():
            self._check_layout(self._topology())

    def call_many(self, calls: Sequence[tuple[int, tuple[Any, ...]]], prepare: Prepare | None = None) -> list[Any]:
        """Send commands, each to the node that has its slot, and then read all answers: the nodes work side by side.
        Returns the answers in the order of the commands; an exception of redis-py takes the place of one that failed.
        ``prepare``: makes each command what it is to be on its connection.

        Raises like :meth:`connections`, before anything is sent."""
        by_node: dict[Connections, list[int]] = {}
        answers: list[Any] = [None] * len(calls)
        for number, (slot, _) in enumerate(calls):
            try:
                by_node.setdefault(self.connections(slot), []).append(number)
            except (redis.RedisError, OSError) as error:
                answers[number] = error
        reading = []
        for connections, numbers in by_node.items():
            reading.append((numbers, connections.begin([calls[number][1] for number in numbers], prepare)))
        for numbers, read in reading:
            for number, answer in zip(numbers, read(), strict=True):
                answers[number] = answer
        return answers

    def close(self) -> None:
        with self._guard:
            self._closed = True
            cluster, self._cluster = self._cluster, None
            connections, self._connections = self._connections, {}
            self._owners = {}
        for each in connections.values():
            each.close()
        if cluster is not None:
            cluster.close()

    def after_fork(self) -> None:
        forks.leave_behind(self._cluster)  # which would take locks at its end
        self._begin()

    def _one_asks(self) -> threading.Lock:
        """Held while a node is asked where the slots are: one answer does for all who wait."""
        with self._guard:
            if self._asking is None:
                self._asking = threading.Lock()
            return self._asking

    # --- while one asks ---

    def _topology(self) -> RedisCluster:
        """What redis-py knows, asked for anew where that was wrong."""
        if self._closed:
            raise BusClosed("the store was closed")
        cluster = self._cluster
        if cluster is not None and (not self._is_outdated or time.monotonic() - self._asked_at < ASK_PAUSE):
            return cluster
        self._is_outdated = False
        self._asked_at = time.monotonic()
        try:
            if cluster is None:
                cluster = self._cluster = _Topology(**self._settings())
            else:
                # Those of the URL as well: of the nodes that it knew none may be left.
                cluster.nodes_manager.initialize(additional_startup_nodes_info=list(self.url.places))
        except (RedisClusterException, redis.RedisError) as error:
            self._is_outdated = True
            raise self._explain(error) from error
        finally:
            self._asked_at = time.monotonic()
        nodes = {(node.host, node.port) for node in list(cluster.nodes_manager.nodes_cache.values())}
        for place in self._connections.keys() - nodes:  # where nodes come and go, their addresses would pile up
            self._connections.pop(place).discard_idle()
        return cluster

    def _settings(self) -> dict[str, Any]:
        arguments = {name: value for name, value in self.url.arguments.items() if name != "db"}
        timeout = min(self._timeout, ASK_SECONDS)
        return {
            **arguments,
            "ssl": issubclass(self.url.connection_class, redis.SSLConnection),
            "startup_nodes": [ClusterNode(*place) for place in self.url.places],  # type: ignore[no-untyped-call]
            "socket_timeout": timeout,
            "socket_connect_timeout": timeout,
            "require_full_coverage": False,  # one partition without a node stops no other
        }

    def _explain(self, error: Exception) -> redis.RedisError:
        """What redis-py tells of no node that knew the topology says too little: what was the last one's own answer?"""
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, redis.ResponseError):
                text = str(cause)
                if "cluster support disabled" in text:
                    return WrongServer(
                        f"the server of {self.url.where} is no node of a cluster, but a Redis by itself: its URL is "
                        f"redis://host:{self.url.places[0][1]}/0; that of a cluster is {EXPECTED}",
                        "unsupported",
                    )
                return cause
            if isinstance(cause, (redis.AuthenticationError, redis.exceptions.AuthorizationError)):
                return cause
            cause = cause.__cause__ or cause.__context__
        return NoNode(str(error).removeprefix("Redis Cluster cannot be connected. "))

    def _check_layout(self, cluster: RedisCluster) -> None:
        """Before anything is written: is this cluster fit, and is it this bus that it holds?"""
        covered = len(cluster.nodes_manager.slots_cache)
        if covered < SLOTS:
            self._is_outdated = True
            raise NoNode(f"{SLOTS - covered} of the {SLOTS} slots have no node; see redis-cli --cluster check")
        slot = slot_of(LAYOUT_KEY)
        place = _owner(cluster, slot)
        expected = f"{LAYOUT_VERSION} {self.url.partitions}"
        try:
            found = self._run_layout(self._to(place), expected).decode(errors="replace")
        except (redis.RedisError, OSError):
            self._is_outdated = True
            raise
        if found != expected:
            raise InvalidOption("url", self._other_layout(found))
        self._has_layout = True

    def _run_layout(self, connections: Connections, expected: str) -> Any:
        command = (b"EVALSHA", CLUSTER_LAYOUT.sha, 1, LAYOUT_KEY, expected)
        try:
            return connections.call(command)
        except NoScriptError:
            connections.call((b"SCRIPT", b"LOAD", CLUSTER_LAYOUT.text))
            return connections.call(command)

    def _other_layout(self, found: str) -> str:
        version, _, partitions = found.partition(" ")
        if version != str(LAYOUT_VERSION) or not partitions.isdecimal():
            return (
                f"the {self.url.where} holds a bus of the layout {found!r:.40}, and this version knows layout "
                f"{LAYOUT_VERSION}: use the version of messagebus that wrote it, or another cluster"
            )
        return (
            f"the {self.url.where} holds a bus of {partitions} partitions, and the URL asks for {self.url.partitions}: "
            f"give ?partitions={partitions}; or, to begin an empty bus of {self.url.partitions}, end all its "
            f"processes, and run Bus.reset() once with ?partitions={partitions}"
        )

    def _to(self, place: Place) -> Connections:
        try:
            return self._connections[place]
        except KeyError:
            arguments = {**self.url.arguments, "host": place[0], "port": place[1]}
            made = Connections(self.url.connection_class, arguments, self._timeout)
            return self._connections.setdefault(place, made)


def _owner(cluster: RedisCluster, slot: int) -> Place:
    try:
        node = cluster.nodes_manager.get_node_from_slot(slot)
    except RedisClusterException as error:
        raise NoNode(str(error)) from error
    return node.host, node.port


def _owner_if_any(cluster: RedisCluster, slot: int) -> Place | None:
    try:
        return _owner(cluster, slot)
    except NoNode:
        return None


def translate(error: Exception, where: str) -> Meaning:
    """What an error of redis-py means on a cluster."""
    if isinstance(error, redis.exceptions.AskError):  # MovedError is one
        if isinstance(error, redis.exceptions.MovedError):
            return Moved(where, error)
        # The slot is on the move. A publish takes keys that are there and such that are not yet, so no node of the two
        # can run it before all have arrived.
        return BackendUnavailable(f"Redis at {where} is on the move to another node", "busy")
    return explain(error, where)
