"""The channels a client follows: positions, callbacks, and what a batch does to them. No I/O."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

from ..errors import InvalidPosition
from ..message import GAP_CHANNEL, STATUS_CHANNEL, check_channel
from .types import Callback, ClientMessage, Gap, Position

EPOCH_KEY = "__epoch"
GRANTS_KEY = "__grants"
_BY_GLOBAL_ID = re.compile(r"@[0-9]{1,18}", re.ASCII)


class FollowedChannel:
    """A channel from when it is followed until it is left; one that is followed anew is another object."""

    __slots__ = ("callbacks", "position")

    def __init__(self, position: Position, callback: Callback) -> None:
        self.position = position
        self.callbacks = [callback]


Following = dict[str, FollowedChannel | None]
"""What a connection follows, by name; ``None``: no longer."""


class Delivery(NamedTuple):
    """Something to tell the program: a message to the callbacks of its channel, or a gap."""

    channel: FollowedChannel
    value: ClientMessage | Gap


class Channels:
    """See the module. Safe from any thread; calls no callback."""

    def __init__(self, epoch: str | None = None) -> None:
        """``epoch``: that of the store which the positions are of."""
        self.epoch = epoch
        self.grants: tuple[str, ...] = ()
        """Tokens for channels that take one."""
        self.moves = 0
        """How often a position has moved."""
        self._channels: dict[str, FollowedChannel] = {}
        self._lock = threading.Lock()

    def add(self, name: str, callback: Callback, position: Position) -> bool:
        """Follow a channel; whether it was not followed before. A further callback joins at the channel's position.

        Raises:
            InvalidChannel, InvalidPosition: It is not one.
        """
        check_channel(name)
        check_position(name, position)
        with self._lock:
            channel = self._channels.get(name)
            if channel is None:
                self._channels[name] = FollowedChannel(position, callback)
                return True
            channel.callbacks = [*channel.callbacks, callback]
            return False

    def remove(self, name: str, callback: Callback | None) -> tuple[bool, bool]:
        """Remove a callback, or all, from a channel, or with ``/name/*`` from all that begin so. Whether there was
        something to remove, and whether a channel was left with it."""
        with self._lock:
            prefix = name[:-1] if name.endswith("*") else None
            names = [n for n in self._channels if (n == name if prefix is None else n.startswith(prefix))]
            removed = left = False
            for one in names:
                channel = self._channels[one]
                kept = [c for c in channel.callbacks if callback is not None and c != callback]
                removed = removed or len(kept) < len(channel.callbacks)
                channel.callbacks = kept
                if not kept:
                    del self._channels[one]
                    left = True
            return removed, left

    def __len__(self) -> int:
        return len(self._channels)

    def followed(self) -> Following:
        """What is followed now."""
        with self._lock:
            return dict(self._channels)

    def compare(self, asked: Mapping[str, FollowedChannel | None]) -> tuple[list[str], list[str]]:
        """The channels that a connection still has to be asked for, and those that it brings to nobody."""
        with self._lock:
            added = [name for name, channel in self._channels.items() if asked.get(name) is not channel]
            removed = [name for name, channel in asked.items() if channel and name not in self._channels]
            return added, removed

    def positions(self) -> dict[str, Position]:
        """Where each channel stands."""
        with self._lock:
            return {name: channel.position for name, channel in self._channels.items()}

    # --- what the server sends ---

    def accept(self, message: Mapping[str, Any], asked: Following) -> list[Delivery]:
        """Move on by one message of a batch, and return whatever the program has to be told of it: nothing for a
        status, and for what it has already seen. ``asked``: what this connection follows.

        Raises:
            ValueError: It is not a message.
        """
        try:
            name, data = message["channel"], message["data"]
            if name == STATUS_CHANNEL:
                self._accept_status(data, asked)
                return []
            if name == GAP_CHANNEL:
                return self._accept_gaps(data, asked)
            value = ClientMessage(name, data, int(message["message_id"]), int(message["global_id"]))
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"not a message of the bus: {type(error).__name__} {error}") from None
        with self._lock:
            channel = self._followed(name, asked)
            if channel is None or (isinstance(channel.position, int) and channel.position >= value.message_id):
                return []  # it was left, or this is a duplicate
            self._move(channel, value.message_id)
            return [Delivery(channel, value)]

    def _accept_status(self, data: Mapping[str, Any], asked: Following) -> None:
        with self._lock:
            for name, position in data.items():
                if name == EPOCH_KEY:
                    # A server that knows nothing of epochs takes the key for a channel, and gives its position.
                    if isinstance(position, str):
                        self.epoch = position
                else:
                    channel = self._followed(name, asked)
                    if channel is not None and channel.position != position:
                        self._move(channel, int(position))

    def _accept_gaps(self, data: Mapping[str, Any], asked: Following) -> list[Delivery]:
        deliveries = []
        with self._lock:
            for name, gap in data.items():
                channel = self._followed(name, asked)
                if channel is not None:
                    value = Gap(name, gap["after"], int(gap["before"]))
                    # The next connection must not hear of it again, even if nothing follows.
                    self._move(channel, value.before - 1)
                    deliveries.append(Delivery(channel, value))
        return deliveries

    def _followed(self, name: str, asked: Following) -> FollowedChannel | None:
        # Not if it was left and followed anew since the connection began: that is for the next.
        channel = self._channels.get(name)
        return channel if channel is not None and asked.get(name) is channel else None

    def _move(self, channel: FollowedChannel, position: int) -> None:
        channel.position = position
        self.moves += 1


def check_position(channel: str, position: object) -> None:
    """Raises InvalidPosition."""
    if isinstance(position, int) and not isinstance(position, bool) and abs(position) < 10**18:
        return
    if not (isinstance(position, str) and _BY_GLOBAL_ID.fullmatch(position)):
        raise InvalidPosition(channel, position)


def encode_query(positions: Mapping[str, Position], epoch: str | None, grants: Iterable[str] = (), **more: int) -> str:
    """Positions, epoch and grants as a query string or a form. ``epoch``: ``None`` to send none."""
    pairs: dict[str, Position] = dict(positions)
    if epoch is not None:
        pairs[EPOCH_KEY] = epoch
    if tokens := ",".join(grants):
        pairs[GRANTS_KEY] = tokens
    return urlencode({**pairs, **more}, quote_via=quote, safe="")
