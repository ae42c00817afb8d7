"""What is known of a connection when it has ended: for logs. No HTTP."""

from __future__ import annotations

from typing import NamedTuple

from .subscriber import Subscriber

CLOSED_BY_CLIENT = "closed by the client"
GONE = "the client has gone, or takes nothing"


class Ended(NamedTuple):
    """One connection, from when it was taken in."""

    address: str
    """Empty on a Unix socket."""
    client_id: str
    transport: str
    seconds: float
    messages: int
    """Of channels; neither statuses nor gaps."""
    bytes: int
    """Of the batches that these messages came in, on the wire."""
    code: int | None
    """As a WebSocket's close; ``None`` where there was no end but that of the connection."""
    reason: str

    @classmethod
    def of(cls, subscriber: Subscriber, now: float) -> Ended:
        """``now``: by the clock of ``Subscriber.since``."""
        close = subscriber.close
        return cls(
            subscriber.address,
            subscriber.identity.client_id,
            subscriber.transport.name,
            now - subscriber.since,
            subscriber.messages,
            subscriber.bytes,
            close.code if close is not None else None,
            (close.reason or CLOSED_BY_CLIENT) if close is not None else GONE,
        )
