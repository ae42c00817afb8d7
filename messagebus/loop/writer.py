"""What writes to one client: the interface, and what its owner is told. No sockets.

There are two kinds. A ``SocketWriter`` owns a taken socket and lives in the reactor. A WSGI server that keeps its
sockets iterates a ``BlockingWriter``. What the client has not taken yet waits in its outbox, which is bounded; over all
writers of the process it is counted in ``outboxes``. All methods are called in the reactor's loop, unless they say
otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class WriterOwner(Protocol):
    """Who is told what happens to a writer's connection."""

    def on_data(self, data: bytes) -> None:
        """The peer sent something."""

    def on_deadline(self) -> None:
        """The connection's deadline has passed."""

    def on_slow(self) -> None:
        """More bytes wait for the peer than allowed; the owner should end the connection."""

    def on_drained(self) -> None:
        """Everything that was put has been sent, since the last :meth:`Writer.put_piece` or
        :meth:`Writer.tell_when_sent`."""

    def on_closed(self) -> None:
        """The connection has ended, for whatever reason. Called once."""


class Writer(Protocol):
    """The interface of both kinds."""

    tick: int

    @property
    def waiting(self) -> int:
        """Bytes that wait for the peer; 0 while it keeps up."""

    @property
    def is_behind(self) -> bool:
        """Whether bytes wait because the peer does not take them as fast as they come."""

    def tell_when_sent(self) -> None:
        """Of a peer that is behind: tell the owner, by ``on_drained``, when everything that was put has been sent."""

    def put(self, data: bytes) -> None:
        """Send these bytes, in the order of the calls. Never blocks; everything put in one turn leaves in one write."""

    def put_piece(self, parts: Sequence[bytes]) -> None:
        """Send a piece of missed messages. It does not count against the connection's limit, and the owner is told when
        the last byte has left, so that it can put the next one. ``parts`` are not copied, and may be shared."""

    def finish(self) -> None:
        """Close when everything that was put has been sent."""

    def abort(self) -> None:
        """Close now."""

    def on_deadline(self) -> None: ...
