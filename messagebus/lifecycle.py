"""Startup, settings, forks and shutdown of a bus. Its parts are made on first use."""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import sys
import weakref
from _thread import allocate_lock
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from . import forks
from . import options as settings
from .errors import BusClosed
from .hub.permissions import Access
from .loop.poller import gevent_is_in_charge, refuse_eventlet
from .options import Options

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .hub.callbacks import Callbacks
    from .hub.node import Node
    from .option_values import OptionValues
    from .publishing.arguments import Dumps
    from .publishing.publisher import Publisher
    from .stores import Store

logger = logging.getLogger("messagebus")

STOP_SECONDS = 2.0
"""Limit for each step of closing: writing queued messages, a running callback, the last byte to the clients."""

_buses: weakref.WeakSet[Lifecycle] = weakref.WeakSet()
_unheard = 0
"""Messages that nobody can have got, see ``Store.unheard``; of buses that have ended."""


class Lifecycle:
    """Base of ``Bus``: settings, start, stop. Safe from any thread and greenlet."""

    def __init__(self, **options: Unpack[OptionValues]) -> None:
        """
        Raises:
            InvalidOption: A setting is unknown or out of range.
        """
        self._given: dict[str, Any] = settings.from_values(options)
        self._from_app: dict[str, Any] = {}
        self.serves_unequal_apps = False
        """Whether apps with different settings have registered the bus; the last app's are in force."""
        self._options: Options | None = None
        self._publisher: Publisher | None = None
        self._node: Node | None = None
        self._callbacks: Callbacks | None = None
        self._access = Access()
        self._dumps: Dumps | None = None
        self._closed = False
        self._rests = False
        """Whether the callbacks wait until this process begins to listen: copies of the parent's, or of an app that was
        only imported."""
        self._lock = allocate_lock()  # native: held while things are made, never across I/O or a greenlet switch
        if options:
            self._options = self._merge()
        _buses.add(self)
        forks.register(self)

    # --- settings ---

    def configure(self, **options: Unpack[OptionValues]) -> None:
        """Change settings; settings given before stay. A bus in use is closed, and starts again with the new settings;
        on ``memory://`` it starts empty.

        Raises:
            InvalidOption: A setting is unknown or out of range; nothing has changed then.
        """
        values = settings.from_values(options)
        with self._lock:
            given = {**self._given, **values}
            merged = self._merge(given)
            # In one step: a first use in another thread begins with the old settings and is stopped, or with the new.
            self._given, self._options, self._closed = given, merged, False
            machinery = self._take()
        _stop(*machinery)

    def configure_app(self, config: Mapping[str, Any], dumps: Dumps | None = None) -> None:
        """Take the settings of a Flask app, ``MESSAGEBUS_…``. The blueprint calls this when it is registered. They have
        lower precedence than :meth:`configure`. ``dumps``: how the app encodes what it publishes as JSON.

        Raises:
            InvalidOption: A setting is unknown or out of range.
        """
        refuse_eventlet()  # here, at the start, and not with the first request
        from_app = settings.from_config(config)
        if dumps is not None:
            self._dumps = dumps
            if self._publisher is not None:
                self._publisher.dumps = dumps
        with self._lock:
            if from_app == self._from_app:
                return
            merged = self._merge(from_app=from_app)
            self.serves_unequal_apps = bool(self._from_app)
            machinery = self._take() if merged != self._options else (None, None)
            self._from_app, self._options = from_app, merged
        _stop(*machinery)

    @property
    def options(self) -> Options:
        """The settings in force."""
        if self._options is None:
            self._options = self._merge()
        return self._options

    @property
    def own_url(self) -> str | None:
        """The store that the program set for this bus, in ``Bus(...)``, ``configure`` or a Flask app's config, even if
        another one is in force."""
        url: str | None = self._given.get("url") or self._from_app.get("url")
        return url

    def _merge(self, given: dict[str, Any] | None = None, from_app: dict[str, Any] | None = None) -> Options:
        values = {
            **settings.from_environment(),
            **(self._from_app if from_app is None else from_app),
            **(self._given if given is None else given),
            **settings.from_command(),
        }
        options = Options(**values)
        if "url" in values:  # otherwise the app's settings may bring it
            settings.check_replicas(options.durable, options.url)
        return options

    # --- life ---

    def start(self) -> None:
        """Connect and listen now, rather than on first use; for servers, before they accept connections.

        Waits for the store for a second at most. If it is unreachable, the bus connects when it is back."""
        node = self._running_node()
        node.has_started()

    @property
    def healthy(self) -> bool:
        """Whether the process is connected to the store's feed, in all partitions. ``True`` if it does not listen yet:
        it starts to listen with the first request to the bus, the first page or the first subscription, not with a
        publish."""
        return self._node is None or self._node.is_healthy

    def close(self, drain: float = 0.0) -> None:
        """Close the bus: write queued messages, disconnect clients (they reconnect where they find a server), and end
        all threads.

        ``drain``: seconds within which clients may open their next connection elsewhere before the one to this process
        ends; it is over when the last has left. The bus works until then, and the process must have stopped to accept
        connections before. Apart from that it takes a few seconds at most. May be repeated; afterwards the bus raises
        :class:`BusClosed` until it is configured."""
        if drain > 0:
            self.end_subscribers(STOP_SECONDS, drain)
        elif self._node is not None and self._node.guests:
            self.end_subscribers(STOP_SECONDS)  # while what they call at their end may still publish
        with self._lock:
            self._closed = True
            machinery = self._take()
        _stop(*machinery)
        self._callbacks = None

    def destroy(self) -> None:
        """The same as :meth:`close`, under its name in Ruby. The store keeps its messages."""
        self.close()

    def end_subscribers(self, timeout: float = 5.0, over: float = 0) -> None:
        """Close all clients' connections cleanly and accept no new ones; for servers that shut down. ``over``: seconds
        within which they may open the next one elsewhere first."""
        if self._node is not None:
            self._node.end_subscribers(timeout, over)

    def _publisher_now(self) -> Publisher:
        """The publisher, made on first use.

        A publisher alone starts no feed. In a process that only publishes, a feed would receive, decode and drop every
        message of the bus, and compete with the publisher."""
        publisher = self._publisher
        if publisher is None:
            from .publishing.publisher import Publisher

            with self._lock:
                if self._closed:
                    raise BusClosed("the bus is closed; configure() opens it again")
                publisher = self._publisher
                if publisher is None:
                    publisher = self._publisher = Publisher(self.options, self._dumps)
        if self._node is None and self._callbacks and not self._rests:
            # Callbacks that existed before a change of settings resume with the first use of any kind.
            self._running_node()
        return publisher

    def _running_node(self) -> Node:
        """The listening side, made on first use."""
        node = self._node
        if node is not None:
            return node
        refuse_eventlet()
        from .hub.callbacks import Callbacks
        from .hub.node import Node
        from .publishing.publisher import Publisher
        from .statistics.worker import worker_facts

        with self._lock:
            if self._closed:
                raise BusClosed("the bus is closed; configure() opens it again")
            if self._node is not None:
                return self._node
            if self._publisher is None:
                self._publisher = Publisher(self.options, self._dumps)
            if self._callbacks is None:
                self._callbacks = Callbacks()
            node = self._node = Node(self._publisher, self._callbacks, self._access)
            node.workers.report_also(partial(worker_facts, node))
            self._made(node)
            if self.options.admin:
                from .admin.feed import Admin

                node.admin = Admin(node)
            self._rests = False
        try:
            node.start()
        except BaseException:
            with self._lock:
                if self._node is node:
                    self._node = None  # the next use tries again
            node.stop(0)
            raise
        if self._callbacks:
            node.start_callbacks()
        return node

    def _made(self, node: Node) -> None:
        """A node was made, and has not begun."""

    def _rest(self) -> tuple[Callbacks, Store]:
        """For functions that are subscribed now and called when this process begins to listen; and its store."""
        from .hub.callbacks import Callbacks

        store = self._publisher_now().store
        with self._lock:
            if self._callbacks is None:
                self._callbacks = Callbacks()
            self._rests = self._node is None
            return self._callbacks, store

    def _take(self) -> tuple[Publisher | None, Node | None]:
        """Take away what it has made, for :func:`_stop`. With the lock held."""
        machinery = self._publisher, self._node
        self._publisher = self._node = None
        return machinery

    def _after_fork(self) -> None:
        global _unheard
        _unheard = 0  # the parent's
        self._lock = allocate_lock()
        publisher, self._publisher = self._publisher, None
        node, self._node = self._node, None
        if node is not None:
            node.after_fork()
        if publisher is not None:
            publisher.after_fork()
        if self._callbacks:
            self._callbacks.after_fork()
            self._rests = not self.options.callbacks_after_fork
            if self._rests:
                # A worker of a server calls them as soon as it serves; a child that computes something must not.
                logger.info(
                    "process %d was forked: the callbacks of its parent are called in it when it subscribes, serves a "
                    "request or calls start(); callbacks_after_fork=True calls them at once",
                    os.getpid(),
                )
            # Where gevent may yet patch this child (gunicorn does it in its workers), threads made now would be of
            # the wrong kind: there the callbacks begin with the bus's first use.
            elif "gevent" not in sys.modules or gevent_is_in_charge():
                try:
                    self._running_node()
                except Exception:
                    logger.exception("the callbacks do not run in the forked process %d", os.getpid())


def _stop(publisher: Publisher | None, node: Node | None) -> None:
    """End what a bus had made. Takes a few seconds at most."""
    if publisher is None:
        return
    _count_unheard(publisher)
    publisher.queue.close(STOP_SECONDS)
    if node is not None:
        node.stop(STOP_SECONDS)
    publisher.close()


def buses() -> list[Lifecycle]:
    """Every bus of the process."""
    return list(_buses)


def close_all() -> None:
    """Close every bus that is in use; for servers that shut down."""
    for bus in list(_buses):
        if bus._publisher is not None:
            bus.close()


def _at_exit() -> None:
    # Queued messages get a last chance; threads and sockets end with the process anyway.
    for bus in list(_buses):
        publisher, node = bus._publisher, bus._node
        for guest in node.guests.values() if node is not None else ():
            guest.finish_here(STOP_SECONDS)
        if publisher is not None:
            _count_unheard(publisher)
            with contextlib.suppress(Exception):
                publisher.queue.close(STOP_SECONDS)
    if _unheard:
        logger.warning(
            "%d %s went nowhere: the bus has no store but the memory of this process (memory://), where nobody "
            "listened. Set MESSAGEBUS_URL=redis://host:6379/0 (or postgresql://...) here and where the pages are "
            "served, or import the app that sets it before the first publish.",
            _unheard,
            "message" if _unheard == 1 else "messages",
        )


def _count_unheard(publisher: Publisher) -> None:
    global _unheard
    _unheard += publisher.store.unheard()


atexit.register(_at_exit)
