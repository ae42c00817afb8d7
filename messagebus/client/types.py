"""The values that a client gives its program. All of them are frozen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from ..errors import MessageBusError

Transport = Literal["websocket", "eventsource", "streaming", "long-polling", "polling"]
"""The transports, from the best to the last."""
TRANSPORTS: tuple[Transport, ...] = ("websocket", "eventsource", "streaming", "long-polling", "polling")

ConnectionState = Literal["connecting", "connected", "reconnecting", "stopped"]
"""``connecting``: started, not connected yet. ``connected``: messages come in; between two polls as well.
``reconnecting``: was connected, and is trying to connect again. ``stopped``: before ``start()`` and after
``stop()``."""

Position = int | str
"""``n >= 0``: every message after number n; 0 is the whole backlog. ``-1``: what comes from now on. ``-k``: the last
k-1 messages, then what comes. ``"@g"``: every message after global id g. Of a pattern, such as ``/news/*``, all
numbers are global ids."""


@dataclass(frozen=True, slots=True)
class ClientMessage:
    """One publication, as a client gets it."""

    channel: str
    data: Any
    """Any JSON value."""
    message_id: int
    """The id on the channel, from 1, without holes. Of a transient message: that of the last one before it."""
    global_id: int
    """The id over all channels of the store."""
    transient: bool = False
    """Whether it is not kept, and has no id of its own."""

    def id_of(self, name: str) -> int | None:
        """Its id to those who follow ``name``: a channel, or a pattern such as ``/news/*``, whose ids are global ids.
        ``None`` if it is not of that, and for a transient message."""
        if self.transient:
            return None
        if name == self.channel:
            return self.message_id
        return self.global_id if name.endswith("*") and self.channel.startswith(name[:-1]) else None


@dataclass(frozen=True, slots=True)
class Gap:
    """Messages of a channel that are gone for good: every id in ``after < id < before``."""

    channel: str
    after: int | None
    """``None``: the store was reset; discard what is known of the channel."""
    before: int


@dataclass(frozen=True, slots=True)
class StateInfo:
    """What ``on_state_change`` gets in addition to the state."""

    transport: Transport | None = None
    """The transport in use, or in use before the connection broke; ``None`` if none has worked yet."""
    message: str | None = None
    """What went wrong, in words; for people and logs."""
    status: int | None = None
    """HTTP status of the refusal, for instance 403."""
    delay: float | None = None
    """Seconds until the next attempt."""
    code: str | None = None
    """The error code for programs: that of the server's error body, ``redirected``, or ``not_a_batch``."""
    url: str | None = None
    """The target of the redirect."""
    retry: bool = True
    """``False`` if waiting does not help and a person has to act. The client asks again every ``max_poll_interval``,
    and at once on :meth:`Client.retry`."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A channel that the server refused. The client's other channels continue."""

    channel: str
    code: str
    """For instance ``forbidden``, ``too_many_channels`` or ``unavailable``; see docs/protocol.md."""
    message: str
    retry: bool
    """``True``: the client asks for the channel again by itself. ``False``: a person has to act."""
    retry_after: float | None = None
    """Seconds after which the client asks again."""


@dataclass(frozen=True, slots=True)
class Stats:
    """A snapshot of a client; the counters start when the client is made."""

    state: ConnectionState
    transport: Transport | None
    """The transport in use; ``None`` before the first connection and after ``stop()``."""
    requests: int
    """Requests and WebSocket handshakes sent."""
    reconnects: int
    """Number of connections that replaced a lost one."""
    messages: int
    """Messages of channels that were given to callbacks."""
    bytes: int
    """Bytes received, heads and frames included."""
    last_error: str | None
    """The last error, however long ago."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a connection failed."""

    message: str
    status: int | None = None
    retry_after: str | None = None
    """The header, as it came."""
    code: str | None = None
    url: str | None = None
    silence: bool = False
    """Whether the connection was silent for too long."""
    by_server: bool = False
    """Whether the server said that it ends the connection, and why: a close with 1001, 1012 or 1013."""


class PublishError(MessageBusError):
    """A client's publish failed. ``code``: ``disconnected`` or ``timeout`` (no answer came: the message may or may not
    have been published), or the server's code, for instance ``forbidden``. ``field``: the part or the limit that it is
    about, if the server names one; ``retry_after``: the seconds after which it may succeed."""

    def __init__(self, code: str, message: str, field: str | None = None, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.field = field
        self.retry_after = retry_after


Callback = Callable[[ClientMessage], object]
OnGap = Callable[[Gap], object]
OnRefused = Callable[[Refusal], object]
OnStateChange = Callable[[ConnectionState, StateInfo], object]
