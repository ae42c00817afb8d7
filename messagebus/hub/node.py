"""The listening side of a bus: reactor, hub, feed and callbacks, and how they are connected.

Made on first use, and again in a forked child, never earlier: a module that is imported before
``gevent.monkey.patch_all()``, or in a server's parent process, may hold a bus.
"""

from __future__ import annotations

import logging
import sys
import threading
from _thread import allocate_lock
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

from ..errors import SHUTDOWN, BackendUnavailable, BusClosed
from ..loop.jobs import Jobs
from ..loop.reactor import Reactor
from ..message import Message
from ..options import Options
from ..publishing.publisher import Publisher
from ..publishing.rate_limits import PublishLimits
from ..publishing.transient import TRANSIENT
from ..stores import Feed, Listener, StoreState, Trace
from .audience import Audiences
from .callbacks import Callbacks
from .following import Following
from .hub import Hub
from .orders import DISCONNECT, UNSUBSCRIBE
from .permissions import Access
from .planner import Planner
from .presence import Presence
from .rechecks import AT_ONCE, Rechecks
from .request_times import RequestTimes
from .revoking import Revoking
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
        self._planner = Planner(
            store, options, self.hub, self.following, self.presence, self.request_times, self.seen, self.away
        )
        self.plan, self.plan_at_once = self._planner.plan, self._planner.plan_at_once
        self.hub.pacer.read_missing = self._planner.read_missing
        self._renewing: set[int] = set()
        self._owes_epoch: set[int] = set()
        self.guests: dict[str, Guest] = {}
        """By name; added before it serves."""
        self.on_poll: Callable[[str], object] | None = None
        """Called with the id of each client that polls, in the request's thread. Must be quick."""
        self.says_that_it_is_alone = options.url.startswith("memory:")
        """Whether a word is due where the server has several processes, and each has a store of its own."""
        self._handed_over = [0] * store.partitions
        self._dispatched = [0] * store.partitions
        self._feeds_that_wait: set[int] = set()
        self._loop_has_room = threading.Event()
        self._waited = False
        self._begun = allocate_lock()  # taken by the first partition, and kept
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
        self._planner.feed_has_spoken()
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
        self.reactor.call_soon(self._planner.epoch_is_there)
        self.callbacks.resync(reset, partition)

    def renewed(self, state: StoreState) -> None:
        self.reactor.call_soon(self.hub.renewed, state)
        self.reactor.call_soon(self._planner.epoch_is_there)

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
        self._planner.set_away(partition, not healthy)
        if partition == 0:  # which has the workers' reports
            self.presence.store_answers(healthy)
        self._planner.feed_has_spoken()
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

    def has_started(self) -> bool:
        """Whether the feed is connected. The first call waits a moment for it."""
        if not self.hub.ready.is_set() and not self._waited:
            self.hub.ready.wait(min(1.0, self.options.store_timeout))
            self._waited = True
        return self.hub.ready.is_set()


def _capacity(options: Options) -> int:
    """Subscribers that this process can hold: as many as it may, and as it may open files."""
    if sys.platform == "win32":
        return options.max_active_clients
    import resource

    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files == resource.RLIM_INFINITY:
        return options.max_active_clients
    return max(0, min(options.max_active_clients, files - FILES_LEFT_TO_THE_APP))
