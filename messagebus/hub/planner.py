"""What a request is due: read from the store, where this process does not know it already.

Its methods are safe from any thread or greenlet.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable, Sequence, Set
from functools import partial
from itertools import islice

from ..errors import BackendUnavailable, BusClosed
from ..names import subscription_name
from ..options import Options
from ..stores import BacklogQuery, Store
from .backlog_reader import PATIENCE, BacklogReader, OtherEpoch
from .epochs import Named
from .following import Following
from .history import Cursor, HistoryView, covers, query_for
from .hub import Hub
from .lineage import judged
from .presence import Presence
from .request_times import RequestTimes
from .subscribe_request import SubscribeRequest, SubscriptionPlan

LOOK_AGAIN = 0.2
"""Seconds after which a store is read again that was of another epoch than this process: it may be the one that was
wrong."""


class Planner:
    """See the module. One for each node, which tells it what the feed says."""

    def __init__(
        self,
        store: Store,
        options: Options,
        hub: Hub,
        following: Following,
        presence: Presence,
        request_times: RequestTimes,
        seen: Sequence[int],
        away: Set[int],
    ) -> None:
        """``seen``: the last global id that the feed has delivered of each partition; ``away``: the partitions whose
        feed is not connected. Both are kept up to date by the node."""
        self._store = store
        self._options = options
        self._hub = hub
        self._following = following
        self._presence = presence
        self._request_times = request_times
        self._seen = seen
        self._away = away
        self._clock = hub.reactor.clock
        self._readers = [
            BacklogReader(
                store, options.store_timeout, self._absorb, self._clock, partial(hub.epochs.__getitem__, each)
            )
            for each in range(store.partitions)
        ]
        """One for each partition: one that is away holds up no readings of the others."""
        self._rules = () if all(rule.stored for rule in options.channels) else options.channels
        self._feed_has_spoken = threading.Event()
        self._ask_epoch_at = 0.0
        self._other_epoch = threading.Event()
        """Set, and replaced, when the hub has come to another epoch."""

    # --- from the node ---

    def feed_has_spoken(self) -> None:
        """The feed is connected, or knows that it cannot be: nobody has to wait for that any longer."""
        self._feed_has_spoken.set()

    def set_away(self, partition: int, is_away: bool) -> None:
        """Whether a partition's feed is not connected: then it is not read from, either, but for a try now and then."""
        self._readers[partition].set_away(is_away)

    def epoch_is_there(self) -> None:
        """The hub has come to another epoch. In the loop."""
        event, self._other_epoch = self._other_epoch, threading.Event()
        event.set()

    # --- for requests ---

    def plan(self, request: SubscribeRequest) -> SubscriptionPlan:
        """Read from the store what is needed to know what is due. Blocks: for the store, for the feed on first use, and
        until the loop has dispatched what the feed has received.

        Raises:
            BackendUnavailable: The store gave no answer.
            BusClosed: The hub is ending.
        """
        partitions = self._partitions_of(request)
        self._wait_until_ready(partitions)
        if self._hub.is_shutting_down:
            raise BusClosed("the server is shutting down, come back")
        self._wait_for_dispatch(partitions)
        if ahead := self._ahead(request.cursors(self._hub.epochs, self._rules)) - self._away:
            self._following.catch_up(ahead)
        watches = request.watches()
        if watches:
            self._presence.wait_for(watches)
        if self._store.shared:
            named = self._hub.epochs.named(request.params.epoch)
            for each in partitions:
                if named.is_over(each) and named.shared(each) is None:
                    self._wait_for_epoch(each, named, is_clients=True)
        plan = self._read_in_one_epoch(request)
        while self._is_of_another_epoch(plan):
            plan = self._read_in_one_epoch(request)
        return plan._replace(watches=watches)

    def _read_in_one_epoch(self, request: SubscribeRequest) -> SubscriptionPlan:
        """Read in the epoch that this process has come to, which the store may be ahead of for a moment."""
        until = self._clock() + min(PATIENCE, self._options.store_timeout)
        while True:
            other = self._other_epoch
            try:
                return self._read(request)
            except OtherEpoch:
                left = until - self._clock()
                if left <= 0:
                    raise
                other.wait(min(left, LOOK_AGAIN))

    def plan_at_once(self, request: SubscribeRequest) -> SubscriptionPlan | None:
        """The plan, if nothing has to be read over the network; otherwise ``None``. Never blocks."""
        watches = request.watches()
        if not self._knows(request) or not self._presence.knows(watches):
            return None
        return self._read(request)._replace(watches=watches)

    def _is_of_another_epoch(self, plan: SubscriptionPlan) -> bool:
        """Whether what somebody has seen, and this process has not, is of another epoch; it has come to that now."""
        named = self._hub.epochs.named(plan.epoch)
        ahead = [each % len(self._seen) for each in plan.seen if not self._hub.feed_wait.is_over((each,))]
        return any(self._wait_for_epoch(each, named) for each in ahead)

    def _wait_for_epoch(self, partition: int, named: Named, *, is_clients: bool = False) -> bool:
        """Wait until the feed has come to the epoch of a partition, if it is another one than this process's: what a
        client has seen elsewhere, and what is read, may be of that one. Returns whether that was so. ``is_clients``:
        what is named is a client's, who must have seen the store's for it to matter."""
        other = self._other_epoch
        here, there = self._hub.epochs[partition], self._store.state(partition).epoch
        if there in (None, here) or named[partition] is None or named.is_same(partition, there) is not is_clients:
            return False
        until = self._clock() + min(PATIENCE, self._options.store_timeout)
        while not other.wait(max(0.0, until - self._clock())) or self._hub.epochs[partition] == here:
            if self._clock() >= until:
                raise BackendUnavailable("this process does not know yet what became of the store")
            other = self._other_epoch  # it was that of another partition
        return True

    def _partitions_of(self, request: SubscribeRequest) -> Collection[int]:
        """Those that have a channel of the request, or the first: no request is served before the feed has begun."""
        if self._store.partitions == 1:
            return (0,)
        names = [subscription_name(channel, request.site_id) for channel in request.params.positions]
        return self._hub.windows.partitions_of(names) or (0,)

    def _wait_until_ready(self, partitions: Iterable[int]) -> None:
        started = self._hub.started
        if all(started[each].is_set() for each in partitions):  # to wait takes a lock in any case
            return
        patience = min(PATIENCE, self._options.store_timeout)
        # That the store cannot be reached is told here as well, so that only the first requests wait for it.
        self._feed_has_spoken.wait(patience)
        until = self._clock() + patience
        for each in partitions:
            if each not in self._away and self._store.partitions > 1:  # others may have spoken, and this one not yet
                started[each].wait(max(0.0, until - self._clock()))
            if not started[each].is_set():
                raise BackendUnavailable(f"the store gave no answer within {patience:g} s")

    def _wait_for_dispatch(self, partitions: Iterable[int]) -> None:
        """A poll sees what its own process has published."""
        reached = self._hub.windows.reached
        if any(reached[each] < self._seen[each] for each in partitions):
            done = threading.Event()
            self._hub.reactor.call_soon(done.set)
            done.wait(1.0)

    def _knows(self, request: SubscribeRequest) -> bool:
        if not self._store.shared:
            return True
        hub = self._hub
        partitions, epochs = self._partitions_of(request), hub.epochs
        if None in [epochs[each] for each in partitions]:
            return False
        named = epochs.named(request.params.epoch)
        if any(named.is_over(each) for each in partitions):
            return False
        cursors = request.cursors(epochs, self._rules)
        return not self._ahead(cursors) and all(map(hub.windows.knows, cursors))

    def _ahead(self, cursors: Sequence[Cursor]) -> set[int]:
        """The partitions in which somebody with these cursors is ahead of this process."""
        afters = [cursor.after for cursor in cursors if cursor.after is not None and not cursor.stale]
        return {after % len(self._seen) for after in afters if not self._hub.feed_wait.is_over((after,))}

    def _read(self, request: SubscribeRequest) -> SubscriptionPlan:
        for each in self._partitions_of(request):
            if self._hub.epochs[each] is None:
                self._learn_epoch(each)
        epochs = self._hub.epochs.copy()
        cursors = request.cursors(epochs, self._rules)
        if any(cursor.shared is not None for cursor in cursors):
            cursors = judged(cursors, self._window_of, self._read_backlogs)
        if ahead := self._ahead(cursors):
            # Another process is ahead of this one, or the store was reset.
            newest = {each: self._store.state(each).global_id for each in ahead}
            number = len(self._seen)
            cursors = [
                c._replace(stale=True) if c.after is not None and c.after > newest.get(c.after % number, c.after) else c
                for c in cursors
            ]
        if self._options.http_publishing:
            self._request_times.note([cursor.name for cursor in cursors], self._clock())
        pages = self._read_pages(cursors)
        more = [query for cursor in cursors if (query := _query_after(cursor, pages.get(cursor.name))) is not None]
        seen: dict[int, int] = {}
        for cursor in cursors:
            page = pages.get(cursor.name)
            found = [] if cursor.after is None or cursor.stale else [cursor.after]
            if page is not None:
                # Its own newest message where the store still has that, the one after it otherwise.
                found += islice((m.global_id for m in page.messages if 0 < cursor.position <= m.message_id), 1)
            for global_id in found:
                partition = global_id % len(self._seen)
                seen[partition] = max(global_id, seen.get(partition, 0))
        if more:
            pages |= self._read_backlogs(more)
        epoch = epochs.text(self._hub.windows.partitions_of([cursor.name for cursor in cursors]))
        return SubscriptionPlan(request, cursors, pages, [*seen.values()], epoch=epoch)

    def _window_of(self, name: str) -> HistoryView | None:
        window = self._hub.windows.find(name)
        return None if window is None else window.state

    def _read_backlogs(self, queries: Sequence[BacklogQuery]) -> dict[str, HistoryView]:
        # One partition after the other: nearly always there are a few at most, and most of what is asked for is known.
        by_partition: dict[int, list[BacklogQuery]] = {}
        for query in queries:
            by_partition.setdefault(self._store.partition_of(query.name), []).append(query)
        found: dict[str, HistoryView] = {}
        for partition, theirs in by_partition.items():
            found |= self._readers[partition].read(theirs)
        return found

    def _read_pages(self, cursors: Sequence[Cursor]) -> dict[str, HistoryView]:
        """Read what these cursors need, in one round trip for all of them."""
        windows = self._hub.windows
        queries = []
        self._following.enter([cursor.name for cursor in cursors], self._away)  # before they are read, see there
        for cursor in cursors:
            if windows.knows(cursor):
                continue
            view = windows.covering(cursor)
            if view is None:
                queries.append(query_for(cursor))
            elif not self._readers[self._store.partition_of(cursor.name)].is_away:
                # What is known may have expired: the store is asked for nothing but how long it lasts. Where it is
                # away, that is served which was there last.
                queries.append(BacklogQuery(cursor.name, view.last_id))
        return self._read_backlogs(queries) if queries else {}

    def read_missing(self, missing: Sequence[Cursor]) -> None:
        self._following.enter([cursor.name for cursor in missing], self._away)
        self._read_backlogs([BacklogQuery(cursor.name, cursor.position) for cursor in missing])

    def _absorb(self, name: str, page: HistoryView) -> None:
        self._hub.reactor.call_soon(self._hub.windows.absorb, name, page)

    def _learn_epoch(self, partition: int) -> None:
        # An empty store has none: the first publish makes it, unheard by the feed. Nor has a store that only other
        # programs publish to, so that this is asked once a second at most.
        now = self._clock()
        if self._seen[partition] >= len(self._seen) and now >= self._ask_epoch_at:
            self._ask_epoch_at = now + 1.0
            self._hub.epochs[partition] = self._store.state(partition).epoch


def _query_after(cursor: Cursor, page: HistoryView | None) -> BacklogQuery | None:
    """What else has to be read of a channel, as its first page shows."""
    if page is None or covers(page, cursor):
        return None
    if cursor.position > page.last_id:
        # In the same epoch this is a position of another life of the store: such a client is given everything.
        return BacklogQuery(cursor.name, 0) if cursor.strict else None
    # The page ended with the message before those that are due, or was only asked for how long they last.
    return BacklogQuery(cursor.name, cursor.position) if cursor.position >= page.through > 0 else None
