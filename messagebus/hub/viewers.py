"""Who follows a channel, told to a program that watches it: which clients, on this worker. Costs nothing while nobody
watches. In the reactor's loop only, unless a method says otherwise.

A program says again and again that it watches. The worker tells at each of these times, and whenever it has changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from ..loop.reactor import Reactor
from .membership import Membership

WATCH = "watch"
"""Told to every worker every ``RENEW_SECONDS`` while somebody watches, with the channel as the store names it."""
VIEWERS = "viewers"
"""What each worker tells then: its own name, the channel, its clients, and a number that grows, for a telling may
overtake another one."""
RENEW_SECONDS = 5.0
LASTS_SECONDS = 15.0
"""How long a worker tells after it was asked last; and how long what it has told holds."""
LOOK_SECONDS = 0.2
MAX_WATCHED = 100
"""Channels of which a worker tells at a time."""
MAX_TOLD = 4000
"""Clients of one channel that a worker tells of."""


class Viewers:
    """See the module. One for each worker."""

    def __init__(
        self, worker: str, membership: Membership, reactor: Reactor, tell: Callable[[str, Any], object]
    ) -> None:
        """``worker``: this worker's name. ``tell``: tells all workers something of a kind, without waiting."""
        self._worker = worker
        self._followers = membership.followers
        self._reactor = reactor
        self._tell = tell
        self._watched: dict[str, _Watched] = {}
        self._number = 0
        self.tick = 0

    def watch(self, name: Any) -> None:
        """Somebody watches a channel."""
        if not isinstance(name, str):
            return
        watched = self._watched.get(name)
        if watched is None:
            if len(self._watched) >= MAX_WATCHED:
                return
            watched = self._watched[name] = _Watched()
        watched.until = self._reactor.clock() + LASTS_SECONDS
        self._tell_of(name, watched, self._clients(name, watched))
        if not self.tick:
            self._reactor.set_deadline(self, LOOK_SECONDS)

    def polled(self, names: Iterable[str], client_id: str, seconds: float) -> None:
        """A poll was answered at once; the client's next one comes within so many seconds. From any thread."""
        if self._watched:
            self._reactor.call_soon(self._polled, [*names], client_id, seconds)

    def _polled(self, names: list[str], client_id: str, seconds: float) -> None:
        for name in names:
            watched = self._watched.get(name)
            if watched is not None and (client_id in watched.polls or len(watched.polls) < MAX_TOLD):
                watched.polls[client_id] = self._reactor.clock() + seconds

    def on_deadline(self) -> None:
        now = self._reactor.clock()
        for name, watched in [*self._watched.items()]:
            if now >= watched.until:
                del self._watched[name]
                continue
            watched.polls = {client: until for client, until in watched.polls.items() if until > now}
            clients = self._clients(name, watched)
            if clients != watched.told:
                self._tell_of(name, watched, clients)
        if self._watched:
            self._reactor.set_deadline(self, LOOK_SECONDS)

    def _clients(self, name: str, watched: _Watched) -> dict[str, None]:
        found: dict[str, None] = {}
        for members in (self._followers(name) or {}).values():
            for subscriber in members:
                client_id = subscriber.identity.client_id
                watched.polls.pop(client_id, None)  # it has a connection now
                found[client_id] = None
                if len(found) >= MAX_TOLD:
                    return found
        return found | dict.fromkeys(watched.polls)

    def _tell_of(self, name: str, watched: _Watched, clients: dict[str, None]) -> None:
        watched.told = clients
        self._number += 1
        self._tell(VIEWERS, {"worker": self._worker, "number": self._number, "name": name, "clients": [*clients]})


class _Watched:
    """A channel that is watched."""

    __slots__ = ("polls", "told", "until")

    def __init__(self) -> None:
        self.until = 0.0
        self.polls: dict[str, float] = {}
        """Client -> until when its next poll is waited for."""
        self.told: dict[str, None] = {}
