"""The listening side of a bus: reactor, hub, feed and callbacks, and how they are connected.

Made on first use, and again in a forked child, never earlier: a module that is imported before
``gevent.monkey.patch_all()``, or in a server's parent process, may hold a bus.
"""

from __future__ import annotations

import logging
import sys
import threading
from _thread import allocate_lock
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from itertools import islice
from typing import Protocol

from ..errors import SHUTDOWN, BackendUnavailable, BusClosed
from ..loop.jobs import Jobs
from ..loop.reactor import Reactor
from ..message import Message
from ..names import subscription_name
from ..options import Options
from ..publishing.publisher import Publisher
from ..publishing.rate_limits import PublishLimits
from ..publishing.transient import TRANSIENT
from ..stores import BacklogQuery, Feed, Listener, StoreState, Trace
from .audience import Audiences
from .backlog_reader import PATIENCE, BacklogReader
from .callbacks import Callbacks
from .epochs import Named
from .following import Following
from .history import Cursor, HistoryView, covers, query_for
from .hub import Hub
from .lineage import judged
from .orders import DISCONNECT, UNSUBSCRIBE
from .permissions import Access
from .presence import Presence
from .rechecks import AT_ONCE, Rechecks
from .request_times import RequestTimes
from .revoking import Revoking
from .subscribe_request import SubscribeRequest, SubscriptionPlan
from .talks import Talks
from .viewers import WATCH, Viewers
from .workers import FORGET, Workers

logger = logging.getLogger("messagebus.hub")

MAX_PENDING = 100
"""Pieces of the feed, each as much as was read at once, that may wait for the loop."""
FILES_LEFT_TO_THE_APP = 100
"""Open files that are reserved for the server, the application and the store."""


class Guest(Protocol):
    """What lives as long as a node, and has to be ended with the subscribers. From any thread."""

    def finish(self, timeout: float) -> None:
        """End it, and wait for that up to ``timeout`` seconds."""

    def finish_here(self, timeout: float) -> None:
        """The same when the interpreter ends, and no other thread may begin."""


class Node(Listener):
    """See the module. Its methods are safe from any thread or greenlet."""

    def __init__(self, publisher: Publisher, callbacks: Callbacks, access: Access) -> None:
        options = self.options = publisher.options
        self.access = access
        self.store = store = publisher.store
        self.publisher = publisher
        self.publish = publisher.publish_one  # for clients that may
        self.publish_limits = PublishLimits()
        self.admin: object = None
        """What it does for admin pages, where those are on: see ``admin.feed``."""
        self.request_times = RequestTimes()
        self.reactor = Reactor()
        self.command_jobs = Jobs(options.command_threads, "messagebus-command")
        """Where commands of clients may block: apart from the bus's own reading, which no slow hook must hold up."""
        self.talks = Talks(options.max_talks)
        """The application's code that serves connections of its own."""
        self.hub = Hub(options, self.reactor, _capacity(options), access, self.report, store.partitions)
        self._readers = [
            BacklogReader(store, options.store_timeout, self._absorb, self.reactor.clock)
            for _ in range(store.partitions)
        ]
        """One for each partition: one that is away holds up no readings of the others."""
        self.hub.pacer.read_missing = self._read_missing
        self.hub.dispatcher.went_back = self._channel_went_back
        self.workers = Workers(self.store, self.reactor)
        self.workers.on_question("why", self.hub.trail.answer)
        self.workers.on(FORGET, self.hub.windows.forget)
        self.workers.on(TRANSIENT, self.hub.transients.hear)
        self.viewers = Viewers(self.workers.id, self.hub.membership, self.reactor, self.workers.tell_soon)
        self.workers.on(WATCH, self.viewers.watch)
        self._recheck_jobs = Jobs(AT_ONCE, "messagebus-recheck")
        self.hub.recheck = Rechecks(self.hub, self._recheck_jobs.start).begin
        revoking = Revoking(self.hub)
        self.workers.on(DISCONNECT, revoking.disconnect)
        self.workers.on(UNSUBSCRIBE, revoking.unsubscribe)
        self.audiences = Audiences(
            self.workers, self.hub.membership, self.hub.windows, self.request_times, self.reactor
        )
        self.presence = Presence(
            self.hub.attendance,
            access.presence,
            self.workers,
            self.store,
            self.reactor,
            self.hub.membership,
            self.hub.dispatcher.tell,
            self.report,
        )
        self.callbacks = callbacks
        callbacks.limit = options.callback_queue_size
        callbacks.tracing = options.tracing
        callbacks.partitions = store.partitions
        callbacks.went_back = self.renew_epoch
        self.following = Following(self.store, options, self.hub.windows, callbacks, self.reactor)
        self.away: set[int] = set()
        """The partitions whose feed is not connected."""
        self.seen = list(range(store.partitions))
        """The last global id that the feed has delivered of each partition."""
        self._renewing: set[int] = set()
        self._owes_epoch: set[int] = set()
        self.guests: dict[str, Guest] = {}
        """By name; added before it serves."""
        self.on_poll: Callable[[str], object] | None = None
        """Called with the id of each client that polls, in the request's thread. Must be quick."""
        self._rules = () if all(rule.stored for rule in options.channels) else options.channels
        self.says_that_it_is_alone = options.url.startswith("memory:")
        """Whether a word is due where the server has several processes, and each has a store of its own."""
        self._handed_over = [0] * store.partitions
        self._dispatched = [0] * store.partitions
        self._feeds_that_wait: set[int] = set()
        self._loop_has_room = threading.Event()
        self._feed_has_spoken = threading.Event()
        self._waited = False
        self._begun = allocate_lock()  # taken by the first partition, and kept
        self._ask_epoch_at = 0.0
        self._other_epoch = threading.Event()
        """Set, and replaced, when the hub has come to another epoch."""
        self._feed: Feed | None = None

    def start(self) -> None:
        """Start the loop and the feed; waits for neither."""
        self.reactor.start()
        self._feed = self.store.listen(self, self.following.interest)

    def say_that_it_is_alone(self) -> None:
        """Warn, once, that other processes of the same server do not hear this one."""
        self.says_that_it_is_alone = False
        logger.warning(
            "the server has several processes, and memory:// is each one's own: what one publishes, clients of the "
            "others do not hear; set MESSAGEBUS_URL to a store that they share: sqlite:////var/lib/myapp/bus.db (one "
            "host, no server) or redis://127.0.0.1:6379/0"
        )

    def start_callbacks(self) -> None:
        self.callbacks.start(self.store, self.report)

    def report(self, error: Exception, where: str) -> None:
        """Report that a user's function has failed, when there is no caller to tell."""
        logger.error("%s failed", where, exc_info=error)
        if self.options.on_error is not None:
            try:
                self.options.on_error(error, where)
            except Exception:
                logger.exception("on_error failed")

    def stop(self, timeout: float) -> None:
        """Close everything cleanly: disconnect subscribers, end threads. Waits up to ``timeout`` seconds for each."""
        self.callbacks.stop(timeout)
        self.presence.stop()
        self.workers.stop()
        if self._feed is not None:
            self._feed.close()
        self.end_subscribers(timeout)
        left = self.talks.wait(timeout)
        if left:
            logger.warning("%d sockets of the application's own have ended, and their code still runs", left)
        self.command_jobs.stop()
        self._recheck_jobs.stop()
        self.reactor.stop()

    def end_subscribers(self, timeout: float, over: float = 0) -> None:
        """Close every subscriber's connection cleanly, and wait up to ``timeout`` seconds for the last byte. Now, and
        refuse new ones; or have them move elsewhere within ``over`` seconds first."""
        done = threading.Event()
        self.reactor.call_soon(self.hub.shut_down, SHUTDOWN, done.set, over)
        done.wait(timeout + over)
        for guest in self.guests.values():
            guest.finish(timeout)

    def turn_away(self) -> None:
        """Close every subscriber's connection cleanly, without waiting."""
        self.reactor.call_soon(self.hub.end_all, SHUTDOWN)

    def after_fork(self) -> None:
        """In a child: drop what belongs to the parent."""
        self.reactor.abandon()

    # --- the feed's listener ---

    def started(self, state: StoreState) -> None:
        partition = self._see(state.global_id)
        self.following.look(partition)
        self.hub.start(state)
        self._feed_has_spoken.set()
        if self._begun.acquire(False):
            self.workers.start()
            self.presence.start()
        # Only the store has what was published after a callback had read its backlog and before the feed was connected.
        self.callbacks.resync(False, partition)

    def _see(self, global_id: int) -> int:
        """The feed has come so far. Returns in which partition."""
        partition = global_id % len(self.seen)
        self.seen[partition] = global_id
        return partition

    def received(self, messages: Sequence[Message]) -> None:
        partition = self._see(messages[-1].global_id)
        self._handed_over[partition] += 1
        self.reactor.call_soon(self._dispatch, messages, partition)
        self.callbacks.received(messages)
        # In memory the publisher itself calls, holding the store's lock, which the loop may want.
        if self.store.shared and self._pending(partition) > MAX_PENDING:
            self._wait_for_the_loop(partition)

    def _pending(self, partition: int) -> int:
        return self._handed_over[partition] - self._dispatched[partition]

    def _dispatch(self, messages: Sequence[Message], partition: int) -> None:
        try:
            self.hub.dispatch(messages)
        finally:
            self._dispatched[partition] += 1
            if partition in self._feeds_that_wait and self._pending(partition) <= MAX_PENDING // 2:
                self._loop_has_room.set()

    def _wait_for_the_loop(self, partition: int) -> None:
        """Let the feed wait until the loop has caught up: what comes meanwhile waits in the store, within its limit."""
        self._feeds_that_wait.add(partition)
        while self._pending(partition) > MAX_PENDING // 2 and not self.reactor.stopped:
            self._loop_has_room.wait(1.0)
            self._loop_has_room.clear()
        self._feeds_that_wait.discard(partition)

    def resync(self, state: StoreState) -> None:
        before = self.seen[state.global_id % len(self.seen)]
        partition = self._see(state.global_id)
        reset = state.global_id < before or state.epoch != self.hub.epochs[partition]
        self.following.look(partition)
        self.reactor.call_soon(self.hub.resync, state)
        self.reactor.call_soon(self._epoch_is_there)
        self.callbacks.resync(reset, partition)

    def renewed(self, state: StoreState) -> None:
        self.reactor.call_soon(self.hub.renewed, state)
        self.reactor.call_soon(self._epoch_is_there)

    def _epoch_is_there(self) -> None:
        event, self._other_epoch = self._other_epoch, threading.Event()
        event.set()

    def caught_up(self, global_id: int, wanted: Sequence[tuple[str, object]]) -> None:
        self._see(global_id)
        read_from = self.reactor.clock()
        self.reactor.call_soon(self.hub.caught_up, global_id, self.following.hear(wanted), read_from)

    @property
    def is_healthy(self) -> bool:
        """Whether the store's feed is connected, in all partitions."""
        return not self.away

    def healthy(self, healthy: bool, partition: int = 0) -> None:
        (self.away.discard if healthy else self.away.add)(partition)
        self._readers[partition].set_away(not healthy)
        if partition == 0:  # which has the workers' reports
            self.presence.store_answers(healthy)
        self._feed_has_spoken.set()
        if healthy and partition in self._owes_epoch:
            self.renew_epoch(partition)

    def announced(self, texts: Sequence[str]) -> None:
        for text in texts:
            self.workers.announced(text)

    def newest(self) -> Sequence[Trace]:
        return [*self.callbacks.newest(), *map(Trace.of, self.hub.windows.newest())]

    def renew_epoch(self, partition: int = 0) -> None:
        """Give a partition another epoch, because a channel's ids started again. The feed notices that, and calls
        ``resync``. From any thread; does not wait."""
        if partition not in self._renewing:
            self._renewing.add(partition)
            self._owes_epoch.add(partition)
            self.reactor.spawn(partial(self._renew_epoch, partition))

    def _channel_went_back(self, name: str, last_id: int | None) -> None:
        if last_id is None:
            self.renew_epoch(self.store.partition_of(name))
        else:
            self.reactor.spawn(partial(self._check_channel, name, last_id))

    def _check_channel(self, name: str, last_id: int) -> None:
        try:
            [now] = self.store.last_ids([name])
        except (BackendUnavailable, BusClosed):
            return  # a feed that comes back compares as well
        if now < last_id:
            self.renew_epoch(self.store.partition_of(name))

    def _renew_epoch(self, partition: int) -> None:
        try:
            epoch = self.hub.epochs[partition] or self.store.state(partition).epoch
            self.store.renew_epoch(epoch, partition)
            self._owes_epoch.discard(partition)
        except BackendUnavailable:
            pass  # when it is back
        except BusClosed:
            self._owes_epoch.discard(partition)
        finally:
            self._renewing.discard(partition)

    # --- requests ---

    def plan(self, request: SubscribeRequest) -> SubscriptionPlan:
        """Read from the store what is needed to know what is due. Blocks: for the store, for the feed on first use, and
        until the loop has dispatched what the feed has received.

        Raises:
            BackendUnavailable: The store gave no answer.
            BusClosed: The hub is ending.
        """
        partitions = self._partitions_of(request)
        self._wait_until_ready(partitions)
        if self.hub.is_shutting_down:
            raise BusClosed("the server is shutting down, come back")
        self._wait_for_dispatch(partitions)
        if ahead := self._ahead(request.cursors(self.hub.epochs, self._rules)) - self.away:
            self.following.catch_up(ahead)
        watches = request.watches()
        if watches:
            self.presence.wait_for(watches)
        if self.store.shared:
            named = self.hub.epochs.named(request.params.epoch)
            for each in partitions:
                if named.is_over(each) and named.shared(each) is None:
                    self._wait_for_epoch(each, named, is_clients=True)
        plan = self._read(request)
        while self._is_of_another_epoch(plan):
            plan = self._read(request)
        return plan._replace(watches=watches)

    def _is_of_another_epoch(self, plan: SubscriptionPlan) -> bool:
        """Whether what somebody has seen, and this process has not, is of another epoch; it has come to that now."""
        named = self.hub.epochs.named(plan.epoch)
        ahead = [each % len(self.seen) for each in plan.seen if not self.hub.has_reached((each,))]
        return any(self._wait_for_epoch(each, named) for each in ahead)

    def _wait_for_epoch(self, partition: int, named: Named, *, is_clients: bool = False) -> bool:
        """Wait until the feed has come to the epoch of a partition, if it is another one than this process's: what a
        client has seen elsewhere, and what is read, may be of that one. Returns whether that was so. ``is_clients``:
        what is named is a client's, who must have seen the store's for it to matter."""
        other = self._other_epoch
        here, there = self.hub.epochs[partition], self.store.state(partition).epoch
        if there in (None, here) or named[partition] is None or named.is_same(partition, there) is not is_clients:
            return False
        until = self.reactor.clock() + min(PATIENCE, self.options.store_timeout)
        while not other.wait(max(0.0, until - self.reactor.clock())) or self.hub.epochs[partition] == here:
            if self.reactor.clock() >= until:
                raise BackendUnavailable("this process does not know yet what became of the store")
            other = self._other_epoch  # it was that of another partition
        return True

    def plan_at_once(self, request: SubscribeRequest) -> SubscriptionPlan | None:
        """The plan, if nothing has to be read over the network; otherwise ``None``. Never blocks."""
        watches = request.watches()
        if not self._knows(request) or not self.presence.knows(watches):
            return None
        return self._read(request)._replace(watches=watches)

    def has_started(self) -> bool:
        """Whether the feed is connected. The first call waits a moment for it."""
        if not self.hub.ready.is_set() and not self._waited:
            self.hub.ready.wait(min(1.0, self.options.store_timeout))
            self._waited = True
        return self.hub.ready.is_set()

    def _partitions_of(self, request: SubscribeRequest) -> Collection[int]:
        """Those that have a channel of the request, or the first: no request is served before the feed has begun."""
        if self.store.partitions == 1:
            return (0,)
        names = [subscription_name(channel, request.site_id) for channel in request.params.positions]
        return self.hub.windows.partitions_of(names) or (0,)

    def _wait_until_ready(self, partitions: Iterable[int]) -> None:
        started = self.hub.started
        if all(started[each].is_set() for each in partitions):  # to wait takes a lock in any case
            return
        patience = min(PATIENCE, self.options.store_timeout)
        # That the store cannot be reached is told here as well, so that only the first requests wait for it.
        self._feed_has_spoken.wait(patience)
        until = self.reactor.clock() + patience
        for each in partitions:
            if each not in self.away and self.store.partitions > 1:  # others may have spoken, and this one not yet
                started[each].wait(max(0.0, until - self.reactor.clock()))
            if not started[each].is_set():
                raise BackendUnavailable(f"the store gave no answer within {patience:g} s")

    def _wait_for_dispatch(self, partitions: Iterable[int]) -> None:
        """A poll sees what its own process has published."""
        reached = self.hub.windows.reached
        if any(reached[each] < self.seen[each] for each in partitions):
            done = threading.Event()
            self.reactor.call_soon(done.set)
            done.wait(1.0)

    def _knows(self, request: SubscribeRequest) -> bool:
        if not self.store.shared:
            return True
        hub = self.hub
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
        return {after % len(self.seen) for after in afters if not self.hub.has_reached((after,))}

    def _read(self, request: SubscribeRequest) -> SubscriptionPlan:
        for each in self._partitions_of(request):
            if self.hub.epochs[each] is None:
                self._learn_epoch(each)
        epochs = self.hub.epochs.copy()
        cursors = request.cursors(epochs, self._rules)
        if any(cursor.shared is not None for cursor in cursors):
            cursors = judged(cursors, self._window_of, self._read_backlogs)
        if ahead := self._ahead(cursors):
            # Another process is ahead of this one, or the store was reset.
            newest = {each: self.store.state(each).global_id for each in ahead}
            number = len(self.seen)
            cursors = [
                c._replace(stale=True) if c.after is not None and c.after > newest.get(c.after % number, c.after) else c
                for c in cursors
            ]
        if self.options.http_publishing:
            self.request_times.note([cursor.name for cursor in cursors], self.reactor.clock())
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
                partition = global_id % len(self.seen)
                seen[partition] = max(global_id, seen.get(partition, 0))
        if more:
            pages |= self._read_backlogs(more)
        epoch = epochs.text(self.hub.windows.partitions_of([cursor.name for cursor in cursors]))
        return SubscriptionPlan(request, cursors, pages, [*seen.values()], epoch=epoch)

    def _window_of(self, name: str) -> HistoryView | None:
        window = self.hub.windows.find(name)
        return None if window is None else window.state

    def _read_backlogs(self, queries: Sequence[BacklogQuery]) -> dict[str, HistoryView]:
        # One partition after the other: nearly always there are a few at most, and most of what is asked for is known.
        by_partition: dict[int, list[BacklogQuery]] = {}
        for query in queries:
            by_partition.setdefault(self.store.partition_of(query.name), []).append(query)
        found: dict[str, HistoryView] = {}
        for partition, theirs in by_partition.items():
            found |= self._readers[partition].read(theirs)
        return found

    def _read_pages(self, cursors: Sequence[Cursor]) -> dict[str, HistoryView]:
        """Read what these cursors need, in one round trip for all of them."""
        windows = self.hub.windows
        queries = []
        self.following.enter([cursor.name for cursor in cursors], self.away)  # before they are read, see there
        for cursor in cursors:
            if windows.knows(cursor):
                continue
            view = windows.covering(cursor)
            if view is None:
                queries.append(query_for(cursor))
            elif not self._readers[self.store.partition_of(cursor.name)].is_away:
                # What is known may have expired: the store is asked for nothing but how long it lasts. Where it is
                # away, that is served which was there last.
                queries.append(BacklogQuery(cursor.name, view.last_id))
        return self._read_backlogs(queries) if queries else {}

    def _read_missing(self, missing: Sequence[Cursor]) -> None:
        self.following.enter([cursor.name for cursor in missing], self.away)
        self._read_backlogs([BacklogQuery(cursor.name, cursor.position) for cursor in missing])

    def _absorb(self, name: str, page: HistoryView) -> None:
        self.reactor.call_soon(self.hub.windows.absorb, name, page)

    def _learn_epoch(self, partition: int) -> None:
        # An empty store has none: the first publish makes it, unheard by the feed. Nor has a store that only other
        # programs publish to, so that this is asked once a second at most.
        now = self.reactor.clock()
        if self.seen[partition] >= len(self.seen) and now >= self._ask_epoch_at:
            self._ask_epoch_at = now + 1.0
            self.hub.epochs[partition] = self.store.state(partition).epoch


def _query_after(cursor: Cursor, page: HistoryView | None) -> BacklogQuery | None:
    """What else has to be read of a channel, as its first page shows."""
    if page is None or covers(page, cursor):
        return None
    if cursor.position > page.last_id:
        # In the same epoch this is a position of another life of the store: such a client is given everything.
        return BacklogQuery(cursor.name, 0) if cursor.strict else None
    # The page ended with the message before those that are due, or was only asked for how long they last.
    return BacklogQuery(cursor.name, cursor.position) if cursor.position >= page.through > 0 else None


def _capacity(options: Options) -> int:
    """Subscribers that this process can hold: as many as it may, and as it may open files."""
    if sys.platform == "win32":
        return options.max_active_clients
    import resource

    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files == resource.RLIM_INFINITY:
        return options.max_active_clients
    return max(0, min(options.max_active_clients, files - FILES_LEFT_TO_THE_APP))
