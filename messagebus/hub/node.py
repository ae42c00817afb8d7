"""The listening side of a bus: reactor, hub, feed and callbacks, and how they are connected.

Made on first use, and again in a forked child, never earlier: a module that is imported before
``gevent.monkey.patch_all()``, or in a server's parent process, may hold a bus.
"""

from __future__ import annotations

import logging
import sys
import threading
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
from ..stores import BacklogQuery, Feed, Listener, StoreState, Trace
from .audience import Audiences
from .backlog_reader import PATIENCE, BacklogReader
from .callbacks import Callbacks
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
        self.store = publisher.store
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
        self.hub = Hub(options, self.reactor, _capacity(options), access, self.report)
        self._reader = BacklogReader(self.store, options.store_timeout, self._absorb, self.reactor.clock)
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
        callbacks.went_back = self.renew_epoch
        self.following = Following(self.store, options, self.hub.windows, callbacks, self.reactor)
        self.is_healthy = True
        """Whether the store's feed is connected."""
        self.seen_id = 0
        """The last global id that the feed has delivered."""
        self._renewing = False
        self._owes_epoch = False
        self.guests: dict[str, Guest] = {}
        """By name; added before it serves."""
        self.on_poll: Callable[[str], object] | None = None
        """Called with the id of each client that polls, in the request's thread. Must be quick."""
        self._rules = () if all(rule.stored for rule in options.channels) else options.channels
        self.says_that_it_is_alone = options.url.startswith("memory:")
        """Whether a word is due where the server has several processes, and each has a store of its own."""
        self._handed_over = self._dispatched = 0
        self._feed_waits = False
        self._loop_has_room = threading.Event()
        self._feed_has_spoken = threading.Event()
        self._waited = False
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
        self.seen_id = state.global_id
        self.following.look()
        self.hub.start(state)
        self._feed_has_spoken.set()
        self.workers.start()
        self.presence.start()
        # Only the store has what was published after a callback had read its backlog and before the feed was connected.
        self.callbacks.resync(reset=False)

    def received(self, messages: Sequence[Message]) -> None:
        self.seen_id = messages[-1].global_id
        self._handed_over += 1
        self.reactor.call_soon(self._dispatch, messages)
        self.callbacks.received(messages)
        # In memory the publisher itself calls, holding the store's lock, which the loop may want.
        if self.store.shared and self._handed_over - self._dispatched > MAX_PENDING:
            self._wait_for_the_loop()

    def _dispatch(self, messages: Sequence[Message]) -> None:
        try:
            self.hub.dispatch(messages)
        finally:
            self._dispatched += 1
            if self._feed_waits and self._handed_over - self._dispatched <= MAX_PENDING // 2:
                self._loop_has_room.set()

    def _wait_for_the_loop(self) -> None:
        """Let the feed wait until the loop has caught up: what comes meanwhile waits in the store, within its limit."""
        self._feed_waits = True
        while self._handed_over - self._dispatched > MAX_PENDING // 2 and not self.reactor.stopped:
            self._loop_has_room.wait(1.0)
            self._loop_has_room.clear()
        self._feed_waits = False

    def resync(self, state: StoreState) -> None:
        reset = state.global_id < self.seen_id or state.epoch != self.hub.epoch
        self.seen_id = state.global_id
        self.following.look()
        self.reactor.call_soon(self.hub.resync, state)
        self.reactor.call_soon(self._epoch_is_there)
        self.callbacks.resync(reset)

    def renewed(self, state: StoreState) -> None:
        self.reactor.call_soon(self.hub.renewed, state)
        self.reactor.call_soon(self._epoch_is_there)

    def _epoch_is_there(self) -> None:
        event, self._other_epoch = self._other_epoch, threading.Event()
        event.set()

    def caught_up(self, global_id: int, wanted: Sequence[tuple[str, object]]) -> None:
        self.seen_id = global_id
        read_from = self.reactor.clock()
        self.reactor.call_soon(self.hub.caught_up, global_id, self.following.hear(wanted), read_from)

    def healthy(self, healthy: bool, partition: int = 0) -> None:
        self.is_healthy = healthy
        self._reader.set_away(not healthy)
        self.presence.store_answers(healthy)
        self._feed_has_spoken.set()
        if healthy and self._owes_epoch:
            self.renew_epoch()

    def announced(self, texts: Sequence[str]) -> None:
        for text in texts:
            self.workers.announced(text)

    def newest(self) -> Sequence[Trace]:
        return [*self.callbacks.newest(), *map(Trace.of, self.hub.windows.newest())]

    def renew_epoch(self) -> None:
        """Give the store another epoch, because a channel's ids started again. The feed notices that, and calls
        ``resync``. From any thread; does not wait."""
        if not self._renewing:
            self._renewing = self._owes_epoch = True
            self.reactor.spawn(self._renew_epoch)

    def _channel_went_back(self, name: str, last_id: int | None) -> None:
        if last_id is None:
            self.renew_epoch()
        else:
            self.reactor.spawn(partial(self._check_channel, name, last_id))

    def _check_channel(self, name: str, last_id: int) -> None:
        try:
            [now] = self.store.last_ids([name])
        except (BackendUnavailable, BusClosed):
            return  # a feed that comes back compares as well
        if now < last_id:
            self.renew_epoch()

    def _renew_epoch(self) -> None:
        try:
            self.store.renew_epoch(self.hub.epoch or self.store.state().epoch)
            self._owes_epoch = False
        except BackendUnavailable:
            pass  # when it is back
        except BusClosed:
            self._owes_epoch = False
        finally:
            self._renewing = False

    # --- requests ---

    def plan(self, request: SubscribeRequest) -> SubscriptionPlan:
        """Read from the store what is needed to know what is due. Blocks: for the store, for the feed on first use, and
        until the loop has dispatched what the feed has received.

        Raises:
            BackendUnavailable: The store gave no answer.
            BusClosed: The hub is ending.
        """
        self._wait_until_ready()
        if self.hub.is_shutting_down:
            raise BusClosed("the server is shutting down, come back")
        self._wait_for_dispatch()
        if self.is_healthy and self._is_behind(request.cursors(self.hub.epoch, self._rules)):
            self.following.catch_up()
        watches = request.watches()
        if watches:
            self.presence.wait_for(watches)
        if self.store.shared and not self._knows_epoch_of(request):
            self._wait_for_epoch(request.params.epoch, is_clients=True)
        plan = self._read(request)
        while plan.global_id > self.hub.global_id and self._wait_for_epoch(plan.epoch):
            plan = self._read(request)
        return plan._replace(watches=watches)

    def _knows_epoch_of(self, request: SubscribeRequest) -> bool:
        epoch, hub = request.params.epoch, self.hub
        return not epoch or hub.epoch in (None, epoch) or epoch in hub.windows.lineage

    def _wait_for_epoch(self, epoch: str | None, *, is_clients: bool = False) -> bool:
        """Wait until the feed has come to the store's epoch, if it is another one than this process's: what a client
        has seen elsewhere, and what is read, may be of that one. Returns whether that was so. ``is_clients``: the epoch
        is a client's, who must have seen the store's for it to matter."""
        other = self._other_epoch
        here, there = self.hub.epoch, self.store.state().epoch
        if there in (None, here) or epoch is None or (there == epoch) is not is_clients:
            return False
        if not other.wait(min(PATIENCE, self.options.store_timeout)):
            raise BackendUnavailable("this process does not know yet what became of the store")
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

    def _wait_until_ready(self) -> None:
        ready = self.hub.ready
        if ready.is_set():  # to wait takes a lock in any case
            return
        patience = min(PATIENCE, self.options.store_timeout)
        # That the store cannot be reached is told here as well, so that only the first requests wait for it.
        self._feed_has_spoken.wait(patience)
        if not ready.is_set():
            raise BackendUnavailable(f"the store gave no answer within {patience:g} s")

    def _wait_for_dispatch(self) -> None:
        """A poll sees what its own process has published."""
        if self.hub.global_id < self.seen_id:
            done = threading.Event()
            self.reactor.call_soon(done.set)
            done.wait(1.0)

    def _knows(self, request: SubscribeRequest) -> bool:
        if not self.store.shared:
            return True
        hub = self.hub
        cursors = request.cursors(hub.epoch, self._rules)
        if hub.epoch is None or self._is_behind(cursors) or not self._knows_epoch_of(request):
            return False
        return request.params.epoch in (None, "", hub.epoch) and all(map(hub.windows.knows, cursors))

    def _is_behind(self, cursors: Sequence[Cursor]) -> bool:
        return any(cursor.after is not None and cursor.after > self.hub.global_id for cursor in cursors)

    def _read(self, request: SubscribeRequest) -> SubscriptionPlan:
        if self.hub.epoch is None:
            self._learn_epoch()
        epoch = self.hub.epoch
        cursors = request.cursors(epoch, self._rules, self.hub.windows.lineage)
        if any(cursor.shared is not None for cursor in cursors):
            cursors = judged(cursors, self._window_of, self._reader.read)
        if self._is_behind(cursors):
            # Another process is ahead of this one, or the store was reset.
            newest = self.store.state().global_id
            cursors = [c._replace(stale=True) if c.after is not None and c.after > newest else c for c in cursors]
        if self.options.http_publishing:
            self.request_times.note([cursor.name for cursor in cursors], self.reactor.clock())
        pages = self._read_pages(cursors)
        more = [query for cursor in cursors if (query := _query_after(cursor, pages.get(cursor.name))) is not None]
        global_id = 0
        for cursor in cursors:
            page = pages.get(cursor.name)
            if page is not None:
                # Its own newest message where the store still has that, the one after it otherwise.
                seen = (m.global_id for m in page.messages if 0 < cursor.position <= m.message_id)
                global_id = max(global_id, next(seen, 0))
            if cursor.after is not None and not cursor.stale:
                global_id = max(global_id, cursor.after)
        if more:
            pages |= self._reader.read(more)
        return SubscriptionPlan(request, cursors, pages, global_id, epoch=epoch)

    def _window_of(self, name: str) -> HistoryView | None:
        window = self.hub.windows.find(name)
        return None if window is None else window.state

    def _read_pages(self, cursors: Sequence[Cursor]) -> dict[str, HistoryView]:
        """Read what these cursors need, in one round trip for all of them."""
        windows = self.hub.windows
        queries = []
        self.following.enter([cursor.name for cursor in cursors], self.is_healthy)  # before they are read, see there
        for cursor in cursors:
            if windows.knows(cursor):
                continue
            view = windows.covering(cursor)
            if view is None:
                queries.append(query_for(cursor))
            elif not self._reader.is_away:
                # What is known may have expired: the store is asked for nothing but how long it lasts. Where it is
                # away, that is served which was there last.
                queries.append(BacklogQuery(cursor.name, view.last_id))
        return self._reader.read(queries) if queries else {}

    def _read_missing(self, missing: Sequence[Cursor]) -> None:
        self.following.enter([cursor.name for cursor in missing], self.is_healthy)
        self._reader.read([BacklogQuery(cursor.name, cursor.position) for cursor in missing])

    def _absorb(self, name: str, page: HistoryView) -> None:
        self.reactor.call_soon(self.hub.windows.absorb, name, page)

    def _learn_epoch(self) -> None:
        # An empty store has none: the first publish makes it, unheard by the feed. Nor has a store that only other
        # programs publish to, so that this is asked once a second at most.
        now = self.reactor.clock()
        if self.seen_id and now >= self._ask_epoch_at:
            self._ask_epoch_at = now + 1.0
            self.hub.epoch = self.store.state().epoch


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
