"""Feeds open admin pages with the numbers of the bus, every two seconds and only while somebody looks."""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, NamedTuple

from ..errors import BackendUnavailable, BusClosed, Close
from ..hub.node import Node
from ..hub.subscriber import Phase, Subscriber
from ..hub.workers import Answer, tell
from ..message import Message, encode_json
from ..statistics.bus import bus_stats, reachable_channel_stats
from ..statistics.reachable import with_away
from ..transports import join_batch
from .busiest import Busiest
from .connected import QUESTION, SHOWN, Connected
from .taps import TAP, TAPPED, Taps

logger = logging.getLogger("messagebus.admin")

FEED_SECONDS = 2.0
CHANNELS = 200
"""Channels that a page shows."""
MOST_WATCHERS = 10
"""Pages that one worker feeds."""
CHANNEL = "/admin"
"""Of the messages to a page. Nothing of it is in the store, and no other client sees it."""
SIGNED_OUT = "admin-signed-out"
"""What workers tell each other, with the name of the session."""
MOST_SIGNED_OUT = 1000
"""Sessions that are remembered as signed out; of more, the oldest end by their time."""


class Session(NamedTuple):
    """Of somebody who has signed in."""

    name: str
    until: int
    """Unix time."""


@dataclass(eq=False)
class Watcher:
    """An open admin page."""

    subscriber: Subscriber
    channels: str
    """What the names of the channels begin with that it shows."""
    clients: str
    """The text that is looked for in the clients that it shows."""
    tapped: str | None
    """The client of which it shows what that is sent."""
    session: Session | None = None
    """With which it ends; ``None``: a program has shown a key."""


class Admin:
    """What a worker does for admin pages, its own and the others'. Made for every worker where ``admin`` is on.

    Its methods are for the reactor's loop, unless they say otherwise."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._watchers: list[Watcher] = []
        self._collects = False
        self._signed_out: OrderedDict[str, None] = OrderedDict()
        self._busiest: dict[str, Busiest] = {}
        self.tick = 0
        taps = Taps(node.hub, self._tell)
        node.workers.on_question(QUESTION, Connected(node.hub).answer)
        node.workers.on(TAP, taps.ask)
        node.workers.on(TAPPED, self._tapped)
        node.workers.on(SIGNED_OUT, self._forget)

    @property
    def is_full(self) -> bool:
        """Whether no further page is fed. From any thread."""
        return len(self._open()) >= MOST_WATCHERS

    def is_over(self, session: Session) -> bool:
        """Whether a session has been signed out, or its time is over. From any thread."""
        return session.name in self._signed_out or time.time() >= session.until

    def sign_out(self, session: Session) -> None:
        """End a session, with the pages that are open, on every worker. From any thread but the loop's.

        Raises:
            BackendUnavailable: The store gave no answer. It has ended on this worker.
        """
        self._signed_out[session.name] = None
        tell(self._node.store, SIGNED_OUT, session.name)

    def _forget(self, name: Any) -> None:
        self._signed_out[str(name)] = None
        while len(self._signed_out) > MOST_SIGNED_OUT:
            self._signed_out.popitem(last=False)
        self._end_signed_out()

    def _end_signed_out(self) -> None:
        for watcher in self._watchers:
            if watcher.session is not None and self.is_over(watcher.session):
                watcher.subscriber.end(Close(1008, "signed out"))

    def watch(self, watcher: Watcher) -> None:
        """Feed a page until its connection ends."""
        self._watchers.append(watcher)
        self.on_deadline()

    def on_deadline(self) -> None:
        self._end_signed_out()
        self._watchers = self._open()
        if not self._watchers:
            return
        self._node.reactor.set_deadline(self, FEED_SECONDS)
        if not self._collects:  # the store may be slow
            self._collects = True
            self._node.reactor.spawn(self._collect)

    def _open(self) -> list[Watcher]:
        return [each for each in self._watchers if each.subscriber.state is not Phase.CLOSED]

    def _collect(self) -> None:
        """Where it may block."""
        try:
            told: dict[tuple[str, str], Any] = {}
            shown = {watcher.channels for watcher in self._watchers}
            self._busiest = {prefix: busiest for prefix, busiest in self._busiest.items() if prefix in shown}
            for watcher in [*self._watchers]:
                key = (watcher.channels, watcher.clients)
                if key not in told:
                    told[key] = self._snapshot(*key)
                self._node.reactor.call_soon(self._put, watcher, told[key])
            for client_id in {each.tapped for each in self._watchers if each.tapped is not None}:
                tell(self._node.store, TAP, client_id)
        except (BackendUnavailable, BusClosed) as error:
            for watcher in [*self._watchers]:
                self._node.reactor.call_soon(self._put, watcher, {"trouble": str(error)})
        except Exception:
            logger.exception("the admin pages could not be fed")
        finally:
            self._collects = False

    def _snapshot(self, channels: str, clients: str) -> dict[str, Any]:
        busiest = self._busiest.setdefault(channels, Busiest(self._node.store, channels))
        names, has_more, away = busiest.find(CHANNELS)
        channels_stats, more_away = reachable_channel_stats(self._node, names)
        stats = bus_stats(self._node)
        answers = [each.value for each in self._ask(clients) if isinstance(each.value, dict)]
        connected = [client for answer in answers for client in answer["clients"]]
        return {
            "stats": {**stats, **with_away([*away, *more_away, *stats.get("partitions_away", ())])},
            "channels": [each._asdict() for each in channels_stats],
            "has_more_channels": has_more,
            "clients": sorted(connected, key=lambda client: client["since"])[:SHOWN],
            "matching_clients": sum(answer["total"] for answer in answers),
        }

    def _ask(self, clients: str) -> list[Answer]:
        workers = self._node.workers
        try:
            return workers.ask(QUESTION, clients)
        except BackendUnavailable:  # nobody knows who the others are
            return workers.ask(QUESTION, clients, of=workers.id)

    def _put(self, watcher: Watcher, value: Any) -> None:
        subscriber = watcher.subscriber
        if subscriber.state is Phase.OPEN and not subscriber.writer.waiting:  # a page that is behind gets the next one
            batch = join_batch([Message(-1, -1, CHANNEL, encode_json(value))])
            subscriber.put(subscriber.transport.encode(batch, None))

    def _tapped(self, told: Any) -> None:
        """A worker has sent something to a client that some page watches."""
        if isinstance(told, dict):
            for watcher in self._watchers:
                if watcher.tapped == told.get("client_id"):
                    self._put(watcher, {"tapped": told})

    def _tell(self, kind: str, value: Any) -> None:
        def call() -> None:
            try:
                tell(self._node.store, kind, value)
            except (BackendUnavailable, BusClosed, ValueError) as error:
                logger.warning("what a client was sent could not be told: %s", error)

        self._node.reactor.spawn(call)
