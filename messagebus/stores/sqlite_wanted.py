"""What is new in the SQLite file of some channels, read at one moment: for a feed that leaves out the rest.

The wanted channels are rows of a table that only this connection has, so SQLite itself leaves out the others' messages.
It has two ways to do so: to look at all that is new, or to look where each wanted channel ends. The first costs by the
strangers' messages, the second by the wanted channels; the cheaper one is taken.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from ..codecs import Codec
from ..message import Message
from .channel_sequencer import Item, Snapshot
from .sqlite_file import SqliteFile
from .sqlite_reading import Row, entries_of

AT_ONCE = 1000
"""Messages of one read."""
LOOK_COST = 8
"""What it takes to look where a channel ends, in messages of strangers that are passed over."""

_STATE = """SELECT global_id, epoch, resets, announced, (SELECT coalesce(max(id), 0) FROM channels) FROM state"""
_BY_NAME = "SELECT id, last_id FROM channels WHERE name = ?"
# The plus keeps SQLite from reading the whole backlog of each wanted channel.
_ALL_NEW = """SELECT global_id, message_id, channel, envelope FROM messages
    WHERE global_id > ? AND +channel IN temp.wanted ORDER BY global_id LIMIT ?"""
_NEW_OF_ONE = """SELECT global_id, message_id, channel, envelope FROM messages
    WHERE channel = ? AND message_id > ? AND global_id > ?"""


class Look(NamedTuple):
    """What was read."""

    begins: bool
    """Whether it may be another file than before, or another life of it: only the snapshot counts, and has all that is
    wanted."""
    items: Sequence[Item]
    snapshot: Snapshot
    """Of the channels that were asked for."""
    forgotten: Sequence[bytes]
    """Channels that had been forgotten before these items, and have begun again."""
    is_all: bool
    """Whether there are no more items before the snapshot."""
    announced: int
    """The id of the newest announcement."""


class _Channel:
    """A wanted channel that the file has."""

    __slots__ = ("last_id", "name")

    def __init__(self, name: str, last_id: int) -> None:
        self.name = name
        self.last_id = last_id
        """Its last message id that was read; 0: all that come are new."""


class SqliteWanted:
    """See the module. For one thread, the feed's; ``close`` is for any."""

    def __init__(self, file: SqliteFile, codec: Codec | None) -> None:
        """``file``: used by nothing else."""
        self._file = file
        self._codec = codec
        self.begin_again()

    def begin_again(self) -> None:
        """Know nothing of what was wanted: the next look begins."""
        self._connection: sqlite3.Connection | None = None
        self._resets = 0
        self._rows: dict[str, int | None] = {}
        """Of each wanted channel its row in the file; ``None`` where it has none yet."""
        self._channels: dict[int, _Channel] = {}
        """By row."""
        self._newest_row = 0

    def look(self, after: int, wanted: Collection[str], asked: Iterable[str]) -> Look:
        """Read what has come after a global id.

        ``wanted``: all names that are wanted now. ``asked``: those of them that the snapshot shall have; a name that
        has come or gone since the last look must be among these."""

        def look(connection: sqlite3.Connection) -> Look:
            try:
                return self._look(connection, after, wanted, asked)
            except BaseException:
                self.begin_again()  # the table goes back to what it was
                raise

        return self._file.run(look)

    def close(self) -> None:
        self._file.close()

    def _look(self, connection: sqlite3.Connection, after: int, wanted: Collection[str], asked: Iterable[str]) -> Look:
        global_id, epoch, resets, announced, newest_row = connection.execute(_STATE).fetchone()
        begins = connection is not self._connection or resets != self._resets or newest_row < self._newest_row
        if begins:
            self.begin_again()
            connection.execute("CREATE TEMP TABLE IF NOT EXISTS wanted (channel INTEGER PRIMARY KEY)")
            connection.execute("DELETE FROM temp.wanted")
            self._connection, self._resets, self._newest_row = connection, resets, newest_row
            asked = wanted
        forgotten = self._take_new_rows(connection, newest_row)
        last_ids = {}
        for name in asked:
            if name in wanted:
                last_ids[name.encode()] = self._find(connection, name)
            else:
                self._drop(connection, name)
        items: list[Item] = []
        is_all = True
        if not begins and global_id > after:
            rows = self._rows_after(connection, after, global_id - after)
            is_all = len(rows) < AT_ONCE
            items = self._items(rows)
        return Look(begins, items, Snapshot(global_id, epoch, last_ids), forgotten, is_all, announced)

    def _take_new_rows(self, connection: sqlite3.Connection, newest_row: int) -> list[bytes]:
        """Channels that are wanted and have come to be in the file."""
        forgotten = []
        if newest_row > self._newest_row:
            query = "SELECT id, name FROM channels WHERE id > ?"
            for row, name in connection.execute(query, (self._newest_row,)).fetchall():
                if name in self._rows:
                    if self._rows[name] is not None:
                        forgotten.append(name.encode())
                    self._add(connection, name, row, 0)
            self._newest_row = newest_row
        return forgotten

    def _find(self, connection: sqlite3.Connection, name: str) -> int | None:
        """The last id of a channel that is wanted from now on, or still."""
        found = connection.execute(_BY_NAME, (name,)).fetchone()
        if name not in self._rows:
            self._rows[name] = None
            if found is not None:
                self._add(connection, name, *found)
        return None if found is None else int(found[1])

    def _add(self, connection: sqlite3.Connection, name: str, row: int, last_id: int) -> None:
        self._drop(connection, name)
        self._rows[name] = row
        self._channels[row] = _Channel(name, last_id)
        connection.execute("INSERT OR IGNORE INTO temp.wanted VALUES (?)", (row,))

    def _drop(self, connection: sqlite3.Connection, name: str) -> None:
        row = self._rows.pop(name, None)
        if row is not None:
            del self._channels[row]
            connection.execute("DELETE FROM temp.wanted WHERE channel = ?", (row,))

    def _rows_after(self, connection: sqlite3.Connection, after: int, behind: int) -> list[Row]:
        """The next ``AT_ONCE`` rows of global id, message id, name and envelope."""
        channels = self._channels
        found: list[tuple[int, int, int, object]] | None = None
        if len(channels) * LOOK_COST <= behind:
            found = self._new_of_each(connection, after)
        if found is None:
            found = connection.execute(_ALL_NEW, (after, AT_ONCE)).fetchall()
        rows = []
        for global_id, message_id, row, envelope in found:
            channel = channels[row]
            channel.last_id = message_id
            rows.append((global_id, message_id, channel.name, envelope))
        return rows

    def _new_of_each(self, connection: sqlite3.Connection, after: int) -> list[tuple[int, int, int, object]] | None:
        """``None``: there is too much for one read."""
        ends = []
        count = 0
        for row, channel in self._channels.items():
            last = connection.execute("SELECT last_id FROM channels WHERE id = ?", (row,)).fetchone()
            if last is not None and last[0] > channel.last_id:
                ends.append((row, channel.last_id))
                count += last[0] - channel.last_id
        if count >= AT_ONCE:
            return None
        # (Envelopes are never compared: no two global ids are the same.)
        return sorted(found for end in ends for found in connection.execute(_NEW_OF_ONE, (*end, after)))

    def _items(self, rows: Sequence[Row]) -> list[Item]:
        return [
            Item(name.encode(), global_id, message_id, entry if isinstance(entry, Message) else None)
            for (global_id, message_id, name, _), entry in zip(rows, entries_of(rows, self._codec), strict=True)
        ]
