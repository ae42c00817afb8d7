"""What a client tells its program. Values only, all of them frozen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from ..errors import MessageBusError

Transport = Literal["websocket", "eventsource", "streaming", "long-polling", "polling"]
"""How messages come here, from the best to the least."""
TRANSPORTS: tuple[Transport, ...] = ("websocket", "eventsource", "streaming", "long-polling", "polling")

ConnectionState = Literal["connecting", "connected", "reconnecting", "stopped"]
"""``connecting``: started, never yet connected. ``connected``: messages come in; between two polls as well.
``reconnecting``: was connected, and tries to be again. ``stopped``: before ``start()`` and after ``stop()``."""

Position = int | str
"""``n >= 0``: every message after number n; 0 is the whole backlog. ``-1``: what comes from now on. ``-k``: the last
k-1 messages, then what comes. ``"@g"``: every message after global id g."""


@dataclass(frozen=True, slots=True)
class ClientMessage:
    """One publication, as a client gets it."""

    channel: str
    data: Any
    """Any JSON value."""
    message_id: int
    """Its number on its channel, from 1, without holes."""
    global_id: int
    """Its number over all channels of the store."""


@dataclass(frozen=True, slots=True)
class Gap:
    """Messages of a channel that are gone for good: every id in ``after < id < before``."""

    channel: str
    after: int | None
    """``None``: the store was begun anew, and what was known of the channel means nothing any more."""
    before: int


@dataclass(frozen=True, slots=True)
class StateInfo:
    """What ``on_state_change`` is told beside the state."""

    transport: Transport | None = None
    """The transport in use, or in use before the connection broke; ``None`` where none has worked yet."""
    message: str | None = None
    """What went wrong, in words; for people and logs."""
    status: int | None = None
    """HTTP status of the answer that refused, such as 403 for a channel that one may not follow."""
    delay: float | None = None
    """Seconds until the next attempt."""
    code: str | None = None
    """What a program can tell it by: the code of the server's error body, ``redirected``, or ``not_a_batch``."""
    url: str | None = None
    """Where it was redirected to."""
    retry: bool = True
    """``False`` where waiting cannot mend it, and a person has to. The client asks again every ``max_poll_interval``,
    and at once on :meth:`Client.retry`."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A channel that the server refused. The other channels of the client go on."""

    channel: str
    code: str
    """Such as ``forbidden``, ``too_many_channels`` or ``unavailable``; see docs/protocol.md."""
    message: str
    retry: bool
    """``True``: time mends it, and the client asks for the channel again by itself. ``False``: a person has to."""
    retry_after: float | None = None
    """Seconds after which the client asks again."""


@dataclass(frozen=True, slots=True)
class Stats:
    """A client at one moment; its numbers count from when the client was made."""

    state: ConnectionState
    transport: Transport | None
    """The transport in use; ``None`` before the first connection and after ``stop()``."""
    requests: int
    """Requests and WebSocket handshakes sent."""
    reconnects: int
    """Times that a connection was made again after one had been lost."""
    messages: int
    """Messages of channels that were given to callbacks."""
    bytes: int
    """Bytes received, heads and frames included."""
    last_error: str | None
    """What went wrong last, however long ago."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a connection did not come to be, or to its end in order."""

    message: str
    status: int | None = None
    retry_after: str | None = None
    """The header, as it came."""
    code: str | None = None
    url: str | None = None
    silence: bool = False
    """Whether it ended since nothing came for too long."""
    by_server: bool = False
    """Whether the server said that it ends the connection, and why: a close with 1001, 1012 or 1013."""


class PublishError(MessageBusError):
    """A client's publish failed. ``code``: ``unsupported`` (no WebSocket is open now), ``disconnected`` or ``timeout``
    (no answer came: it may or may not have been published), or what the server says, such as ``forbidden``."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


Callback = Callable[[ClientMessage], object]
OnGap = Callable[[Gap], object]
OnRefused = Callable[[Refusal], object]
OnStateChange = Callable[[ConnectionState, StateInfo], object]
