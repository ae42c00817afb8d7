"""The store in PostgreSQL: queries and errors. Writes are in ``postgres.sql``; connections and feed have their own
modules.

The tables are made by the first publish or feed, in the first schema of the search path; another is chosen in the URL,
``?options=-csearch_path%3Dsome_schema``. The database's encoding must be UTF8. LISTEN needs a session: a pooler between
must not be in transaction mode. Needs PostgreSQL 11 or newer.

Publishes follow each other, and each waits until it is on the server's disk. ``?options=-csynchronous_commit%3Doff``
does not wait for the disk: that is many times faster, and a crash of the server then loses the messages of its last
moments, and gives their ids again.
"""

from __future__ import annotations

import logging
import math
import secrets
import threading
from base64 import b64decode, b64encode
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from ..codecs import Codec
from ..errors import BackendUnavailable, BusClosed, InvalidData, PublishRefused
from ..message import Ids, Message, decode_message
from ..options import Options
from .base import (
    IDS_AGE_FACTOR,
    LEAST_IDS_AGE,
    REPORT_LEASE,
    BacklogPage,
    BacklogQuery,
    ChannelPage,
    Listener,
    Publication,
    PublicationId,
    Store,
    StoreState,
    Trace,
)
from .channel_sequencer import Snapshot
from .interest import Interest
from .postgres_channel_feed import PostgresChannelFeed
from .postgres_connection import NO_TABLES, PgConnection, Pool, connect, connection_arguments, describe, explain
from .postgres_feed import ANNOUNCEMENTS, PostgresFeed, bucket_of
from .sequencer import EPOCH_CHANGED, Entry, Unreadable

logger = logging.getLogger("messagebus.stores")

Row = Any
"""A tuple."""

_TABLES = Path(__file__).with_name("postgres.sql").read_text()

_PUBLISH = """
    SELECT * FROM messagebus_publish_3(
        %s::text[], %s::text[], %s::bigint[], %s::bigint[], %s::integer[], %s, %s, %s, %s, %s, %s::text, %s::bigint)"""
_STATE = "SELECT global_id, epoch FROM messagebus_state"
# The window counts the bytes of an ask's messages from the first on: a page ends with the one that passes the bound.
_BACKLOGS = """
    SELECT query.number, channel.last_id, CASE WHEN backlog_until > now() THEN first_id ELSE channel.last_id + 1 END,
        extract(epoch FROM backlog_until - now())::float8, message.size,
        message.global_id, message.message_id, channel.name, message.envelope
    FROM unnest(%s::text[], %s::bigint[]) WITH ORDINALITY AS query (name, after, number)
    JOIN messagebus_channels AS channel ON channel.name = query.name
    LEFT JOIN LATERAL (
        SELECT global_id, message_id, envelope,
            sum(octet_length(envelope)) OVER (ORDER BY message_id)::bigint AS size
        FROM messagebus_messages AS kept
        WHERE kept.name = channel.name AND backlog_until > now() AND message_id >= greatest(
            first_id, CASE WHEN query.after < 0 THEN channel.last_id + query.after ELSE query.after END + 1)
    ) AS message ON message.size - octet_length(message.envelope) < %s
    ORDER BY query.number, message.message_id"""
_LAST_IDS = "SELECT name, last_id FROM messagebus_channels WHERE name = ANY(%s)"
# One statement: at one moment.
_SNAPSHOT = """
    SELECT global_id, epoch, channel.name, channel.last_id FROM messagebus_state
    LEFT JOIN messagebus_channels AS channel ON channel.name = ANY(%s)"""
_MESSAGES = """
    SELECT message.global_id, message_id, name, envelope
    FROM messagebus_state, messagebus_messages AS message JOIN messagebus_channels USING (name)
    WHERE backlog_until > now() AND """
_GLOBAL_BACKLOG = (
    _MESSAGES + "global_until > now() AND message.global_id >= greatest(global_first, %s) ORDER BY message.global_id"
)
_READ = _MESSAGES + "message.global_id = ANY(%s)"
_NOTIFY_CHANNEL = "SELECT messagebus_notify_channel_1()"
_NAME_EPOCH = "UPDATE messagebus_state SET epoch = %s WHERE epoch IS NULL"
_RENEW_EPOCH = """
    UPDATE messagebus_state SET epoch = %s WHERE epoch IS NOT DISTINCT FROM %s
    RETURNING pg_notify(messagebus_notify_channel_1(), %s)"""
_BELOW = """
    SELECT FROM unnest(%s::text[], %s::bigint[]) AS trace (name, message_id)
    JOIN messagebus_channels AS channel USING (name) WHERE last_id < message_id LIMIT 1"""
_IN_PLACE = """
    SELECT message.global_id, message.message_id, message.name, envelope
    FROM unnest(%s::bigint[]) AS trace (global_id) JOIN messagebus_messages AS message USING (global_id)
    UNION
    SELECT message.global_id, message.message_id, message.name, envelope
    FROM unnest(%s::text[], %s::bigint[]) AS trace (name, message_id)
    JOIN messagebus_messages AS message USING (name, message_id)"""
_ANNOUNCE = "SELECT pg_notify(messagebus_notify_channel_1() || %s, %s)"
# With each report, some whose time is over are deleted. One that another process deletes now is left to it.
_REPORT = """
    WITH ended AS (
        DELETE FROM messagebus_reports WHERE worker IN (
            SELECT worker FROM messagebus_reports WHERE until <= now() AND worker <> %s
            LIMIT 100 FOR UPDATE SKIP LOCKED))
    INSERT INTO messagebus_reports VALUES (%s, %s, now() + make_interval(secs => %s))
    ON CONFLICT (worker) DO UPDATE SET report = excluded.report, until = excluded.until"""
_REPORTS = "SELECT worker, report FROM messagebus_reports WHERE until > now()"
_CHANNELS = """
    SELECT name FROM messagebus_channels
    WHERE first_id <= last_id AND backlog_until > now() AND name COLLATE "C" > %s ORDER BY name COLLATE "C" LIMIT %s"""
# The lock on the state comes first, as in a publish, so that the two never wait for each other.
_FORGET = """
    SELECT FROM messagebus_state FOR UPDATE;
    UPDATE messagebus_channels SET first_id = last_id + 1 WHERE name = {name};
    DELETE FROM messagebus_messages WHERE name = {name}"""
_EXPIRE = """
    SELECT FROM messagebus_state FOR UPDATE;
    UPDATE messagebus_state SET global_first = global_id + 1;
    UPDATE messagebus_channels SET first_id = last_id + 1 WHERE first_id <= last_id;
    DELETE FROM messagebus_messages"""
_RESET = """
    SELECT FROM messagebus_state FOR UPDATE;
    UPDATE messagebus_state SET global_id = 0, epoch = NULL, global_first = 1, global_until = '-infinity';
    DELETE FROM messagebus_publications;
    DELETE FROM messagebus_channels;
    DELETE FROM messagebus_forgotten;
    DELETE FROM messagebus_messages"""


FACTS = """SELECT current_setting('server_version_num')::int, current_setting('server_version'),
    coalesce(has_schema_privilege(current_schema(), 'CREATE'), false), coalesce(current_schema(), ''), current_user,
    pg_is_in_recovery(), current_setting('fsync'), current_setting('synchronous_commit'),
    current_setting('max_connections')::int, (SELECT count(*) FROM pg_stat_activity)"""


class PostgresStore(Store):
    """Keeps messages in the PostgreSQL database of ``options.url``; processes that share it share the bus.

    Raises:
        InvalidOption: The URL is malformed.
    """

    shared = True
    by_channel = True

    def __init__(self, options: Options) -> None:
        self._options = options
        self._arguments = connection_arguments(options.url, options.store_timeout)
        self._codec = None if options.transport_codec is None else _Base64Codec(options.transport_codec)
        self.where = describe(options.url)
        self._closed = False
        self._clear()

    def _clear(self) -> None:
        # Guards the fields below; nothing is waited for under it, so it may be made before gevent patches the process.
        self._lock = threading.Lock()
        self._pool: Pool | None = None
        self._feeds: list[PostgresFeed] = []

    @contextmanager
    def _connection(self) -> Iterator[PgConnection]:
        """A connection; translates psycopg's errors into this package's. The caller handles missing tables."""
        with self._lock:
            if self._closed:
                raise BusClosed("the store was closed")
            if self._pool is None:
                self._pool = Pool(self._arguments, self._options.store_timeout, self.where)
            pool = self._pool
        try:
            with pool.connection() as connection:
                yield connection
        except NO_TABLES:
            raise
        except psycopg.Error as error:
            meaning = explain(error, self.where)
            if isinstance(meaning, BackendUnavailable) and meaning.reason in ("gone", "read-only"):
                # What has befallen one connection may have befallen all. And where this server is no longer the
                # primary, the name in the URL may by now lead to the one that is.
                pool.discard_idle()
            raise meaning from error

    @contextmanager
    def _reading(self) -> Iterator[PgConnection]:
        """Like ``_connection``, but a refusal also counts as unavailable."""
        try:
            with self._connection() as connection:
                yield connection
        except (PublishRefused, InvalidData) as error:
            raise BackendUnavailable(str(error), "forbidden") from error

    def _read(self, query: str, *arguments: object) -> list[Row]:
        """The rows; none if nobody has published yet and there are no tables."""
        try:
            with self._reading() as connection:
                return connection.execute(query, arguments, prepare=True).fetchall()
        except NO_TABLES:
            return []

    def _write(self, query: str, *arguments: object) -> list[Row]:
        """Run a query that writes, and make the tables first if they are missing."""
        with self._connection() as connection:
            try:
                return _rows(connection.execute(query, arguments or None, prepare=bool(arguments)))
            except NO_TABLES:
                logger.info("making the bus's tables in PostgreSQL at %s", self.where)
            try:
                connection.execute(_TABLES)
                return _rows(connection.execute(query, arguments or None))
            except NO_TABLES as error:
                raise explain(error, self.where) from error

    def publish_many(self, messages: Sequence[Publication], publication_id: PublicationId | None = None) -> list[Ids]:
        if not messages:
            return []
        names, envelopes, sizes, ages = zip(*messages, strict=True)
        rows = self._write(
            _PUBLISH,
            list(names),
            [(envelope if self._codec is None else b64encode(envelope)).decode() for envelope in envelopes],
            list(sizes),
            list(ages),
            [bucket_of(name) for name in names],
            self._options.max_global_backlog_size,
            self._options.clear_every,
            IDS_AGE_FACTOR,
            LEAST_IDS_AGE,
            # Another one each time: it must differ from the one of before a reset.
            secrets.token_hex(8),
            *(publication_id or (None, None)),
        )
        return [Ids(*row) for row in rows]

    def backlogs(self, queries: Sequence[BacklogQuery], max_bytes: int) -> list[BacklogPage]:
        names, positions = [query.name for query in queries], [query.after for query in queries]
        found: dict[int, list[Row]] = {}
        for row in self._read(_BACKLOGS, names, positions, max_bytes) if queries else ():
            found.setdefault(row[0], []).append(row[1:])
        return [self._page(query, found.get(number), max_bytes) for number, query in enumerate(queries, 1)]

    def _page(self, query: BacklogQuery, rows: list[Row] | None, max_bytes: int) -> BacklogPage:
        if rows is None:
            return BacklogPage([], max(query.after, 0), 0, 0, 1)
        last_id, first_id, expires_in = rows[0][:3]
        after = query.after if query.after >= 0 else max(last_id + query.after, 0)
        size, through = rows[-1][3], rows[-1][5]
        entries = _entries([row[4:] for row in rows if row[4] is not None], self._codec)
        return BacklogPage(
            [entry for entry in entries if isinstance(entry, Message)],
            after,
            through if size is not None and size >= max_bytes else last_id,
            last_id,
            first_id,
            expires_in if first_id <= last_id else math.inf,
        )

    def last_ids(self, names: Sequence[str]) -> list[int]:
        if not names:
            return []
        found: dict[str, int] = dict(self._read(_LAST_IDS, list(names)))
        return [found.get(name, 0) for name in names]

    def global_backlog(self, after: int = 0) -> list[Message]:
        return [entry for entry in self.entries(after) if isinstance(entry, Message)]

    def entries(self, after: int) -> list[Entry]:
        """The global backlog after a global id, with stand-ins for what cannot be decoded. For the feed."""
        return _entries(self._read(_GLOBAL_BACKLOG, after + 1), self._codec)

    def read(self, global_ids: Sequence[int]) -> dict[int, Entry]:
        """Those of the messages that are still kept, by global id. For the feed."""
        return {entry.global_id: entry for entry in _entries(self._read(_READ, list(global_ids)), self._codec)}

    def state(self, partition: int = 0) -> StoreState:
        for row in self._read(_STATE):
            return StoreState(*row)
        return StoreState(0, None)

    def named_state(self) -> StoreState:
        """As ``state``, but a store that has no epoch yet is given one, and tables. For the feed."""
        state = self.state()
        if state.epoch is not None:
            return state
        try:
            self._write(_NAME_EPOCH, secrets.token_hex(8))
        except (BackendUnavailable, PublishRefused):
            return state  # it may not be written to: the feed works without
        return self.state()

    def renew_epoch(self, epoch: str | None, partition: int = 0) -> StoreState:
        try:
            renewed = self._write(_RENEW_EPOCH, secrets.token_hex(8), epoch, EPOCH_CHANGED.decode())
        except BackendUnavailable as error:
            if error.reason != "read-only":
                raise
            return self.state()  # a standby: its primary's processes see to it
        if renewed:
            logger.warning("PostgreSQL at %s has gone back, and is given another epoch", self.where)
        return self.state()

    def facts(self) -> Row:
        """What the server is, what this role may do, and how it is set: see ``FACTS``."""
        with self._connection() as connection:
            row: Row = connection.execute(FACTS).fetchone()
        return row

    def contradicts(self, traces: Sequence[Trace]) -> bool:
        """Whether something else is stored in the place of one of these messages. For the feed."""
        if not traces:
            return False
        global_ids, names, message_ids, _ = map(list, zip(*traces, strict=True))
        if self._read(_BELOW, names, message_ids):
            return True
        found = _entries(self._read(_IN_PLACE, global_ids, names, message_ids), self._codec)
        return not {Trace.of(entry) if isinstance(entry, Message) else None for entry in found} <= {*traces}

    def snapshot(self, names: Sequence[str]) -> Snapshot:
        """How far the store and some of its channels are. For the feed."""
        rows = self._read(_SNAPSHOT, list(names))
        if not rows:
            return Snapshot(0, None, {name.encode(): None for name in names})
        found: dict[str, int] = {row[2]: row[3] for row in rows}
        global_id, epoch = rows[0][:2]
        return Snapshot(global_id, epoch, {name.encode(): found.get(name) for name in names})

    def pages(self, after: Mapping[bytes, int]) -> Mapping[bytes, BacklogPage]:
        """The backlogs of channels after a message id. For the feed."""
        queries = [BacklogQuery(channel.decode(), message_id) for channel, message_id in after.items()]
        return dict(zip(after, self.backlogs(queries, 1 << 53), strict=True))

    def notify_channel(self) -> str:
        """The name that messages are announced under. For the feed.

        Raises:
            BackendUnavailable: There are no tables yet, and this process may not make them.
        """
        for (channel,) in self._read(_NOTIFY_CHANNEL):
            if channel is not None:
                return str(channel)
        try:
            self._write(_NAME_EPOCH, secrets.token_hex(8))  # which says why there are none
        except PublishRefused as error:
            raise BackendUnavailable(str(error), "forbidden") from error
        raise BackendUnavailable(f"PostgreSQL at {self.where} has no bus yet")

    def listen(self, listener: Listener, interest: Interest | None = None) -> PostgresFeed:
        settings: Any = {
            "connect": lambda: connect(self._arguments, self._options.store_timeout),
            "where": self.where,
            "codec": self._codec,
        }
        if interest is None:
            feed = PostgresFeed(self, listener, **settings)
        else:
            feed = PostgresChannelFeed(self, listener, interest, self._options.store_timeout, **settings)
        with self._lock:
            if self._closed:
                raise BusClosed("the store was closed")
            self._feeds = [other for other in self._feeds if not other.closed] + [feed]
        feed.start()
        return feed

    def announce(self, text: str) -> None:
        self._write_as_reader(_ANNOUNCE, ANNOUNCEMENTS, text)

    def report(self, worker: str, report: str) -> None:
        self._write_as_reader(_REPORT, worker, worker, report, REPORT_LEASE)

    def withdraw(self, worker: str) -> None:
        self._write_as_reader("DELETE FROM messagebus_reports WHERE worker = %s", worker)

    def reports(self) -> dict[str, str]:
        return dict(self._read(_REPORTS))

    def channels(self, cursor: str = "", limit: int = 1000) -> ChannelPage:
        if "\0" in cursor:  # which its texts cannot have
            raise ValueError(f"expected a page's cursor, not {cursor!r:.80}")
        names = [name for (name,) in self._read(_CHANNELS, cursor, limit)]
        return ChannelPage(names, names[-1] if len(names) == limit else "")

    def forget(self, name: str) -> None:
        self._change(sql.SQL(_FORGET).format(name=sql.Literal(name)).as_string(None))

    def _write_as_reader(self, query: str, *arguments: object) -> None:
        """Like ``_write``, but a refusal also counts as unavailable."""
        try:
            self._write(query, *arguments)
        except (PublishRefused, InvalidData) as error:
            raise BackendUnavailable(str(error), "forbidden") from error

    def expire_all_backlogs(self) -> None:
        self._change(_EXPIRE)

    def reset(self) -> None:
        self._change(_RESET)

    def _change(self, statements: str) -> None:
        """Several statements as one transaction; nothing to do where there are no tables."""
        try:
            with self._reading() as connection:
                connection.execute(statements)
        except NO_TABLES:
            if self._read(_STATE):  # of an earlier version
                self._write(_TABLES)
                self._write(statements)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            feeds, pool = self._feeds, self._pool
            self._feeds, self._pool = [], None
        for feed in feeds:
            feed.close()
        if pool is not None:
            pool.close()

    def after_fork(self) -> None:
        feeds, pool = self._feeds, self._pool
        self._clear()
        if pool is not None:
            pool.leave_to_parent()
        for feed in feeds:
            feed.abandon()


def _rows(cursor: psycopg.Cursor[Any]) -> list[Row]:
    return cursor.fetchall() if cursor.description else []


class _Base64Codec:
    """A codec whose bytes are text, as NOTIFY and the column want it."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec

    def encode(self, envelope: dict[str, Any]) -> bytes:
        return b64encode(self._codec.encode(envelope))

    def decode(self, stored: bytes) -> dict[str, Any]:
        return self._codec.decode(b64decode(stored))


def _entries(rows: Sequence[Row], codec: Codec | None) -> list[Entry]:
    """Messages from rows of global id, message id, name and envelope. What cannot be decoded is logged."""
    entries: list[Entry] = []
    for global_id, message_id, name, envelope in rows:
        try:
            entries.append(decode_message(global_id, message_id, name, envelope.encode(), codec))
        except ValueError as error:
            logger.warning("skipped a message that cannot be decoded: %s", error)
            entries.append(Unreadable(global_id))
    return entries
