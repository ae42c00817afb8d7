"""The store in PostgreSQL: what it writes, and its feeds (``postgres_feed``). The atomic write is in ``postgres.sql``.

The tables are made by the first publish or feed, in the first schema of the search path; another is chosen in the URL,
``?options=-csearch_path%3Dsome_schema``. The database's encoding must be UTF8. LISTEN needs a session: a pooler between
must not be in transaction mode. Needs PostgreSQL 11 or newer.

Publishes follow each other, and each waits until it is on the server's disk. ``?options=-csynchronous_commit%3Doff``
does not wait for the disk: that is many times faster, and a crash of the server then loses the messages of its last
moments, and gives their ids again.
"""

from __future__ import annotations

import logging
import secrets
from base64 import b64encode
from collections.abc import Sequence
from typing import Any

from psycopg import sql

from ..errors import BackendUnavailable, BusClosed, PublishRefused
from ..message import Ids
from .base import (
    IDS_AGE_FACTOR,
    LEAST_IDS_AGE,
    REPORT_LEASE,
    Listener,
    Publication,
    PublicationId,
    Store,
    StoreState,
)
from .interest import Interest
from .postgres_access import TABLES
from .postgres_channel_feed import PostgresChannelFeed
from .postgres_connection import NO_TABLES, connect
from .postgres_feed import ANNOUNCEMENTS, PostgresFeed, bucket_of
from .postgres_reading import STATE, PostgresReading
from .sequencer import EPOCH_CHANGED

logger = logging.getLogger("messagebus.stores")

_PUBLISH = """
    SELECT * FROM messagebus_publish_3(
        %s::text[], %s::text[], %s::bigint[], %s::bigint[], %s::integer[], %s, %s, %s, %s, %s, %s::text, %s::bigint)"""
_NOTIFY_CHANNEL = "SELECT messagebus_notify_channel_1()"
_NAME_EPOCH = "UPDATE messagebus_state SET epoch = %s WHERE epoch IS NULL"
_RENEW_EPOCH = """
    UPDATE messagebus_state SET epoch = %s WHERE epoch IS NOT DISTINCT FROM %s
    RETURNING pg_notify(messagebus_notify_channel_1(), %s)"""
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


class PostgresStore(PostgresReading, Store):
    """Keeps messages in the PostgreSQL database of ``options.url``; processes that share it share the bus.

    Raises:
        InvalidOption: The URL is malformed.
    """

    shared = True
    by_channel = True

    def _clear(self) -> None:
        super()._clear()
        self._feeds: list[PostgresFeed] = []

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

    def forget(self, name: str) -> None:
        self._change(sql.SQL(_FORGET).format(name=sql.Literal(name)).as_string(None))

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
            if self._read(STATE):  # of an earlier version
                self._write(TABLES)
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
