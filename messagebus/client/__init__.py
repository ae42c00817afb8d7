"""A client of the bus for Python programs: the sibling of the JavaScript one, with the same rules.

::

    client              what programs call
    mailbox             the queue behind a loop over messages
    runner              the client's thread: connections, one after the other, and callbacks
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
from .settings import Settings
from .types import ClientMessage, Gap, PublishError, StateInfo, Stats

__all__ = ["Client", "ClientMessage", "Gap", "PublishError", "Settings", "StateInfo", "Stats"]
