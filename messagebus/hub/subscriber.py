"""One connected reader: what it is subscribed to, who it is, and how its connection ends. No HTTP."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any

import msgspec

from ..errors import SLOW, Close
from ..loop.outbound import Outbound
from ..message import Message
from ..transports import Transport

if TYPE_CHECKING:
    from .hub import Hub
    from .window import ChannelWindow

DRAIN_SECONDS = 10.0
"""How long a connection that is over may take to send what it still has."""


class Phase(enum.Enum):
    """Where a subscriber's life stands; it only ever moves downwards."""

    OPENING = enum.auto()
    """It has a connection, and waits for the dispatcher to reach what it has already seen elsewhere, or for what it is
    due to be read again."""
    LIVE = enum.auto()
    """Every new message on its channels is put out to it."""
    CLOSING = enum.auto()
    """Nothing more is put; what was put is still being sent."""
    CLOSED = enum.auto()


class Identity(msgspec.Struct, frozen=True):
    """Who a subscriber is, for targeted messages. Ids are kept as JSON, since they compare as JSON: 1 is not "1"."""

    client_id: str
    user_id: bytes | None = None
    group_ids: frozenset[bytes] = frozenset()

    def may_see(self, message: Message) -> bool:
        """Whether a message is meant for it. Users and groups: either suffices; clients: on top of both."""
        if message.client_ids is not None and self.client_id not in message.client_ids:
            return False
        if message.user_ids is None and message.group_ids is None:
            return True
        if message.user_ids is not None and self.user_id is not None and self.user_id in map(id_key, message.user_ids):
            return True
        return message.group_ids is not None and not self.group_ids.isdisjoint(map(id_key, message.group_ids))


def id_key(value: Any) -> bytes:
    """A user's or group's id, as something that is equal exactly where the JSON is."""
    return msgspec.json.encode(value)


class Subscriber:
    """One connected reader. Everything about it happens in the reactor's loop."""

    __slots__ = ("channels", "head", "hub", "identity", "outlet", "sequence", "state", "transport")

    def __init__(self, hub: Hub, transport: Transport, identity: Identity, head: bytes, sequence: int | None) -> None:
        """``head``: the lines of the response's head that are known, on a taken socket. ``sequence``: the ``__seq`` of
        a poll."""
        self.hub = hub
        self.transport = transport
        self.identity = identity
        self.head = head
        self.sequence = sequence
        self.channels: set[ChannelWindow] | tuple[ChannelWindow, ...] = ()
        self.state = Phase.OPENING
        self.outlet: Outbound

    def put(self, data: bytes) -> None:
        """Send what its transport has encoded, and end if that was all it came for."""
        if self.head:
            self._put_head(len(data))
        self.outlet.put(data)
        if self.transport.one_batch:
            self._close()

    def end(self, close: Close) -> None:
        """End its connection in order, now."""
        if self.state in (Phase.OPENING, Phase.LIVE):
            data = self.transport.end(close)
            if self.head:
                self._put_head(len(data))
            if data:
                self.outlet.put(data)
            self._close()

    def _put_head(self, size: int) -> None:
        """Begin the response; ``size``: bytes of what comes first."""
        self.outlet.put(b"%b%b\r\n" % (self.head, self.transport.fields(size)))
        self.head = b""

    def _close(self) -> None:
        self.state = Phase.CLOSING
        self.hub.leave(self)
        self.hub.draining.add(self)
        self.hub.reactor.set_deadline(self.outlet, DRAIN_SECONDS)
        self.outlet.finish()

    def on_live(self) -> None:
        """It has joined what it came for."""

    # --- its connection's owner ---

    def on_data(self, data: bytes) -> None:
        """A reader of a response has nothing to say; pipelined requests are not served on a taken socket."""

    def on_deadline(self) -> None:
        if self.state is Phase.CLOSING:
            self.outlet.abort()
            return
        was = self.state
        self.hub.stop_waiting(self)
        if was is Phase.LIVE and self.state is Phase.LIVE:
            self.hub.keep_alive(self)

    def on_slow(self) -> None:
        self.outlet.allow(1 << 62)  # the farewell must not be the next thing that is too much
        self.end(SLOW)

    def on_closed(self) -> None:
        if self.state is not Phase.CLOSED:
            self.state = Phase.CLOSED
            self.hub.closed(self)
