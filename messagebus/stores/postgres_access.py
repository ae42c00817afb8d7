"""A store's way to PostgreSQL: its connections, the tables, and what an error of theirs means."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

from ..errors import BackendUnavailable, BusClosed, InvalidData, PublishRefused
from ..options import Options
from .postgres_connection import NO_TABLES, PgConnection, Pool, connection_arguments, describe, explain

logger = logging.getLogger("messagebus.stores")

Row = Any
"""A tuple."""

TABLES = Path(__file__).with_name("postgres.sql").read_text()


class PostgresAccess:
    """What the parts of the store share. Connections are made on first use."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._arguments = connection_arguments(options.url, options.store_timeout)
        self.where = describe(options.url)
        self._closed = False
        self._clear()

    def _clear(self) -> None:
        # Guards the fields below; nothing is waited for under it, so it may be made before gevent patches the process.
        self._lock = threading.Lock()
        self._pool: Pool | None = None

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
                connection.execute(TABLES)
                return _rows(connection.execute(query, arguments or None))
            except NO_TABLES as error:
                raise explain(error, self.where) from error

    def _write_as_reader(self, query: str, *arguments: object) -> None:
        """Like ``_write``, but a refusal also counts as unavailable."""
        try:
            self._write(query, *arguments)
        except (PublishRefused, InvalidData) as error:
            raise BackendUnavailable(str(error), "forbidden") from error


def _rows(cursor: psycopg.Cursor[Any]) -> list[Row]:
    return cursor.fetchall() if cursor.description else []
