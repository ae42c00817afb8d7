"""A client of the bus for Python programs. It follows the same rules as the JavaScript client.

::

    client              what programs of threads call
    async_client        what programs of asyncio call
    base                what both have in common
    listening           a loop over messages
    mailbox             the queue behind it
    runner              connections, one after the other, and callbacks
    commands            publishes and subscribes on an open WebSocket
    posting             publishes by requests
    links               a connection of each transport: from a request to batches
    http11              HTTP on a byte stream
    byte_stream         sockets and TLS
    waiting             where a thread waits
    async_waiting       where an event loop waits
    channels            positions, and what a batch does to them         no I/O
    transport_selector  which transport next, and when                   no I/O
    parsers             bytes to batches                                 no I/O
    settings            settings, and the server's address               no I/O
    types               what programs are given                          no I/O
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .client import Client
from .listening import Listening
from .settings import Settings
from .types import ClientMessage, Gap, PublishError, Refusal, StateInfo, Stats

if TYPE_CHECKING:
    from .async_client import AsyncClient

__all__ = [
    "AsyncClient",
    "Client",
    "ClientMessage",
    "Gap",
    "Listening",
    "PublishError",
    "Refusal",
    "Settings",
    "StateInfo",
    "Stats",
]


def __getattr__(name: str) -> Any:
    # It brings asyncio along, which the client for threads does without.
    if name == "AsyncClient":
        from .async_client import AsyncClient

        return AsyncClient
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
