"""The feed of a Redis Cluster: one thread for each node that has partitions (``redis_cluster_line``), and this one,
which finds a node for partitions that have none.

A partition that has lost its node, or has moved to another, is looked for until somebody has it; nobody waits for it
but those who follow it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence

from .. import forks
from ..options import Options
from .base import Listener, StoreState
from .interest import Interest
from .partition_gate import PartitionGate
from .redis_cluster_follower import Follower
from .redis_cluster_line import OUTAGES, ClusterLine
from .redis_cluster_nodes import ClusterNodes
from .redis_cluster_partition import Partition
from .redis_cluster_url import ClusterUrl, Place
from .sequencer import Gate

logger = logging.getLogger("messagebus.stores")

IDLE = 5.0
"""Seconds between two looks at the lines where nothing happens."""


class ClusterFeed:
    """A running feed. Begins with ``start``; under gevent's monkey patching its threads are greenlets."""

    def __init__(
        self,
        options: Options,
        url: ClusterUrl,
        listener: Listener,
        interest: Interest | None,
        came_back: Callable[[int], None],
    ) -> None:
        """``came_back``: called, from any thread, with the slot of a partition that is heard again and was away."""
        # With connections of its own for what it asks: however busy the others are, it goes on.
        self._nodes = ClusterNodes(url, options.store_timeout)
        self._url = url
        self._timeout = options.store_timeout
        self._came_back = came_back
        self._gate = Gate(listener)
        self._gates = [_Gate(listener, number, url.partitions, self._begins_anew) for number in range(url.partitions)]
        parts = interest.parts if interest is not None else [None] * url.partitions
        self._followers = [
            Follower(Partition(options, self._nodes, number), gate, part)
            for number, (gate, part) in enumerate(zip(self._gates, parts, strict=True))
        ]
        self._lock = threading.Lock()
        self._homeless = list(self._followers)
        self._lines: dict[Place, ClusterLine] = {}
        self._announcer: ClusterLine | None = None
        self._down: set[Follower] = set()
        self._is_anew = False
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="messagebus-feed", daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def closed(self) -> bool:
        return self._gate.is_shut

    def close(self) -> None:
        for gate in (self._gate, *self._gates):
            gate.shut()
        self._wake.set()
        with self._lock:
            lines = list(self._lines.values())
        for line in lines:
            line.close()
        # These time out only while a thread connects to a host that does not answer; then it may not call the listener.
        until = time.monotonic() + 1.0
        for thread in (self._thread, *[line.thread for line in lines]):
            if thread is not threading.current_thread() and thread.ident is not None:
                thread.join(max(until - time.monotonic(), 0.0))
        self._nodes.close()
        for follower in self._followers:
            follower.detach()

    def abandon(self) -> None:
        """In a child process, where the threads do not exist; but gevent greenlets do, and must do no more."""
        for gate in (self._gate, *self._gates):
            gate.shut_after_fork()
        self._lock = threading.Lock()
        self._wake = threading.Event()
        forks.leave_behind(self)
        for line in self._lines.values():
            forks.leave_behind(line)
            line.drop()
        self._nodes.after_fork()

    # --- the thread ---

    def _run(self) -> None:
        while not self.closed:
            pause = self._settle()
            self._wake.wait(pause)
            self._wake.clear()
        if forks.was_left_behind(self):
            forks.rest()

    def _settle(self) -> float:
        """Find lines for those that have none. Returns the seconds until somebody is due."""
        if self._is_anew:
            self._is_anew = False
            self._check_layout()
        now = time.monotonic()
        with self._lock:
            due = [follower for follower in self._homeless if follower.due <= now]
            self._homeless = [follower for follower in self._homeless if follower.due > now]
        for follower in due:
            if self.closed:
                break
            try:
                self._move_in(follower)
            except OUTAGES as error:
                self.left_line([follower], follower.source.explain(error) if _is_raw(error) else error)
        self._choose_announcer()
        with self._lock:
            return max(min([follower.due for follower in self._homeless], default=now + IDLE) - time.monotonic(), 0.0)

    def _move_in(self, follower: Follower) -> None:
        place = self._nodes.place(follower.source.slot)
        line = self._lines.get(place)
        if line is not None and line.adopt(follower):
            return
        line = ClusterLine(self, self._url, place, self._timeout, follower.source.announcements)
        line.adopt(follower)
        if self._announcer is None:
            self._announcer = line
            line.hear_announcements(True)
        with self._lock:
            self._lines[place] = line
        line.thread.start()

    def _choose_announcer(self) -> None:
        """Announcements reach all nodes; one line hears them, another where that one is gone or has become idle."""
        lines = [line for line in self._lines.values() if not line.has_ended]
        before = self._announcer
        if before is not None and before in lines and (before.carries or not any(line.carries for line in lines)):
            return
        if before is not None:
            before.hear_announcements(False)
        self._announcer = next((line for line in lines if line.carries), None)
        if self._announcer is not None:
            self._announcer.hear_announcements(True)

    # --- what the lines say ---

    def left_line(self, followers: Sequence[Follower], error: Exception | None) -> None:
        if self.closed:
            return
        now = time.monotonic()
        for follower in followers:
            (self._nodes.left if error is None else self._nodes.failed)(follower.source.slot)
            follower.due = now + follower.backoff.next()
        if error is not None:
            self._went_down(followers, error)
        with self._lock:
            self._homeless += followers
            self._lines = {place: line for place, line in self._lines.items() if not line.has_ended}
        self._wake.set()

    def _went_down(self, followers: Sequence[Follower], error: Exception) -> None:
        with self._lock:
            news = [follower for follower in followers if follower not in self._down]
            self._down.update(news)
        if not news:
            return
        # Waiting does not help against a refusal; a person has to act.
        level = logging.ERROR if getattr(error, "reason", None) == "forbidden" else logging.WARNING
        numbers = ", ".join(str(follower.source.number) for follower in news)
        words = "no feed of partition(s) %s from the Redis %s, trying until somebody has them: %s"
        logger.log(level, words, numbers, self._url.where, error)
        for follower in news:
            follower.gate.healthy(False)

    def came_up(self, follower: Follower) -> None:
        with self._lock:
            if follower not in self._down:
                return
            self._down.discard(follower)
            is_last = not self._down
        if is_last:
            # Wherever its beginning can be read, so can its end.
            logger.warning("the feed of all partitions from the Redis %s is back", self._url.where)
        follower.gate.healthy(True)
        self._came_back(follower.source.slot)

    def announced(self, texts: Sequence[str]) -> None:
        self._gate.announced(texts)

    def _begins_anew(self) -> None:
        self._is_anew = True
        self._wake.set()

    def _check_layout(self) -> None:
        """The bus was reset, and with it what the cluster knew of its layout."""
        try:
            self._nodes.check_layout()
        except OUTAGES as error:
            logger.error("the Redis %s: %s", self._url.where, error)


class _Gate(PartitionGate):
    def __init__(self, listener: Listener, partition: int, partitions: int, begins_anew: Callable[[], None]) -> None:
        super().__init__(listener, partition, partitions)
        self._begins_anew = begins_anew

    def resync(self, state: StoreState) -> None:
        super().resync(state)
        self._begins_anew()


def _is_raw(error: Exception) -> bool:
    return not hasattr(error, "reason")
