"""What a publish writes into the SQLite store, within the transaction of its caller."""

from __future__ import annotations

import secrets
import sqlite3
import time
import zlib
from collections.abc import Sequence
from typing import NamedTuple

from ..errors import PublishRefused
from ..message import Ids
from .base import REMEMBERED, Publication, PublicationId, ids_age

FOR_FEEDS = 2000
"""Newest messages that stay in the file, at least, also where their channel keeps fewer: for the feeds, which have yet
to read them. A feed that is further behind has lost messages."""
DELETE_EVERY = 16
"""Messages of a channel between two times that what its backlog has no more is deleted. It writes other pages than the
rest of a publish."""
GROUPS = 0xFFFF
SWEPT_AT_ONCE = 1000
"""Channels that one sweep looks at."""
SWEEP_SOON, SWEEP_LATER = 1.0, 60.0
"""Seconds until the next sweep: within a round over all channels, and after it."""


class _Part(NamedTuple):
    """What one publish has for one channel."""

    messages: int
    size: int
    age: int


def publish(
    connection: sqlite3.Connection,
    messages: Sequence[Publication],
    publication_id: PublicationId | None,
    max_global_size: int,
    clear_every: int,
) -> list[Ids]:
    """See ``Store.publish_many``. Writes nothing where it raises ``PublishRefused``."""
    now = time.time()
    if publication_id is not None:
        known = _known(connection, publication_id, now)
        if known is not None:
            return known
    count = len(messages)
    former, epoch, first, until, sweep_at = connection.execute(
        "SELECT global_id, epoch, global_first, global_until, sweep_at FROM state"
    ).fetchone()
    newest = former + count
    if until <= now:
        first = former + 1
    if newest // clear_every > former // clear_every:
        first = max(first, newest // clear_every * clear_every - max_global_size + 1)
    connection.execute(
        "UPDATE state SET global_id = ?, epoch = ?, global_first = ?, global_until = ?",
        (newest, epoch or secrets.token_hex(8), first, max(until, now + max(message[3] for message in messages))),
    )
    parts: dict[str, _Part] = {}
    for name, _, size, age in messages:
        before = parts.get(name)
        parts[name] = _Part(before.messages + 1 if before else 1, size, age)
    floor = newest - max(FOR_FEEDS, max_global_size)
    numbers: dict[str, tuple[int, int]] = {}
    trimmed = []
    for name, part in parts.items():
        channel, last_id, first_id = _advance(connection, name, part, clear_every, now)
        numbers[name] = channel, last_id - part.messages
        if last_id // DELETE_EVERY > (last_id - part.messages) // DELETE_EVERY:
            trimmed.append((channel, first_id, 2 * (part.messages + DELETE_EVERY), floor))
    rows, given = [], []
    for global_id, (name, envelope, _, _) in enumerate(messages, former + 1):
        channel, last_id = numbers[name]
        numbers[name] = channel, last_id + 1
        given.append(Ids(last_id + 1, global_id))
        rows.append((global_id, channel, last_id + 1, envelope))
    connection.executemany("INSERT INTO messages VALUES (?, ?, ?, ?)", rows)
    # The oldest of what is left over, and more of it than has come since: so it does not grow.
    connection.executemany(
        """DELETE FROM messages WHERE global_id IN (
            SELECT global_id FROM messages WHERE channel = ? AND message_id < ? ORDER BY message_id LIMIT ?
        ) AND global_id <= ?""",
        trimmed,
    )
    if publication_id is not None:
        _remember(connection, publication_id, given, now)
    if sweep_at <= now:
        _sweep(connection, floor, now)
    return given


def _advance(
    connection: sqlite3.Connection, name: str, part: _Part, clear_every: int, now: float
) -> tuple[int, int, int]:
    """Count a channel's messages. Returns its row's id, its new last id, and its new first."""
    row = connection.execute(
        "SELECT id, last_id, first_id, backlog_until FROM channels WHERE name = ?", (name,)
    ).fetchone()
    if row is None:
        forgotten = connection.execute("SELECT last_id FROM forgotten WHERE hash = ?", (group_of(name),)).fetchone()
        channel, last_id = None, forgotten[0] if forgotten else 0
        first_id = last_id + 1
    else:
        channel, last_id, first_id, backlog_until = row
        if backlog_until <= now:
            first_id = last_id + 1
    new = last_id + part.messages
    if new // clear_every > last_id // clear_every:
        first_id = max(first_id, new // clear_every * clear_every - part.size + 1)
    times = (now + part.age, now + ids_age(part.age))
    if channel is None:
        cursor = connection.execute(
            "INSERT INTO channels (name, last_id, first_id, backlog_until, ids_until) VALUES (?, ?, ?, ?, ?)",
            (name, new, first_id, *times),
        )
        channel = cursor.lastrowid or 0
    else:
        connection.execute(
            "UPDATE channels SET last_id = ?, first_id = ?, backlog_until = ?, ids_until = ? WHERE id = ?",
            (new, first_id, *times, channel),
        )
    return channel, new, first_id


def group_of(name: str) -> int:
    return zlib.crc32(name.encode("utf-8", "surrogatepass")) & GROUPS


def _known(connection: sqlite3.Connection, publication_id: PublicationId, now: float) -> list[Ids] | None:
    row = connection.execute(
        "SELECT sequence, first_global_id, message_ids FROM publications WHERE record = ? AND forget_at > ?",
        (publication_id.record, now),
    ).fetchone()
    if row is None or row[0] < publication_id.sequence:
        return None
    if row[0] > publication_id.sequence:
        raise PublishRefused("the same publisher has published something later already")
    return [Ids(int(each), row[1] + nth) for nth, each in enumerate(row[2].split(","))]


def _remember(connection: sqlite3.Connection, publication_id: PublicationId, given: Sequence[Ids], now: float) -> None:
    record, sequence = publication_id
    ids = given[0].global_id, ",".join([str(ids.message_id) for ids in given])
    # Whole minutes, so that the index seldom changes: then a publisher's next publish leaves that page alone, which is
    # one of the six that a publish writes.
    forget_at = (int(now) // 60 + 1) * 60 + REMEMBERED
    if sequence > 1 and _replace(connection, record, forget_at, sequence, *ids):
        return
    connection.execute(
        "INSERT OR REPLACE INTO publications VALUES (?, ?, ?, ?, ?)", (record, sequence, *ids, forget_at)
    )


def _replace(connection: sqlite3.Connection, record: str, forget_at: int, *latest: object) -> bool:
    cursor = connection.execute(
        """UPDATE publications SET sequence = ?, first_global_id = ?, message_ids = ?
        WHERE record = ? AND forget_at = ?""",
        (*latest, record, forget_at),
    )
    return cursor.rowcount > 0


def _sweep(connection: sqlite3.Connection, floor: int, now: float) -> None:
    """Delete what has expired, and what the feeds need no more, of the next channels, and forget the oldest ones."""
    connection.execute("DELETE FROM publications WHERE forget_at <= ?", (now,))
    channels = connection.execute(
        """SELECT id, name, last_id, CASE WHEN backlog_until <= ? THEN last_id + 1 ELSE first_id END, ids_until
        FROM channels WHERE id > (SELECT swept FROM state) ORDER BY id LIMIT ?""",
        (now, SWEPT_AT_ONCE),
    ).fetchall()
    (newest,) = connection.execute("SELECT max(id) FROM channels").fetchone()
    for channel, name, last_id, first_id, ids_until in channels:
        connection.execute(
            "DELETE FROM messages WHERE channel = ? AND message_id < ? AND global_id <= ?", (channel, first_id, floor)
        )
        if ids_until <= now and channel != newest:  # its number is not given again, by which feeds know new ones
            connection.execute("DELETE FROM messages WHERE channel = ?", (channel,))
            connection.execute("DELETE FROM channels WHERE id = ?", (channel,))
            connection.execute(
                """INSERT INTO forgotten VALUES (?, ?)
                ON CONFLICT (hash) DO UPDATE SET last_id = max(last_id, excluded.last_id)""",
                (group_of(name), last_id),
            )
    more = len(channels) == SWEPT_AT_ONCE
    connection.execute(
        "UPDATE state SET swept = ?, sweep_at = ?",
        (channels[-1][0] if more else 0, now + (SWEEP_SOON if more else SWEEP_LATER)),
    )
