"""A subscription of ``/cable`` in the hub: a subscriber of its own, which shares its connection's writer."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..hub.hub import Hub
from ..hub.subscriber import Phase, Subscriber
from ..loop.writer import Writer
from ..transports import Transport


class StreamSubscriber(Subscriber):
    """See the module. In the reactor's loop only."""

    __slots__ = ("shared",)

    def __init__(
        self, hub: Hub, transport: Transport, connection: Subscriber, ended: Callable[[StreamSubscriber], object]
    ) -> None:
        """``ended``: called when somebody has ended it, as for a reader that is too slow."""
        super().__init__(hub, transport, connection.identity, b"", None, site_id=connection.site_id)
        self.writer = self.shared = SharedWriter(self, connection.writer, lambda: ended(self))
        self.state = Phase.OPEN

    def release(self, hub: Hub) -> None:
        """Follow nothing any more; the connection goes on. May be repeated."""
        hub.reactor.clear_deadline(self.writer)
        self.on_closed()


class SharedWriter:
    """Writes to the connection, which it never closes."""

    __slots__ = ("_ended", "_put_piece", "_subscriber", "_writer", "is_out", "put", "tick")

    def __init__(self, subscriber: Subscriber, writer: Writer, ended: Callable[[], object]) -> None:
        self._subscriber = subscriber
        self._ended = ended
        self.put = writer.put
        """The connection's own method: called for every message."""
        self._put_piece = writer.put_piece
        self._writer = writer
        self.is_out = False
        """Whether a piece of missed messages has been put, which may not have left yet; or it is waited for that what
        was put has left."""
        self.tick = 0

    @property
    def waiting(self) -> int:
        return self._writer.waiting

    @property
    def is_behind(self) -> bool:
        return self._writer.is_behind

    def tell_when_sent(self) -> None:
        self.is_out = True
        self._writer.tell_when_sent()

    def put_piece(self, parts: Sequence[bytes]) -> None:
        self.is_out = True
        self._put_piece(parts)

    def on_drained(self) -> None:
        """The connection has sent everything."""
        if self.is_out:
            self.is_out = False
            self._subscriber.on_drained()

    def finish(self) -> None:
        self._ended()

    def abort(self) -> None:
        self._ended()

    def on_deadline(self) -> None:
        self._subscriber.on_deadline()
