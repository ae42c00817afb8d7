"""Where a command works: at a store, or at a server that has the bus. Both can do the same for a command."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, NamedTuple

from ..message import Message
from ..statistics.why import Finding

AT_ONCE = 1000
"""Messages of one publish."""


class Published(NamedTuple):
    """What is known after a publish of one or several messages on a channel."""

    channel: str
    message_id: int | None
    """Of the last one; ``None``: the server keeps it until its store is back."""
    global_id: int | None
    subscribers: int | None = None
    """Over all processes; ``None``: the place does not know."""


class Channel(NamedTuple):
    """A channel that has messages."""

    channel: str
    stored_messages: int
    """That are kept."""
    published_messages: int
    """Over its life: the newest message's id."""
    subscribers: int | None = None
    """Over all processes; ``None``: the place does not know."""
    site: str | None = None


class Channels(NamedTuple):
    """Channels that have messages."""

    found: Iterator[Channel]
    """In no order; read as they are asked for."""
    away: set[int]
    """Partitions of the store that gave no answer while these were read: what they have is not among them."""


class Backlog(NamedTuple):
    """What is kept of a channel."""

    newest: int
    """The channel's last message id."""
    messages: Iterator[Message]
    """As far as that one; read as they are asked for."""


class Place(ABC):
    """A store or a server. For one thread; only :meth:`publish` may be called in another at the same time.

    Every method may raise ``CannotDo`` or ``BackendUnavailable`` (nobody answers), ``Failed`` (it is not allowed), and
    the bus's own errors for what is wrong with an argument."""

    @abstractmethod
    def check(self, channel: str) -> None:
        """Raises if it does not answer, or lets this key not publish on the channel, as far as it says so."""

    @abstractmethod
    def publish(self, channel: str, data: Sequence[Any], options: dict[str, Any]) -> Published:
        """Publish 1 to ``AT_ONCE`` JSON values in their order, all or none. ``options``: of ``Bus.publish``.

        If it is repeated after an error with the same ``idempotency_key``, nothing is published twice.

        Raises:
            NotTaken, InvalidData: One of them is too large; or all of them together, for a server.
        """

    @abstractmethod
    def subscribe(self, channels: Sequence[str], last_id: int) -> Iterator[Message]:
        """The messages of channels as they come, without end. ``last_id``: ``n`` after message n of each channel; -1
        from now on; ``-k`` the last k-1 before.

        A store takes patterns with a ``*`` at the end as well, from now on."""

    @abstractmethod
    def watch(self, channel: str) -> Callable[[], Collection[str]]:
        """A function that tells which clients follow a channel now, to be called again and again in this thread. While
        the store is away, it tells who did.

        Raises:
            CannotDo: The place does not tell anybody.
        """

    @abstractmethod
    def backlog(self, channel: str, last_id: int) -> Backlog:
        """The messages that are kept of a channel. ``last_id``: ``n`` after message n; ``-k`` the last k-1."""

    @abstractmethod
    def channels(self, pattern: str = "/*") -> Channels:
        """The channels that have messages and match."""

    @abstractmethod
    def forget(self, channel: str) -> None:
        """Delete the messages of a channel. Its ids continue."""

    @abstractmethod
    def stats(self) -> dict[str, Any]:
        """The numbers of the bus, over all its processes, as ``Bus.stats`` has them."""

    @abstractmethod
    def why(self, channel: str, message_id: int, user: str | None, client: str | None) -> list[Finding]:
        """What became of a message for a user, or a client: see ``Bus.why``."""

    @abstractmethod
    def close(self) -> None:
        """End all connections. May be repeated."""
