"""Who is connected to one worker, as the admin page shows it. In the reactor's loop."""

from __future__ import annotations

import time
from itertools import islice
from typing import Any

from ..hub.hub import Hub
from ..hub.subscriber import Subscriber
from ..names import split_name

QUESTION = "connected"
"""What workers ask each other; with the text that is looked for, empty: everybody."""
SHOWN = 100
"""Connections of one answer."""
NAMED = 3
"""Channels that are named of one connection; of the others there is the number."""


class Connected:
    """See the module."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    def answer(self, looked_for: Any) -> dict[str, Any]:
        """Up to ``SHOWN`` connections whose client, user or address has this text in it, and how many there are."""
        text = str(looked_for or "").lower()
        everybody = self._hub.membership.all()
        if not text:
            return {"total": len(everybody), "clients": [self._tell(each) for each in islice(everybody, SHOWN)]}
        found = [each for each in everybody if _has(each, text)]
        return {"total": len(found), "clients": [self._tell(each) for each in found[:SHOWN]]}

    def _tell(self, subscriber: Subscriber) -> dict[str, Any]:
        identity, followed = subscriber.identity, subscriber.followed
        return {
            "client_id": identity.client_id,
            "user_id": _user(subscriber),
            "address": subscriber.address,
            "transport": subscriber.transport.name,
            "since": time.time() - (self._hub.reactor.clock() - subscriber.since),
            "channels": len(followed),
            "named": [split_name(name)[0] for name in islice(sorted(followed), NAMED)],
            "waiting_bytes": subscriber.writer.waiting,
            "catches_up": subscriber.catch_up is not None,
        }


def _user(subscriber: Subscriber) -> str | None:
    """As JSON: the number 7 is another user than the text."""
    user_id = subscriber.identity.user_id
    return None if user_id is None else user_id.decode()


def _has(subscriber: Subscriber, text: str) -> bool:
    words = (subscriber.identity.client_id, _user(subscriber) or "", subscriber.address)
    return any(text in word.lower() for word in words)
