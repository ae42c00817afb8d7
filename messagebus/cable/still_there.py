"""Which clients that have entered a channel class are still there: connected to any worker, or polling."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from ..errors import BackendUnavailable, BusClosed
from ..hub.node import Node

LOOK_SECONDS = 10.0
"""Between two looks."""
GONE_SECONDS = 30.0
"""After so long without a connection or a poll, on any worker, a client has left."""
QUESTION = "cable-clients"


class StillThere:
    """See the module. In the reactor's loop, except :meth:`saw`."""

    def __init__(self, node: Node, clients: Callable[[], Iterable[str]], gone: Callable[[set[str]], object]) -> None:
        """``clients``: those that have entered here. ``gone``: called with those that have left."""
        self._node = node
        self._clients = clients
        self._gone = gone
        self._polled: OrderedDict[str, float] = OrderedDict()
        """Client -> when it has polled here."""
        self._there_at: dict[str, float] = {}
        """Client -> when it was last known to be there."""
        self.tick = 0
        node.workers.on_question(QUESTION, self._which_are_here)

    def saw(self, client_id: str) -> None:
        """A client has polled. From any thread."""
        self._polled.pop(client_id, None)  # it comes last; another thread may be dropping it
        self._polled[client_id] = self._node.reactor.clock()
        while len(self._polled) > self._node.options.max_active_clients + 1:
            self._polled.popitem(last=False)

    def begin(self, client_id: str) -> None:
        """A client has entered."""
        self._there_at[client_id] = self._node.reactor.clock()
        if not self.tick:
            self._node.reactor.set_deadline(self, LOOK_SECONDS)

    def _which_are_here(self, clients: Any) -> list[str]:
        """Of these clients, those who are connected, or have polled lately."""
        since = self._node.reactor.clock() - LOOK_SECONDS
        of_client = self._node.hub.membership.of_client
        return [client for client in clients if of_client(client) or self._polled.get(client, since) > since]

    def on_deadline(self) -> None:
        clients = sorted({*self._clients()})
        if not clients:
            self._there_at.clear()
            return
        now = self._node.reactor.clock()
        here = {*self._which_are_here(clients)}
        self._there_at = {client: now if client in here else self._there_at.get(client, now) for client in clients}
        away = [client for client in clients if client not in here]
        if away:
            self._node.reactor.spawn(partial(self._look_elsewhere, away))
        self._node.reactor.set_deadline(self, LOOK_SECONDS)

    def _look_elsewhere(self, away: list[str]) -> None:
        try:
            answers = self._node.workers.ask(QUESTION, away)
            if self._node.workers.silent():
                return  # a worker that is only slow may have them
        except (BackendUnavailable, BusClosed, ValueError):
            return  # nobody is gone of whom nothing can be known
        there = {client for answer in answers if isinstance(answer.value, list) for client in answer.value}
        self._node.reactor.call_soon(self._end_gone, away, there)

    def _end_gone(self, away: list[str], there: set[str]) -> None:
        now = self._node.reactor.clock()
        self._there_at |= dict.fromkeys(there, now)
        gone = {client for client in away if now - self._there_at.get(client, now) >= GONE_SECONDS}
        if gone:
            self._gone(gone)
