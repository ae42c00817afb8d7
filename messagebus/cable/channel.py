"""What programs write: :class:`Channel`, and the :class:`Connection` that it sees. No threads, no wire."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ..publishing.arguments import PublishOptions

Method = TypeVar("Method", bound=Callable[..., Any])
EVERY = "_messagebus_every"
"""The attribute of a method that is called at an interval: its seconds."""
SHORTEST_INTERVAL = 0.1
"""Seconds, as precise as the loop's deadlines are."""


class Connection:
    """The connection of a client, as its channels see it. Read only."""

    __slots__ = ("_is_granted", "address", "client_id", "identifiers", "site_id", "user_id")

    def __init__(
        self,
        client_id: str,
        user_id: Any,
        site_id: str | None,
        address: str,
        identifiers: Mapping[str, Any],
        is_granted: Callable[[str], bool],
    ) -> None:
        self.client_id = client_id
        """Another one for each connection on ``/cable``; of our own client, its id."""
        self.user_id = user_id
        """As ``user_id_lookup`` or the ``connect`` hook returned it; ``None``: nobody is signed in."""
        self.site_id = site_id
        self.address = address
        """Where it comes from; empty: not known."""
        self.identifiers = identifiers
        """What the ``connect`` hook returned, by name. Each is an attribute as well."""
        self._is_granted = is_granted

    def is_granted(self, channel: str) -> bool:
        """Whether the client has shown a valid token of ``Bus.grant`` for a channel."""
        return self._is_granted(channel)

    def __getattr__(self, name: str) -> Any:
        try:
            return self.identifiers[name]
        except KeyError:
            known = ", ".join(self.identifiers) or "nothing"
            raise AttributeError(f"the connection is identified by {known}, not by {name}") from None


class Link(Protocol):
    """What a channel needs of its subscription. From the thread of the call only."""

    @property
    def is_rejected(self) -> bool: ...

    def reject(self) -> None: ...

    def stream_from(self, channel: str, last_id: int, whisper: bool) -> None: ...

    def stop_stream_from(self, channel: str) -> None: ...

    def stop_all_streams(self) -> None: ...

    def transmit(self, data: Any) -> None: ...

    def broadcast(self, channel: str, data: Any, options: PublishOptions) -> int | None: ...


class Channel:
    """Base of a channel class; ``@MessageBus.channel`` registers one. Each subscription has an instance of its own,
    which lives as long as the subscription.

    Its methods are called one after the other, in a thread or greenlet where they may block, and in the app's context
    with the request that opened the connection. What they raise is logged; the client is told that the call failed.
    ``abort(403)`` of Flask is told with its description.

    The *actions* that a client may call are the public methods that the class itself defines: no inherited ones, none
    that begins with ``_``, no property and no static or class method. An action takes the client's data (a dict), or
    nothing.
    """

    def __init__(self, link: Link, connection: Connection, params: Mapping[str, Any]) -> None:
        self._link = link
        self.connection = connection
        """Who is connected."""
        self.params = params
        """What the client subscribes with."""

    @property
    def user_id(self) -> Any:
        """The connection's user; ``None``: nobody is signed in."""
        return self.connection.user_id

    @property
    def client_id(self) -> str:
        return self.connection.client_id

    # --- to be overridden ---

    def subscribed(self) -> None:
        """A client subscribes: :meth:`reject` it, or follow channels with :meth:`stream_from`. If it raises, the client
        is rejected."""

    def unsubscribed(self) -> None:
        """The subscription has ended: it was rejected, the client has left, or its connection has ended, also because
        the server stops. Called once for each call of :meth:`subscribed`, whatever became of that."""

    # --- to be called ---

    @property
    def is_rejected(self) -> bool:
        return self._link.is_rejected

    def reject(self) -> None:
        """Refuse the subscription, once :meth:`subscribed` returns. Later it does nothing."""
        self._link.reject()

    def stream_from(self, channel: str, *, last_id: int = -1, whisper: bool = False) -> None:
        """Send the client every message of a channel of the bus.

        ``last_id``: the id to continue after; -1: new messages only; ``-k``: the last k-1 and new ones. A client that
        comes back with its position on the channel resumes there instead. Whether it may have the channel is decided
        here: ``authorize`` hooks are not asked.

        ``whisper``: whether what the client whispers (AnyCable's ``channel.whisper``) goes to the others on this
        channel: a transient message, as the client has said it. Where several streams have it, to the last one.

        Raises:
            InvalidChannel: ``channel`` is no channel's name.
            InvalidPosition: ``last_id`` is no whole number.
            ValueError: The subscription follows ``max_channels`` already.
            BackendUnavailable: The store gave no answer. (In :meth:`subscribed` the client is rejected instead.)
        """
        self._link.stream_from(channel, last_id, whisper)

    def stop_stream_from(self, channel: str) -> None:
        """Send no more messages of a channel."""
        self._link.stop_stream_from(channel)

    def stop_all_streams(self) -> None:
        """Send no more messages of any channel."""
        self._link.stop_all_streams()

    def transmit(self, data: Any) -> None:
        """Send data to this client alone; not kept. What is sent in :meth:`subscribed` comes after the confirmation.

        Raises:
            InvalidData: ``data`` is no JSON value.
        """
        self._link.transmit(data)

    def broadcast(self, channel: str, data: Any, **options: Unpack[PublishOptions]) -> int | None:
        """Publish on a channel of the bus, of the connection's site. Arguments, result and errors are those of
        ``Bus.publish``."""
        return self._link.broadcast(channel, data, options)

    @staticmethod
    def periodically(*, every: float) -> Callable[[Method], Method]:
        """Decorator for a method that is called every so many seconds, from when the client is confirmed until the
        subscription ends. While one call waits or runs, no other is added. It is no action.

        Raises:
            ValueError: ``every`` is below 0.1 s, or above a day.
        """
        given: object = every
        if not isinstance(given, (int, float)) or not SHORTEST_INTERVAL <= given <= 86_400:
            raise ValueError(f"every: expected {SHORTEST_INTERVAL} to 86400 seconds, not {every!r}")

        def mark(method: Method) -> Method:
            setattr(method, EVERY, float(every))
            return method

        return mark
