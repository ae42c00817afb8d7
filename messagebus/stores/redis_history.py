"""Whether the Redis that is reached now still has the history that the bus has numbered its messages in.

A server that starts, and a replica that is promoted, begins a *replication history* of its own, which it names in
``INFO replication``. What the one before had written last may be missing in it, and nobody there knows. So the store
keeps the name of the history that its epoch belongs to. Each connection asks for the server's, once; ``publish.lua``
gives no id where the two differ. Whoever meets that gives the store another epoch first, which notes up to which id it
has everything of the old one: all that is there, as nothing has been given since.

Where INFO is forbidden, or does not name the history, nothing of this happens.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import redis
from redis.exceptions import NoScriptError

from .redis_connection import exchange
from .redis_keys import RedisKeys
from .redis_scripts import Script
from .sequencer import EPOCH_CHANGED

EPOCHS = 32
"""Former epochs that a store remembers. Positions of older ones do not hold."""
_REFUSED = "HISTORY"
"""The word with which ``publish.lua`` refuses."""
UNKNOWN = b""
"""In the place of a history's name: the server does not say it, and nothing is refused."""
NOT_A_PRIMARY = b"-"
"""The same of a replica: its history is its primary's, and will be another one when it is promoted."""
_ARGUMENT = 10
"""Where the name stands in a command of ``publish.lua``, behind the number of its keys and the keys."""


class _Seen(NamedTuple):
    """What a connection was told."""

    sock: object
    """To whom it was connected then."""
    history: bytes


_NOTHING = _Seen(None, UNKNOWN)


class RedisHistory:
    """See the module. Safe from any thread: each call is about one connection, which is the caller's meanwhile."""

    def __init__(self, script: Script, keys: RedisKeys, channels: Sequence[bytes]) -> None:
        """``script``: ``renew_history.lua``. ``channels``: the pub/sub channels that feeds are told on."""
        self._script = script
        self._keys = keys
        self._channels = channels

    def publish(self, connection: Any, command: tuple[Any, ...]) -> Any:
        """Run ``publish.lua`` on a connection, where the store belongs to the server's history; give it another epoch
        first where it does not."""
        try:
            return exchange(connection, in_history(connection, command))
        except redis.ResponseError as error:
            if not is_refused(error):
                raise
        self._renew(connection)
        return exchange(connection, in_history(connection, command))

    def read(self, connection: Any, command: tuple[Any, ...]) -> Any:
        """Run an MGET of the epoch, the history, and whatever else, with the same care."""
        history = _history_of(connection)
        values = exchange(connection, command)
        if history == UNKNOWN or values[0] is None or values[1] == history:
            return values
        self._renew(connection)
        return exchange(connection, command)

    def _renew(self, connection: Any) -> None:
        """Give the store another epoch, unless it belongs to the server's history."""
        history = _ask(connection)  # again: it may have changed under an open connection
        if history == NOT_A_PRIMARY:
            raise redis.ReadOnlyError("this server is a replica")
        if history == UNKNOWN:
            return
        keys = self._keys
        names = (keys.epoch, keys.history, keys.lineage, keys.global_id, keys.known)
        arguments = (history, secrets.token_hex(8), EPOCHS, EPOCH_CHANGED, *self._channels)
        command = (b"EVALSHA", self._script.sha, len(names), *names, *arguments)
        try:
            exchange(connection, command)
        except NoScriptError:
            exchange(connection, (b"SCRIPT", b"LOAD", self._script.text))
            exchange(connection, command)


def in_history(connection: Any, command: tuple[Any, ...]) -> tuple[Any, ...]:
    """A command of ``publish.lua``, with the history of the server that a connection leads to."""
    at = _ARGUMENT + command[2]
    return (*command[:at], _history_of(connection), *command[at + 1 :])


def is_refused(answer: object) -> bool:
    """Whether ``publish.lua`` has refused because of the history."""
    return isinstance(answer, redis.ResponseError) and str(answer).startswith(_REFUSED)


def _history_of(connection: Any) -> bytes:
    seen: _Seen = getattr(connection, "messagebus_history", _NOTHING)
    return seen.history if seen.sock is connection._sock else _ask(connection)


def _ask(connection: Any) -> bytes:
    try:
        found = _facts(exchange(connection, (b"INFO", b"replication")))
    except redis.ResponseError:
        found = {}
    history = found.get(b"master_replid", UNKNOWN)
    if history != UNKNOWN and found.get(b"role") != b"master":
        history = NOT_A_PRIMARY
    connection.messagebus_history = _Seen(connection._sock, history)
    return history


def _facts(answer: bytes) -> dict[bytes, bytes]:
    lines = (line.partition(b":") for line in answer.splitlines())
    return {name: value for name, _, value in lines}


def read_lineage(value: bytes | None, epoch: str | None) -> Mapping[str, int]:
    """The lineage as it is stored: the epoch that it belongs to, then older ones, newest first, and up to which id each
    is shared. Empty where it belongs to another epoch than the store's: something has renewed that without it."""
    if not value or epoch is None:
        return {}
    head, *entries = value.decode("ascii", "replace").split(" ")
    if head != epoch:
        return {}
    pairs = (entry.rpartition(":") for entry in entries)
    return {name: int(shared) for name, _, shared in pairs if name and shared.isascii() and shared.isdigit()}
