"""A connected reader: its subscriptions, its identity, and how its connection ends. No HTTP."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import ClassVar, Protocol

import msgspec

from ..errors import Close
from ..loop.reactor import HasDeadline
from ..loop.writer import Writer
from ..message import Message, id_key
from ..transports import Transport
from .catch_up import CatchUp
from .epochs import NONE


class Phase(enum.Enum):
    """The phases of a subscriber, in their order; there is no way back."""

    OPENING = enum.auto()
    """It has a connection, and waits for the dispatcher to reach what it has already seen elsewhere, or for what it is
    due to be read again."""
    OPEN = enum.auto()
    """Every new message on its channels is sent to it."""
    CLOSING = enum.auto()
    """Nothing more is added; the last bytes are still being sent."""
    CLOSED = enum.auto()


class Identity(msgspec.Struct, frozen=True):
    """A subscriber's identity, for targeted messages. Ids are kept as JSON, because they compare as JSON: 1 is not
    "1"."""

    client_id: str
    user_id: bytes | None = None
    group_ids: frozenset[bytes] = frozenset()

    def may_see(self, message: Message) -> bool:
        """Whether a message is for this subscriber. Users and groups: either suffices; clients: in addition to both,
        and not one of those that it excludes."""
        if message.client_ids is not None and self.client_id not in message.client_ids:
            return False
        if message.exclude_client_ids is not None and self.client_id in message.exclude_client_ids:
            return False
        if message.user_ids is None and message.group_ids is None:
            return True
        if message.user_ids is not None and self.user_id is not None and self.user_id in map(id_key, message.user_ids):
            return True
        return message.group_ids is not None and not self.group_ids.isdisjoint(map(id_key, message.group_ids))


class Registry(Protocol):
    """What a subscriber needs of the hub."""

    def ends(self, subscriber: Subscriber, close: Close) -> None:
        """It is about to be closed, and why."""

    def retire(self, subscriber: Subscriber) -> None:
        """Deliver nothing more to a subscriber: its last bytes are being sent."""

    def on_deadline_of(self, subscriber: Subscriber) -> None:
        """The deadline of its connection has come."""

    def on_slow(self, subscriber: Subscriber) -> None:
        """More bytes wait for it than allowed."""

    def on_drained(self, subscriber: Subscriber) -> None:
        """A piece of missed messages has left the socket."""

    def closed(self, subscriber: Subscriber) -> None:
        """Its connection has ended."""


class Subscriber:
    """A connected reader. Used in the reactor's loop only."""

    __slots__ = (
        "address",
        "bytes",
        "catch_up",
        "channels",
        "close",
        "head",
        "identity",
        "knows_epoch",
        "messages",
        "outdated",
        "registry",
        "sequence",
        "since",
        "site_id",
        "standing",
        "state",
        "takes_refusals",
        "transport",
        "writer",
    )

    reads: ClassVar[bool] = True
    """Whether it is there for channels; ``False``: what happens to those, and to the store, is nothing to it."""

    def __init__(
        self,
        registry: Registry,
        transport: Transport,
        identity: Identity,
        head: bytes,
        sequence: int | None,
        address: str = "",
        site_id: str | None = None,
        takes_refusals: bool = False,
    ) -> None:
        """``head``: the lines of the response's head that are known, on a taken socket. ``sequence``: the ``__seq`` of
        a poll. ``address``: where it comes from; empty on a Unix socket. ``takes_refusals``: whether it is told of
        single channels that it does not get."""
        self.registry = registry
        self.transport = transport
        self.identity = identity
        self.head = head
        self.sequence = sequence
        self.address = address
        self.site_id = site_id
        self.takes_refusals = takes_refusals
        self.channels: set[str] | tuple[str, ...] = ()
        """The channels that it is live on, by their stored names. ``Membership`` maintains them."""
        self.catch_up: CatchUp | None = None
        """What it is still to be given."""
        self.messages = self.bytes = 0
        """What it was given, and their size on the wire, once it has ended. Until then ``Membership`` has to add those
        of its channels."""
        self.knows_epoch = False
        """Whether it has been told the store's epoch, and so has to be told of another one."""
        self.since = 0.0
        """When it was taken in, by the reactor's clock."""
        self.close: Close | None = None
        """Why its connection was ended; ``None`` where it was not, or by its one batch."""
        self.standing: HasDeadline | None = None
        """When it is asked again what it may have; ``Rechecks`` maintains it."""
        self.outdated: frozenset[int] = NONE
        """Partitions of the store that have begun another life since it had positions there, and none of its channels
        was told."""
        self.state = Phase.OPENING
        self.writer: Writer

    @property
    def followed(self) -> set[str]:
        """The channels that it is live on, or on its way to."""
        catch_up = self.catch_up
        return {*self.channels, *(() if catch_up is None else (*catch_up.names, *catch_up.watches))}

    def put(self, data: bytes) -> None:
        """Send what its transport has encoded, and end if the transport has one batch only. The dispatcher repeats the
        second line of this for subscribers whose response has begun, to save a call for each of thousands."""
        if self.head:
            self._put_head(len(data))
        self.writer.put(data)
        if self.transport.one_batch:
            self._close()

    def put_piece(self, parts: Sequence[bytes]) -> None:
        """Like ``put``, for a piece of missed messages: the registry is told when it has left."""
        if self.head:
            self._put_head(sum(map(len, parts)))
        self.writer.put_piece(parts)
        if self.transport.one_batch:
            self._close()

    def end(self, close: Close, last: bytes = b"") -> None:
        """Close its connection cleanly, now. ``last``: the encoded batch that says why, if it ends early."""
        if self.state in (Phase.OPENING, Phase.OPEN):
            self.close = close
            # First: the last bytes must not count as too slow.
            self.state = Phase.CLOSING
            self.registry.ends(self, close)
            data = self.transport.end(close, last)
            if self.head:
                self._put_head(len(data))
            if data:
                self.writer.put(data)
            self._close()

    def _put_head(self, size: int) -> None:
        """Begin the response; ``size``: bytes of what comes first."""
        self.writer.put(b"%b%b\r\n%b" % (self.head, self.transport.fields(size), self.transport.preamble))
        self.head = b""

    def _close(self) -> None:
        self.state = Phase.CLOSING
        self.registry.retire(self)
        self.writer.finish()

    def on_live(self) -> None:
        """It has joined what it came for."""

    # --- its connection's owner ---

    def on_data(self, data: bytes) -> None:
        """A reader of a response has nothing to say; pipelined requests are not served on a taken socket."""

    def on_deadline(self) -> None:
        self.registry.on_deadline_of(self)

    def on_slow(self) -> None:
        self.registry.on_slow(self)

    def on_drained(self) -> None:
        self.registry.on_drained(self)

    def on_closed(self) -> None:
        if self.state is not Phase.CLOSED:
            self.state = Phase.CLOSED
            self.registry.closed(self)
