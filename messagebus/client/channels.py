"""The channels that a client follows: positions, callbacks, and the effect of a batch. No I/O."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

from ..errors import InvalidPosition
from ..message import GAP_CHANNEL, STATUS_CHANNEL
from ..names import check_subscription
from ..wire import NEW_ONLY, parse_position
from .types import Callback, ClientMessage, Gap, Position, Refusal

EPOCH_KEY = "__epoch"
GRANTS_KEY = "__grants"
REFUSALS_KEY = "__refusals"
REFUSED_CHANNEL = "/__refused"
ASK_AGAIN = 30.0
"""Seconds after which a channel is asked for again that time will mend, where the server names no time."""


class Follower:
    """A callback on a channel, and its position."""

    __slots__ = ("callback", "seen")

    def __init__(self, callback: Callback, seen: int) -> None:
        self.callback = callback
        self.seen = seen


class FollowedChannel:
    """A channel from when it is followed until it is left; one that is followed again is another object."""

    __slots__ = ("ask_at", "followers", "is_pattern", "position", "waiting")

    def __init__(self, position: Position, followers: list[Follower], is_pattern: bool = False) -> None:
        """``is_pattern``: it stands for all channels that begin alike, and its ids are global ids."""
        self.is_pattern = is_pattern
        self.position = position
        self.followers = followers
        self.waiting: list[Follower] = []
        """Followers that want older messages, from when it is known where the others stand."""
        self.ask_at = -math.inf
        """When the server may be asked for it; later than now where it has been refused."""

    def id_of(self, message: ClientMessage) -> int:
        """The id of one of its messages."""
        return message.global_id if self.is_pattern else message.message_id

    @property
    def stands(self) -> int | None:
        """Its position where that is a message's id; ``None`` where only the server knows what it stands for."""
        return self.position if isinstance(self.position, int) and self.position >= 0 else None


Following = dict[str, FollowedChannel | None]
"""What a connection follows, by name; ``None``: no longer."""


class Delivery(NamedTuple):
    """Something to tell the program: a message to the callbacks of its channel, a gap, or a refusal."""

    channel: FollowedChannel
    value: ClientMessage | Gap | Refusal


class Channels:
    """See the module. Safe from any thread; calls no callback."""

    def __init__(self, epoch: str | None = None) -> None:
        """``epoch``: that of the store which the positions are of."""
        self.epoch = epoch
        self.moves = 0
        """Counts the movements of positions."""
        self._channels: dict[str, FollowedChannel] = {}
        self._left: dict[str, FollowedChannel] = {}
        """Channels that were left a moment ago. One that is followed again before the connection has been told goes on
        where it was."""
        self._lock = threading.Lock()

    def add(self, name: str, callback: Callback, position: Position) -> bool:
        """Follow a channel; whether the server has to be asked for it. A further callback may begin at a message's id
        of its own; with any other position it joins where the channel stands.

        Raises:
            InvalidChannel, InvalidPosition: It is not one.
        """
        check_subscription(name)
        check_position(name, position)
        wanted = position if isinstance(position, int) and position >= 0 else None
        follower = Follower(callback, -1 if wanted is None else wanted)
        with self._lock:
            channel = self._channels.get(name)
            if channel is None:
                left = self._left.pop(name, None)
                if left is not None and position == NEW_ONLY:
                    left.followers = [follower]
                    self._channels[name] = left
                else:
                    self._channels[name] = FollowedChannel(position, [follower], name.endswith("*"))
                return True
            if wanted is not None and channel.stands is None:
                channel.waiting = [*channel.waiting, follower]
                return False
            if wanted is not None and wanted < (channel.stands or 0):
                self._rewind(name, channel, [follower])
                return True
            channel.followers = [*channel.followers, follower]
            return False

    def _rewind(self, name: str, channel: FollowedChannel, followers: Iterable[Follower]) -> None:
        """Have the server asked again from where these followers begin. The others do not get again what they have."""
        stands = channel.stands or 0
        for follower in channel.followers:
            follower.seen = max(follower.seen, stands)
        new = list(followers)
        begin = min(stands, *(one.seen for one in new))
        again = FollowedChannel(begin, [*channel.followers, *new], channel.is_pattern)
        again.ask_at = channel.ask_at
        self._channels[name] = again

    def join_waiting(self) -> bool:
        """Let those join that waited for their channel's position; whether the server has to be asked for more."""
        rewound = False
        with self._lock:
            for name, channel in list(self._channels.items()):
                if channel.waiting and channel.stands is not None:
                    waiting, channel.waiting = channel.waiting, []
                    self._rewind(name, channel, waiting)
                    rewound = True
        return rewound

    def remove(self, name: str, callback: Callback | None) -> tuple[bool, bool]:
        """Remove a callback, or all, from a channel, or with ``/name/*`` from all that begin so. Whether there was
        something to remove, and whether a channel was left with it."""
        with self._lock:
            prefix = name[:-1] if name.endswith("*") else None
            names = [n for n in self._channels if (n == name if prefix is None else n.startswith(prefix))]
            removed = left = False
            for one in names:
                channel = self._channels[one]
                before = len(channel.followers) + len(channel.waiting)
                channel.followers = [f for f in channel.followers if callback is not None and f.callback != callback]
                channel.waiting = [f for f in channel.waiting if callback is not None and f.callback != callback]
                after = len(channel.followers) + len(channel.waiting)
                removed = removed or after < before
                if not after:
                    self._left[one] = self._channels.pop(one)
                    left = True
            return removed, left

    def followed(self, now: float) -> Following:
        """What the server is to be asked for now: all channels but those that it has refused."""
        with self._lock:
            return {name: channel for name, channel in self._channels.items() if channel.ask_at <= now}

    def next_ask(self, now: float) -> float | None:
        """When a channel that was refused may be asked for again; ``None`` where there is none."""
        with self._lock:
            later = [c.ask_at for c in self._channels.values() if now < c.ask_at < math.inf]
            return min(later, default=None)

    def compare(self, asked: Mapping[str, FollowedChannel | None], now: float) -> tuple[list[str], list[str]]:
        """The channels that a connection still has to be asked for, and those that it brings to nobody."""
        with self._lock:
            self._left.clear()
            due = [(name, channel) for name, channel in self._channels.items() if channel.ask_at <= now]
            added = [name for name, channel in due if asked.get(name) is not channel]
            removed = [name for name, channel in asked.items() if channel and name not in self._channels]
            return added, removed

    def refuse(self, refusals: Mapping[str, Any], asked: Following, now: float) -> list[Delivery]:
        """Note what the server has refused, and return whatever the program has to be told of it.

        Raises:
            ValueError: The value is malformed.
        """
        deliveries = []
        with self._lock:
            for name, refusal in refusals.items():
                channel = self._followed(name, asked)
                if channel is None:
                    continue
                try:
                    code, message, retry = refusal["code"], refusal["message"], bool(refusal["retry"])
                    after = refusal.get("retry_after", ASK_AGAIN) if retry else None
                    channel.ask_at = math.inf if after is None else now + float(after)
                except (TypeError, KeyError, AttributeError, ValueError, OverflowError) as error:
                    raise ValueError(f"not a refusal: {type(error).__name__} {error}") from None
                asked[name] = None
                deliveries.append(Delivery(channel, Refusal(name, str(code), str(message), retry, after)))
        return deliveries

    def after_fork(self) -> None:
        """In a forked child: another thread may have held the lock."""
        self._lock = threading.Lock()

    def ask_again(self) -> None:
        """Have the server asked for the channels that it has refused."""
        with self._lock:
            for channel in self._channels.values():
                channel.ask_at = -math.inf

    def positions(self) -> dict[str, Position]:
        """The position of each channel."""
        with self._lock:
            return {name: channel.position for name, channel in self._channels.items()}

    def move(self, channel: FollowedChannel, message_id: int) -> None:
        """The program has had a message, see :meth:`FollowedChannel.id_of`."""
        with self._lock:
            self._move(channel, message_id)

    # --- what the server sends ---

    def accept(self, message: Mapping[str, Any], asked: Following) -> list[Delivery]:
        """Take in one message of a batch, and return whatever the program has to be told of it: nothing for a status,
        and for what it has already seen. A status and a gap move positions at once; for a message the caller calls
        :meth:`move` when the program has been given it. ``asked``: what this connection follows.

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
            ids = int(message["message_id"]), int(message["global_id"])
            value = ClientMessage(name, data, *ids, bool(message.get("transient")))
        except (TypeError, KeyError, AttributeError, OverflowError) as error:
            raise ValueError(f"not a message of the bus: {type(error).__name__} {error}") from None
        with self._lock:
            channel = self._followed(name, asked) or self._pattern_of(name, asked)
            if channel is None:
                return []  # it was left
            position = channel.position
            if isinstance(position, int) and position >= channel.id_of(value) and not value.transient:
                return []  # a duplicate
            return [Delivery(channel, value)]

    def _accept_status(self, data: Mapping[str, Any], asked: Following) -> None:
        with self._lock:
            for name, position in data.items():
                if name == EPOCH_KEY:
                    # A server that knows nothing of epochs takes the key for a channel, and gives its position.
                    if isinstance(position, str):
                        self.epoch = position
                elif not name.startswith("__"):
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
                    if value.after is None:  # ids have begun again
                        for follower in (*channel.followers, *channel.waiting):
                            follower.seen = min(follower.seen, value.before - 1)
                    # The next connection must not hear of it again, even if nothing follows.
                    self._move(channel, value.before - 1)
                    deliveries.append(Delivery(channel, value))
        return deliveries

    def _followed(self, name: str, asked: Following) -> FollowedChannel | None:
        # Not if it was left and followed again since the connection began: that is for the next.
        channel = self._channels.get(name)
        return channel if channel is not None and asked.get(name) is channel else None

    def _pattern_of(self, name: str, asked: Following) -> FollowedChannel | None:
        """What brings the messages of a channel that is not followed by its name."""
        for pattern, channel in self._channels.items():
            if channel.is_pattern and name.startswith(pattern[:-1]) and asked.get(pattern) is channel:
                return channel
        return None

    def _move(self, channel: FollowedChannel, position: int) -> None:
        channel.position = position
        self.moves += 1


def check_position(channel: str, position: object) -> None:
    """Raises InvalidPosition."""
    if isinstance(position, str) and not position.startswith("@"):
        raise InvalidPosition(channel, position)  # to a program, a number is no text
    parse_position(channel, position)


def check_listen(channels: Sequence[str], position: object, max_waiting: int) -> None:
    """Raises InvalidChannel, InvalidPosition, TypeError or ValueError where ``listen`` is called wrongly."""
    if not channels:
        raise TypeError("listen() needs a channel")
    for channel in channels:
        check_subscription(channel)
        check_position(channel, position)
    if max_waiting < 1:
        raise ValueError("max_waiting: expected at least 1")


def encode_query(
    positions: Mapping[str, Position], epoch: str | None, grants: Iterable[str] = (), **more: object
) -> str:
    """Positions, epoch and grants as a query string or a form. ``epoch``: ``None`` to send none."""
    pairs: dict[str, object] = dict(positions)
    if epoch is not None:
        pairs[EPOCH_KEY] = epoch
    if tokens := ",".join(grants):
        pairs[GRANTS_KEY] = tokens
    return urlencode({**pairs, **more}, quote_via=quote, safe="")
