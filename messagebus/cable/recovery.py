"""Remembers the sessions of AnyCable's clients: one that comes back with its ``sid`` has its subscriptions again.

A session is remembered where it was: its name says in which worker. Who comes back elsewhere is asked for there. What a
session had is a list of identifiers and no right: each of them is entered anew.
"""

from __future__ import annotations

import hashlib
import secrets
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import msgspec

from ..errors import BackendUnavailable, BusClosed
from ..hub.node import Node
from ..hub.subscriber import Identity

KEPT_SECONDS = 300.0
"""How long a session is remembered after its connection has ended."""
MAX_SESSIONS = 10_000
MAX_BYTES = 16_000_000
"""Of the identifiers of all sessions that have ended. Beyond either the oldest are forgotten."""
MAX_SID = 100
"""Characters of a ``sid``."""
QUESTION = "cable-session"


class _Ended(NamedTuple):
    owner: str
    identifiers: list[str]
    until: float
    size: int


class _Open(NamedTuple):
    owner: str
    identifiers: Mapping[str, object]
    """Its subscriptions, as they are now."""


class Recovery:
    """See the module. In the reactor's loop, except :meth:`find`."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._open: dict[str, _Open] = {}
        self._ended: OrderedDict[str, _Ended] = OrderedDict()
        self._size = 0
        node.workers.on_question(QUESTION, self._answer)

    def begin(self, owner: str, identifiers: Mapping[str, object]) -> str:
        """A session begins. Returns its ``sid``, which nobody can guess."""
        sid = f"{self._node.workers.id}.{secrets.token_urlsafe(18)}"
        self._open[sid] = _Open(owner, identifiers)
        return sid

    def end(self, sid: str, may_come_back: bool) -> None:
        """Its connection ends. To be called while it still has its subscriptions; may be repeated."""
        session = self._open.pop(sid, None)
        if session is None or not may_come_back or not session.identifiers:
            return
        identifiers = [*session.identifiers]
        size = sum(map(len, identifiers))
        now = self._node.reactor.clock()
        self._ended[sid] = _Ended(session.owner, identifiers, now + KEPT_SECONDS, size)
        self._size += size
        while self._ended:
            first = next(iter(self._ended.values()))
            if first.until > now and len(self._ended) <= MAX_SESSIONS and self._size <= MAX_BYTES:
                break
            self._ended.popitem(last=False)
            self._size -= first.size

    def _answer(self, question: Any) -> list[str] | None:
        sid, owner = question
        found: _Open | _Ended | None = self._open.get(sid) or self._ended.get(sid)
        if found is None or found.owner != owner:
            return None
        if isinstance(found, _Ended) and found.until <= self._node.reactor.clock():
            return None
        return [*found.identifiers]

    def find(self, sid: str, owner: str) -> list[str]:
        """The identifiers that a session had; none where it is not known, or was somebody else's. Blocks where another
        worker has to be asked; not for the loop."""
        worker, dot, _ = sid.partition(".")
        if not dot or len(sid) > MAX_SID:
            return []
        try:
            answers = self._node.workers.ask(QUESTION, [sid, owner], of=worker)
        except (BackendUnavailable, BusClosed):
            return []
        found = answers[0].value if answers else None
        return [each for each in found if isinstance(each, str)] if isinstance(found, list) else []


def owner_of(identity: Identity, site_id: str | None, identifiers: Mapping[str, Any]) -> str:
    """Whose a session is: the user, the site, and by what the ``connect`` hook has identified it, as far as JSON can
    say that. As a digest, which may go to other workers."""
    words = [identity.user_id or b"", (site_id or "").encode(), *_plain(identifiers)]
    return hashlib.blake2b(b"\0".join(words), digest_size=16).hexdigest()


def _plain(identifiers: Mapping[str, Any]) -> Iterable[bytes]:
    for name in sorted(identifiers):
        try:
            yield msgspec.json.encode([name, identifiers[name]])
        except (TypeError, ValueError, RecursionError):
            continue
