"""The store in one file, for all processes of one host: Python's own SQLite, in WAL mode.

``sqlite:///relative.db`` or ``sqlite:////absolute/path.db``. A publish is one short write transaction, which concurrent
publishers of a process share. It waits for the operating system, not for the disk (``synchronous=NORMAL``): whatever
happens to processes, nothing is lost that was acknowledged; a power cut may lose the last moments.
"""

from __future__ import annotations

import logging
import math
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from ..errors import BackendUnavailable, BusClosed, PublishRefused
from ..message import Ids, Message
from ..options import Options
from . import sqlite_workers as workers
from .base import BacklogPage, BacklogQuery, ChannelPage, Listener, Publication, PublicationId, Store, StoreState, Trace
from .group_commit import GroupCommit, Waiting
from .interest import Interest
from .sequencer import Entry
from .sqlite_channel_feed import SqliteChannelFeed
from .sqlite_feed import AT_ONCE, News, SqliteFeed
from .sqlite_file import SqliteFile, check_file, path_of
from .sqlite_publishing import FOR_FEEDS, publish
from .sqlite_reading import MESSAGES, entries_of, messages_after
from .sqlite_waking import Bells
from .sqlite_wanted import SqliteWanted

logger = logging.getLogger("messagebus.stores")

Row = Any
Result = TypeVar("Result")
Job = tuple[Sequence[Publication], PublicationId | None]


class SqliteStore(Store):
    """Keeps messages in the file of ``options.url``; processes of one host that share it share the bus.

    Raises:
        InvalidOption: The URL is malformed, or what is there is no file of the bus.
    """

    shared = True
    by_channel = True

    def __init__(self, options: Options) -> None:
        self._options = options
        self.path = path_of(options.url)
        check_file(self.path)
        self._file = SqliteFile(self.path, options.store_timeout)
        self._closed = False
        self._clear()

    def _clear(self) -> None:
        self._lock = threading.Lock()
        self._feeds: list[SqliteFeed] = []
        self._commits: GroupCommit[Job] = GroupCommit(self._commit)
        self._bells = Bells(self.path)

    def publish_many(self, messages: Sequence[Publication], publication_id: PublicationId | None = None) -> list[Ids]:
        if not messages:
            return []
        ids: Any = self._commits.run((messages, publication_id))
        return list(ids)

    def _commit(self, waiting: Sequence[Waiting[Job]]) -> None:
        """Write what waits, as one transaction; who is refused does not disturb the others."""

        def write(connection: sqlite3.Connection) -> None:
            for each in waiting:
                each.result = each.error = None
                try:
                    each.result = publish(
                        connection, *each.job, self._options.max_global_backlog_size, self._options.clear_every
                    )
                except PublishRefused as error:
                    each.error = error

        self._file.run(write, writing=True)
        self._bells.ring({message[0] for each in waiting for message in each.job[0]})

    def _write(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        result = self._file.run(work, writing=True)
        self._bells.ring()
        return result

    def _read(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        try:
            return self._file.run(work)
        except PublishRefused as error:
            raise BackendUnavailable(str(error), "forbidden") from error

    def backlogs(self, queries: Sequence[BacklogQuery], max_bytes: int) -> list[BacklogPage]:
        if not queries:
            return []
        return self._read(lambda connection: [self._page(connection, query, max_bytes) for query in queries])

    def _page(self, connection: sqlite3.Connection, query: BacklogQuery, max_bytes: int) -> BacklogPage:
        now = time.time()
        row = connection.execute(
            "SELECT id, last_id, first_id, backlog_until FROM channels WHERE name = ?", (query.name,)
        ).fetchone()
        if row is None:
            return BacklogPage([], max(query.after, 0), 0, 0, 1)
        channel, last_id, first_id, until = row
        if until <= now:
            first_id = last_id + 1
        after = query.after if query.after >= 0 else max(last_id + query.after, 0)
        cursor = connection.execute(
            """SELECT global_id, message_id, ?, envelope FROM messages
            WHERE channel = ? AND message_id >= ? ORDER BY message_id""",
            (query.name, channel, max(first_id, after + 1)),
        )
        rows: list[Row] = []
        size, through = 0, last_id
        if first_id <= last_id:
            for found in cursor:
                rows.append(found)
                size += len(found[3])
                if size >= max_bytes:
                    through = found[1]
                    break
        cursor.close()
        messages = [entry for entry in self._entries(rows) if isinstance(entry, Message)]
        expires_in = until - now if first_id <= last_id else math.inf
        return BacklogPage(messages, after, through, last_id, first_id, expires_in)

    def last_ids(self, names: Sequence[str]) -> list[int]:
        if not names:
            return []

        def read(connection: sqlite3.Connection) -> list[int]:
            query = "SELECT last_id FROM channels WHERE name = ?"
            rows = [connection.execute(query, (name,)).fetchone() for name in names]
            return [row[0] if row else 0 for row in rows]

        return self._read(read)

    def global_backlog(self, after: int = 0) -> list[Message]:
        def read(connection: sqlite3.Connection) -> list[Row]:
            now = time.time()
            return connection.execute(
                MESSAGES
                + """message_id >= first_id AND backlog_until > ? AND global_id > ? AND global_id >= (
                    SELECT CASE WHEN global_until > ? THEN global_first ELSE state.global_id + 1 END FROM state)
                ORDER BY global_id""",
                (now, after, now),
            ).fetchall()

        return [entry for entry in self._entries(self._read(read)) if isinstance(entry, Message)]

    def entries(self, after: int) -> list[Entry]:
        """All that is left in the file after a global id. For the feed."""
        return self._entries(self._read(lambda connection: messages_after(connection, after, -1)))

    def news(self, after: int, resets: int | None) -> News:
        def read(connection: sqlite3.Connection) -> tuple[list[Row], Row]:
            row = connection.execute("SELECT global_id, epoch, resets, announced FROM state").fetchone()
            if resets is None:
                return [], row
            begin = after if row[2] == resets else 0
            return (messages_after(connection, begin, AT_ONCE) if row[0] != begin else []), row

        rows, state = self._read(read)
        return News(self._entries(rows), *state)

    def announcements(self, after: int, through: int) -> list[str]:
        """The announcements after an id, up to another, as far as they are kept. For the feed."""
        return self._read(lambda connection: workers.announcements(connection, after, through))

    def state(self, partition: int = 0) -> StoreState:
        return self._read(_state)

    def named_state(self) -> StoreState:
        """As ``state``, but a store that has no epoch yet is given one. For the feed."""
        state = self.state()
        if state.epoch is not None:
            return state

        def name(connection: sqlite3.Connection) -> StoreState:
            connection.execute("UPDATE state SET epoch = ? WHERE epoch IS NULL", (secrets.token_hex(8),))
            return _state(connection)

        try:
            return self._file.run(name, writing=True)
        except (BackendUnavailable, PublishRefused):
            return state  # it may not be written to: the feed works without

    def renew_epoch(self, epoch: str | None, partition: int = 0) -> StoreState:
        def renew(connection: sqlite3.Connection) -> StoreState:
            query = "UPDATE state SET epoch = ? WHERE epoch IS ?"
            if connection.execute(query, (secrets.token_hex(8), epoch)).rowcount:
                logger.warning("SQLite at %s has gone back, and is given another epoch", self.path)
            return _state(connection)

        return self._write(renew)

    def contradicts(self, traces: Sequence[Trace]) -> bool:
        """Whether something else is stored in the place of one of these messages. For the feed."""

        def read(connection: sqlite3.Connection) -> list[Row] | None:
            rows: list[Row] = []
            for trace in traces:
                last = connection.execute("SELECT last_id FROM channels WHERE name = ?", (trace.name,)).fetchone()
                if last is not None and last[0] < trace.message_id:
                    return None
                rows += connection.execute(MESSAGES + "global_id = ?", (trace.global_id,))
                rows += connection.execute(MESSAGES + "name = ? AND message_id = ?", (trace.name, trace.message_id))
            return rows

        rows = self._read(read) if traces else []
        if rows is None:
            return True
        found = self._entries(rows)
        return not {Trace.of(entry) if isinstance(entry, Message) else None for entry in found} <= {*traces}

    def pages(self, after: Mapping[bytes, int]) -> Mapping[bytes, BacklogPage]:
        """The backlogs of channels after a message id. For the feed."""
        queries = [BacklogQuery(channel.decode(), message_id) for channel, message_id in after.items()]
        return dict(zip(after, self.backlogs(queries, 1 << 53), strict=True))

    def listen(self, listener: Listener, interest: Interest | None = None) -> SqliteFeed:
        if interest is None:
            feed = SqliteFeed(self, listener, self.path)
        else:
            # Its own connection: what is wanted is in a table that only that one has.
            file = SqliteFile(self.path, self._options.store_timeout)
            wanted = SqliteWanted(file, self._options.transport_codec)
            feed = SqliteChannelFeed(self, listener, self.path, interest, wanted)
        with self._lock:
            if self._closed:
                raise BusClosed("the store was closed")
            self._feeds = [other for other in self._feeds if not other.closed] + [feed]
        feed.start()
        return feed

    def announce(self, text: str) -> None:
        self._tell(lambda connection: workers.announce(connection, text))
        self._bells.ring()

    def report(self, worker: str, report: str) -> None:
        self._tell(lambda connection: workers.report(connection, worker, report))

    def withdraw(self, worker: str) -> None:
        self._tell(lambda connection: workers.withdraw(connection, worker))

    def reports(self) -> dict[str, str]:
        return self._read(workers.reports)

    def _tell(self, work: Callable[[sqlite3.Connection], None]) -> None:
        """Write, and wake nobody. A refusal also counts as unavailable."""
        try:
            self._file.run(work, writing=True)
        except PublishRefused as error:
            raise BackendUnavailable(str(error), "forbidden") from error

    def channels(self, cursor: str = "", limit: int = 1000) -> ChannelPage:
        query = """SELECT name FROM channels
            WHERE first_id <= last_id AND backlog_until > ? AND name > ? ORDER BY name LIMIT ?"""
        rows = self._read(lambda connection: connection.execute(query, (time.time(), cursor, limit)).fetchall())
        names = [name for (name,) in rows]
        return ChannelPage(names, names[-1] if len(names) == limit else "")

    def forget(self, name: str) -> None:
        # Feeds may yet have to read its messages: the sweep deletes them.
        def forget(connection: sqlite3.Connection) -> None:
            connection.execute("UPDATE channels SET first_id = last_id + 1 WHERE name = ?", (name,))

        self._tell(forget)

    def expire_all_backlogs(self) -> None:
        def expire(connection: sqlite3.Connection) -> None:
            connection.execute("UPDATE state SET global_first = global_id + 1")
            connection.execute("UPDATE channels SET first_id = last_id + 1")
            # A feed that has yet to read the newest ones must not miss them. Nobody else is given them.
            floor = max(FOR_FEEDS, self._options.max_global_backlog_size)
            connection.execute("DELETE FROM messages WHERE global_id <= (SELECT global_id FROM state) - ?", (floor,))

        self._write(expire)

    def reset(self) -> None:
        def reset(connection: sqlite3.Connection) -> None:
            for table in ("messages", "channels", "forgotten", "publications"):
                connection.execute(f"DELETE FROM {table}")
            connection.execute(
                "UPDATE state SET global_id = 0, epoch = NULL, resets = resets + 1, global_first = 1, "
                "global_until = 0, swept = 0"
            )

        self._write(reset)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            feeds, self._feeds = self._feeds, []
        for feed in feeds:
            feed.close()
        self._file.close()

    def after_fork(self) -> None:
        feeds = self._feeds
        self._clear()
        for feed in feeds:
            feed.abandon()

    def _entries(self, rows: Sequence[Row]) -> list[Entry]:
        return entries_of(rows, self._options.transport_codec)


def _state(connection: sqlite3.Connection) -> StoreState:
    return StoreState(*connection.execute("SELECT global_id, epoch FROM state").fetchone())
