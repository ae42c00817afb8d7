"""Exceptions and close codes. Imports nothing of the package.

::

    MessageBusError
    ├── InvalidChannel (ValueError)      a channel name that breaks the rules
    ├── InvalidSite (ValueError)         a site's id that breaks the rules
    ├── InvalidPosition (ValueError)     a position that is not a number of the grammar
    ├── InvalidData (ValueError)         data that JSON cannot express
    │   └── MessageTooLarge              data over ``max_message_size``
    ├── InvalidTargets (ValueError)      targets that would reach nobody, or a restricted ``/global/`` channel
    ├── InvalidMember (ValueError)       a member of a room without an id, or of too much info
    ├── InvalidOption (ValueError)       a setting that is unknown or out of range
    ├── PresenceFull (RuntimeError)      a process holds as many members as it can
    ├── BusClosed (RuntimeError)         the bus was closed
    ├── ConnectionClosed                 a socket of the application's own has ended
    ├── PublishRefused                   the store does not take the message, and waiting will not change that
    ├── NotDurable                       the store has the message, but not as many of its replicas as were asked for
    └── BackendUnavailable               the store gave no answer, or takes no messages now
        └── PublishQueueFull             nor is there room to keep the message until it does
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class MessageBusError(Exception):
    """Base of every error that this package raises on purpose."""


class InvalidChannel(MessageBusError, ValueError):
    """A channel name breaks the rules; ``channel`` is what was given, ``reason`` what is wrong with it."""

    def __init__(self, channel: object, reason: str) -> None:
        super().__init__(f"channel {_short(channel)}: {reason}")
        self.channel = channel
        self.reason = reason


class InvalidSite(MessageBusError, ValueError):
    """A site's id breaks the rules; ``site_id`` is what was given, ``reason`` what is wrong with it."""

    def __init__(self, site_id: object, reason: str) -> None:
        super().__init__(f"site {_short(site_id)}: {reason}")
        self.site_id = site_id
        self.reason = reason


class InvalidPosition(MessageBusError, ValueError):
    """A position is neither an integer nor ``@`` and a global id; ``position`` is what was given."""

    def __init__(self, channel: str, position: object) -> None:
        super().__init__(
            f"position {_short(position)} of channel {channel}: expected an integer (-1 for new messages only), "
            "or '@' and a global id"
        )
        self.channel = channel
        self.position = position


class InvalidData(MessageBusError, ValueError):
    """``data`` contains something that JSON cannot express."""


class MessageTooLarge(InvalidData):
    """The encoded message has ``size`` bytes, more than the ``limit`` set by ``max_message_size``, or than a transient
    message may have."""

    def __init__(
        self, size: int, limit: int, name: str = "max_message_size", says: str = "max_message_size allows"
    ) -> None:
        super().__init__(f"the message has {size} bytes; {says} {limit}")
        self.name = name
        self.size = size
        self.limit = limit


class InvalidTargets(MessageBusError, ValueError):
    """``user_ids``, ``group_ids`` or ``client_ids`` of a publish are wrong: they would reach nobody, or have the wrong
    type."""


class InvalidMember(MessageBusError, ValueError):
    """A member of a room has no id, or its id or its info cannot be told to others."""


class InvalidOption(MessageBusError, ValueError):
    """A setting is unknown, of the wrong type or out of range; ``option`` is its name, ``reason`` what is wrong."""

    def __init__(self, option: str, reason: str) -> None:
        super().__init__(f"option {option}: {reason}")
        self.option = option
        self.reason = reason


class PresenceFull(MessageBusError, RuntimeError):
    """A process holds as many members of rooms as it can."""


class BusClosed(MessageBusError, RuntimeError):
    """The bus was closed; make a new :class:`messagebus.Bus` or configure this one again."""


class ConnectionClosed(MessageBusError):
    """A socket of the application's own has ended: nothing more comes, and nothing can be sent.

    ``code`` is the close code (RFC 6455, section 7.4); 1006: the connection broke, or took nothing any more.
    ``reason`` is a text for people, up to 123 bytes, often empty."""

    def __init__(self, code: int, reason: str = "") -> None:
        super().__init__(f"the connection has ended: {code}{f' {reason}' if reason else ''}")
        self.code = code
        self.reason = reason


class PublishRefused(MessageBusError):
    """The store refused a message for good: waiting does not help, a person has to act. Nothing was stored, and no id
    was used. The text contains the store's own message.

    ``reason`` is one of:

    - ``"forbidden"``: the store's user has no right to do it;
    - ``"unauthenticated"``: the store's user cannot log in;
    - ``"wrong type"``: a key or table of the bus holds something else;
    - ``"unsupported"``: the store lacks something that the bus needs;
    - ``"error"``: any other refusal.
    """

    def __init__(self, message: str, reason: str = "error") -> None:
        super().__init__(message)
        self.reason = reason


class NotDurable(MessageBusError):
    """The messages are stored and have their ids, but are not safe yet: fewer replicas than ``durable`` asked for have
    told in time that they have them. They may still come to have them.

    ``ids`` are those of all messages of the publish, ``wanted`` and ``reached`` numbers of replicas. To publish again
    would store them twice, unless the publish has an ``idempotency_key``: then it waits for the replicas once more."""

    def __init__(self, ids: Sequence[tuple[int, int]], wanted: int, reached: int) -> None:
        super().__init__(
            f"{len(ids)} {'message is' if len(ids) == 1 else 'messages are'} stored, but not safe yet: "
            f"{reached} of {wanted} replicas have told that they have what was written"
        )
        self.ids = tuple(ids)
        self.wanted = wanted
        self.reached = reached


class BackendUnavailable(MessageBusError):
    """The store gave no answer, or accepts no messages now. The message may or may not have been stored.

    ``reason`` is one of:

    - ``"gone"``: no connection, or no answer in time;
    - ``"busy"``: it answers that it cannot serve now: it is starting, runs a long command, has too many clients, or a
      lock is held;
    - ``"full"``: it is out of memory or disk space;
    - ``"read-only"``: it is a replica, or configured as read-only;
    - ``"forbidden"``: a read that the store's user is not allowed; a person has to change that;
    - ``"unauthenticated"``: earlier messages wait for a store whose user cannot log in any more.
    """

    def __init__(self, message: str, reason: str = "gone") -> None:
        super().__init__(message)
        self.reason = reason


class PublishQueueFull(BackendUnavailable):
    """The store is unreachable, and ``publish_queue_size`` messages already wait for it: this one was not accepted."""


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


@dataclass(frozen=True)
class Close:
    """Why a connection ends: the WebSocket close ``code`` (RFC 6455, section 7.4) and a reason for people."""

    code: int
    reason: str


NORMAL = Close(1000, "")
SHUTDOWN = Close(1001, "server shutdown")
MALFORMED = Close(1007, "malformed JSON")
VIOLATION = Close(1002, "protocol error")
BINARY = Close(1003, "text frames only")
NOT_TEXT = Close(1007, "text that is not UTF-8")
FAILED = Close(1011, "the server has failed")
TOO_MANY_TALKS = Close(1013, "max_talks are under way, come back")
TOO_MANY_COMMANDS = Close(1008, "too many commands")
TOO_BIG = Close(1009, "frame over the limit")
REPLACED = Close(1000, "replaced by a newer request")
RESYNC = Close(1012, "the store was reset or messages were missed, come back")
SLOW = Close(1013, "too slow a reader, come back")
DISCONNECTED = 4403
"""The close code of a client that the application has disconnected, and that is not to come back."""
DISCONNECTED_FOR_NOW = 4000
"""The same for one that is to come back."""
