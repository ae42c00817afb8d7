"""What is read of the SQLite file's messages, within the transaction of the caller."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Sequence
from typing import Any

from ..codecs import Codec
from ..message import decode_message
from .sequencer import Entry, Unreadable

logger = logging.getLogger("messagebus.stores")

Row = tuple[int, int, str, Any]
"""Global id, message id, name, envelope."""
MESSAGES = """SELECT global_id, message_id, name, envelope
    FROM messages JOIN channels ON channels.id = messages.channel WHERE """


def messages_after(connection: sqlite3.Connection, global_id: int, limit: int) -> list[Row]:
    """The messages of all channels after a global id, also those that only feeds may read; ``limit`` -1: all."""
    return connection.execute(MESSAGES + "global_id > ? ORDER BY global_id LIMIT ?", (global_id, limit)).fetchall()


def entries_of(rows: Sequence[Row], codec: Codec | None) -> list[Entry]:
    """The messages. What cannot be decoded is logged."""
    entries: list[Entry] = []
    for global_id, message_id, name, envelope in rows:
        try:
            entries.append(decode_message(global_id, message_id, name, envelope, codec))
        except ValueError as error:
            logger.warning("skipped a message that cannot be decoded: %s", error)
            entries.append(Unreadable(global_id))
    return entries
