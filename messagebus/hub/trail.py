"""What a worker remembers to explain afterwards why somebody did not get a message: runs of messages that it has sent,
and connections, the newest of each.

In the reactor's loop, except :meth:`Trail.answered`."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec

from ..message import id_key
from .membership import Membership
from .subscriber import Identity, Subscriber

RUNS_EACH = 10
"""Runs of messages that are remembered for each connection that is."""
POSITIONS = 100
"""Channels that are remembered of a connection which comes and goes; or as many as it follows, if those are more."""
TOLD = 20
"""Connections of a user that are told of, the newest."""

Positions = tuple[tuple[str, int], ...]


class Visit(msgspec.Struct):
    """A connection that there is, or was."""

    identity: Identity
    address: str
    transport: str
    since: float
    """By the reactor's clock, as all times here."""
    positions: Positions
    """Channels as the store names them, and the position that the client came with."""
    until: float | None = None
    end: str = ""
    """Why it ended."""


class Trail:
    """See the module. Remembers nothing where ``size`` is 0."""

    def __init__(self, size: int, clock: Callable[[], float], membership: Membership) -> None:
        """``size``: connections that are remembered."""
        self._size = size
        self._clock = clock
        self._membership = membership
        self._visits: deque[Visit] = deque(maxlen=size)
        self._open: dict[Subscriber, Visit] = {}
        runs: deque[tuple[float, str, int, int]] = deque(maxlen=size * RUNS_EACH)
        self._runs = runs
        self.sent: Callable[[tuple[float, str, int, int]], object] | None = runs.append if size else None
        """Called with the time, the channel, and the first and last id of messages that were sent to its followers. The
        ring's own method, for it is called for every run."""

    def begins(self, subscriber: Subscriber, positions: Positions) -> None:
        """A subscriber is registered, or follows more channels."""
        if not self._size:
            return
        visit = self._open.get(subscriber)
        if visit is not None:
            names = {name for name, _ in positions}
            others = [each for each in visit.positions if each[0] not in names]
            visit.positions = (*others, *positions)[-max(POSITIONS, len(subscriber.followed)) :]
            return
        since = self._clock()
        visit = Visit(subscriber.identity, subscriber.address, subscriber.transport.name, since, positions)
        self._visits.append(visit)
        self._open[subscriber] = visit
        if len(self._open) > self._size:
            del self._open[next(iter(self._open))]  # the oldest; what it is now, the membership knows

    def answered(self, identity: Identity, positions: Positions) -> None:
        """A poll was answered at once. From any thread."""
        if self._size:
            now = self._clock()
            end = "answered at once"
            visit = Visit(identity, "", "polling", now, positions, now, end)
            self._visits.append(visit)

    def ends(self, subscriber: Subscriber, end: str) -> None:
        """A subscriber's connection ends. May be repeated: the first reason counts."""
        visit = self._open.pop(subscriber, None)
        if visit is not None:
            visit.until, visit.end = self._clock(), end

    def answer(self, asked: dict[str, Any]) -> dict[str, Any]:
        """What this worker knows of a message and of those it may have been for. ``asked``: ``name`` of the channel,
        ``id`` of the message, ``user_id`` or ``client_id``. Times are Unix time."""
        name, message_id = str(asked["name"]), int(asked["id"])
        user_id = None if asked.get("user_id") is None else id_key(asked["user_id"])
        client_id = asked.get("client_id")
        shift = time.time() - self._clock()
        runs = (at for at, to, first, last in reversed(self._runs) if to == name and first <= message_id <= last)
        sent = next(runs, None)
        found = []
        # A copy, made in one step: polls that are answered meanwhile, in other threads, are added.
        for visit in reversed([*self._visits]):
            if _is(visit.identity, user_id, client_id):
                found.append(self._tell(visit, name, shift))
                if len(found) == TOLD:
                    break
        known = {visit["client_id"] for visit in found if visit["until"] is None}
        for subscriber in self._membership.all() if len(found) < TOLD else ():
            identity = subscriber.identity
            if _is(identity, user_id, client_id) and identity.client_id not in known:
                found.append(_tell_old(subscriber, name))
        return {"sent_at": None if sent is None else sent + shift, "connections": found[:TOLD]}

    def _tell(self, visit: Visit, name: str, shift: float) -> dict[str, Any]:
        position = dict(visit.positions).get(name)
        return {
            **_who(visit.identity),
            "address": visit.address,
            "transport": visit.transport,
            "since": visit.since + shift,
            "until": None if visit.until is None else visit.until + shift,
            "end": visit.end,
            "follows": position is not None,
            "position": position,
        }


def _is(identity: Identity, user_id: bytes | None, client_id: str | None) -> bool:
    return identity.client_id == client_id or (user_id is not None and identity.user_id == user_id)


def _who(identity: Identity) -> dict[str, Any]:
    """Users and groups as JSON, as they are compared."""
    return {
        "client_id": identity.client_id,
        "user_id": None if identity.user_id is None else identity.user_id.decode(),
        "group_ids": [group_id.decode() for group_id in identity.group_ids],
    }


def _tell_old(subscriber: Subscriber, name: str) -> dict[str, Any]:
    """Of a connection that is so old that its beginning is forgotten."""
    return {
        **_who(subscriber.identity),
        "address": subscriber.address,
        "transport": subscriber.transport.name,
        "since": None,
        "until": None,
        "end": "",
        "follows": name in subscriber.followed,
        "position": None,
    }
