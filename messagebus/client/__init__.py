"""A client of the bus for Python programs: the sibling of the JavaScript one, with the same rules.

::

    client              what programs call
    listening           a loop over messages
    mailbox             the queue behind it
    runner              the client's thread: connections, one after the other, and callbacks
    commands            publishes and subscribes on an open WebSocket
    links               a connection of each transport: from a request to batches
    http11              HTTP on a byte stream
    byte_stream         sockets, TLS and waiting
    channels            positions, and what a batch does to them         no I/O
    transport_selector  which transport next, and when                   no I/O
    parsers             bytes to batches                                 no I/O
    settings            settings, and the server's address               no I/O
    types               what programs are given                          no I/O
"""

from __future__ import annotations

from .client import Client
from .listening import Listening
from .settings import Settings
from .types import ClientMessage, Gap, PublishError, Refusal, StateInfo, Stats

__all__ = ["Client", "ClientMessage", "Gap", "Listening", "PublishError", "Refusal", "Settings", "StateInfo", "Stats"]
