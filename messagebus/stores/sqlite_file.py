"""The file of the SQLite store: its URL, whether it is one of ours, its connections, and what its errors mean.

A connection never crosses a fork: SQLite keeps what it knows of a file's locks in the process's memory, and in a child
that would be wrong. So before a fork all connections are closed, and both sides open new ones.
"""

from __future__ import annotations

import errno
import os
import random
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote, unquote, urlsplit

from ..errors import BackendUnavailable, BusClosed, InvalidOption, MessageBusError, PublishRefused

APPLICATION_ID = 0x6D624275
"""``mbBu``: written in the header of every file that is a bus."""
VERSION = 1
"""Of the tables. A program refuses a file with a higher one."""
MAX_IDLE = 4
"""Connections that a process keeps open while nobody uses them."""
REMOTE = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ncpfs", "fuse.sshfs", "lustre", "ceph"})
"""File systems of other machines: processes of two machines share no memory, which SQLite's WAL needs, and their locks
cannot be relied upon."""
FIRST_PAUSE, LONGEST_PAUSE = 0.0002, 0.01
"""Seconds between two attempts to lock the file."""
_TABLES = Path(__file__).with_name("sqlite.sql").read_text()

Result = TypeVar("Result")


def path_of(url: str) -> str:
    """The absolute path of the file that a URL names: ``sqlite:///relative.db`` or ``sqlite:////absolute/path.db``.

    Raises:
        InvalidOption: The URL names a host, no file, or anything beside the path.
    """
    parts = urlsplit(url)
    if parts.netloc or not url.startswith("sqlite:///"):
        raise InvalidOption("url", "sqlite:// has no host: use sqlite:///relative.db or sqlite:////absolute/path.db")
    if parts.query or parts.fragment:
        raise InvalidOption("url", "sqlite:/// takes the path of a file and no parameters")
    path = unquote(parts.path[1:])
    if not path or path.endswith("/") or "\0" in path or path == ":memory:":
        raise InvalidOption("url", "sqlite:/// needs the path of a file: sqlite:///relative.db, sqlite:////abs/path.db")
    return os.path.abspath(path)


def check_file(path: str, mounts: str = "/proc/self/mounts") -> None:
    """Look at what is there, and change nothing.

    It is SQLite that looks, and no ``open`` of ours: whoever closes a file gives up all locks that the process has on
    it, those of other connections, too. A process elsewhere would then take itself for the last one, and delete the
    write-ahead log that this one still writes to.

    Raises:
        InvalidOption: No file of the bus can be at that path; tells what was found and what was expected.
    """
    directory = os.path.dirname(path)
    if not os.path.isdir(directory):
        raise InvalidOption("url", f"there is no directory {directory} for the file {os.path.basename(path)}")
    kind = _file_system(directory, mounts)
    if kind in REMOTE:
        raise InvalidOption(
            "url",
            f"{directory} is on {kind}, where the locks and the shared memory that the store needs do not "
            "work; expected a local disk (for several machines use Redis or PostgreSQL)",
        )
    if os.path.isdir(path):
        raise InvalidOption("url", f"{path} is a directory; expected the bus's file, or nothing yet")
    if not os.path.exists(path):
        return
    if not os.access(path, os.R_OK):
        raise InvalidOption("url", f"{path} cannot be read: {os.strerror(errno.EACCES)}")
    try:
        with closing(sqlite3.connect(f"file:{quote(path)}?mode=ro", uri=True, timeout=0)) as connection:
            names = "application_id", "user_version", "schema_version"
            application_id, version, tables = [_number(connection, f"PRAGMA {name}") for name in names]
    except sqlite3.Error as error:
        if _code(error) == _NOTADB:
            reason = f"{path} is no SQLite database; expected the bus's file, or nothing yet"
            raise InvalidOption("url", reason) from error
        return  # such as a lock: the first use will say what is wrong
    if not application_id and not tables:
        return
    unknown = _not_ours(path, application_id, version)
    if unknown:
        raise InvalidOption("url", unknown)


def _not_ours(path: str, application_id: int, version: int) -> str | None:
    if application_id != APPLICATION_ID:
        return (
            f"{path} is another program's database (application_id {application_id:#x}); expected the bus's "
            f"({APPLICATION_ID:#x}), or no file yet"
        )
    if version > VERSION:
        return f"{path} has tables of version {version}; this messagebus knows versions up to {VERSION}: upgrade it"
    return None


def _file_system(directory: str, mounts: str) -> str | None:
    """The kind of file system that a directory is on; ``None`` where the machine does not tell."""
    directory = os.path.realpath(directory)
    found, longest = None, -1
    try:
        with open(mounts, encoding="utf-8", errors="surrogateescape") as file:
            for line in file:
                place, kind = line.split()[1:3]
                place = place.replace("\\040", " ").rstrip("/")
                if len(place) >= longest and (directory + "/").startswith(place + "/"):
                    found, longest = kind, len(place)
    except (OSError, ValueError):
        return None
    return found


# SQLite's result codes, which Python knows by name since 3.11 only; before, an error has no more than its text.
_PERM, _BUSY, _LOCKED, _READONLY, _IOERR, _CORRUPT, _FULL, _CANTOPEN, _PROTOCOL = 3, 5, 6, 8, 10, 11, 13, 14, 15
_AUTH, _NOTADB = 23, 26
_TEXTS = {
    "database is locked": _BUSY,
    "database table is locked": _LOCKED,
    "attempt to write a readonly database": _READONLY,
    "disk I/O error": _IOERR,
    "database disk image is malformed": _CORRUPT,
    "database or disk is full": _FULL,
    "unable to open database file": _CANTOPEN,
    "locking protocol": _PROTOCOL,
    "access permission denied": _PERM,
    "file is not a database": _NOTADB,
}


def _code(error: sqlite3.Error) -> int:
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return code & 0xFF if code is not None else _TEXTS.get(str(error), 0)


def explain(error: sqlite3.Error, path: str) -> MessageBusError:
    """What an error of SQLite's means."""
    code = _code(error)
    said = f"SQLite at {path}: {error}"
    if code in (_BUSY, _LOCKED):
        return BackendUnavailable(f"{said} (another process holds its lock)", "busy")
    if code == _FULL:
        return BackendUnavailable(said, "full")
    if code == _READONLY:
        return BackendUnavailable(said, "read-only")
    if code in (_IOERR, _CANTOPEN, _PROTOCOL):
        return BackendUnavailable(said, "gone")
    if code in (_PERM, _AUTH):
        return PublishRefused(said, "forbidden")
    if code in (_NOTADB, _CORRUPT):
        return PublishRefused(said, "wrong type")
    return PublishRefused(said)


class SqliteFile:
    """The file, and this process's connections to it. All methods are safe from any thread and any greenlet."""

    def __init__(self, path: str, timeout: float) -> None:
        """``timeout``: seconds to wait for another process's lock."""
        self.path = path
        self._timeout = timeout
        self._closed = False
        self._clear()
        _files.add(self)

    def _clear(self) -> None:
        # Nothing is waited for under it, so it may be made before gevent patches the process.
        # Reentrant, for signal handlers.
        self._lock = threading.RLock()
        self._idle: list[tuple[tuple[int, int], sqlite3.Connection]] = []
        self._active = 0
        self._forking = 0

    def run(self, work: Callable[[sqlite3.Connection], Result], *, writing: bool = False) -> Result:
        """Call ``work`` within one transaction, and again while another process holds the lock.

        Raises:
            BackendUnavailable: The lock was held for the whole timeout, or the file cannot be used.
            PublishRefused: The file is none of the bus's.
        """
        until = time.monotonic() + self._timeout
        pause = FIRST_PAUSE
        while True:
            try:
                with self._use() as connection:
                    return _transaction(connection, work, writing=writing)
            except sqlite3.Error as error:
                if _code(error) not in (_BUSY, _LOCKED) or time.monotonic() > until:
                    raise explain(error, self.path) from error
            time.sleep(pause * random.uniform(0.5, 1))
            pause = min(pause * 1.5, LONGEST_PAUSE)

    @contextmanager
    def _use(self) -> Iterator[sqlite3.Connection]:
        while True:
            with self._lock:
                if self._closed:
                    raise BusClosed("the store was closed")
                if not self._forking:
                    self._active += 1
                    break
            time.sleep(FIRST_PAUSE)
        place: tuple[int, int] | None = None
        connection: sqlite3.Connection | None = None
        try:
            place, connection = self._take()
            yield connection
        except BaseException:
            if connection is not None and not connection.in_transaction:
                self._give_back(place, connection)
            elif connection is not None:
                connection.close()
            raise
        else:
            self._give_back(place, connection)
        finally:
            with self._lock:
                self._active -= 1

    def _take(self) -> tuple[tuple[int, int] | None, sqlite3.Connection]:
        place = self._place()
        while True:
            with self._lock:
                kept = self._idle.pop() if self._idle else None
            if kept is None:
                connection = self._open()
                return self._place(), connection
            if kept[0] == place:
                return kept
            kept[1].close()  # of a file that was replaced or deleted since

    def _give_back(self, place: tuple[int, int] | None, connection: sqlite3.Connection | None) -> None:
        if connection is None:
            return
        with self._lock:
            if place is not None and not self._closed and len(self._idle) < MAX_IDLE:
                self._idle.append((place, connection))
                return
        connection.close()

    def _place(self) -> tuple[int, int] | None:
        """What tells this file from another one at the same path."""
        try:
            found = os.stat(self.path)
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def _open(self) -> sqlite3.Connection:
        # Threads use it one after another. This waits for no lock: under gevent nothing else would run meanwhile.
        connection = sqlite3.connect(
            self.path, timeout=0, isolation_level=None, check_same_thread=False, cached_statements=64
        )
        try:
            self._prepare(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        if _number(connection, "PRAGMA application_id") == 0 and not _number(connection, "PRAGMA schema_version"):
            connection.execute("BEGIN EXCLUSIVE")
            if not _number(connection, "PRAGMA schema_version"):
                # In one transaction with the tables: nobody ever finds a file that is half ours.
                for statement in _TABLES.split(";\n"):
                    connection.execute(statement)
                connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                connection.execute(f"PRAGMA user_version = {VERSION}")
            connection.execute("COMMIT")
        reason = _not_ours(
            self.path, _number(connection, "PRAGMA application_id"), _number(connection, "PRAGMA user_version")
        )
        if reason:
            raise PublishRefused(reason, "wrong type")
        (mode,) = connection.execute("PRAGMA journal_mode").fetchone()
        if mode != "wal":
            (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
            if mode != "wal":
                raise PublishRefused(f"{self.path} cannot be set to WAL (it is {mode})", "unsupported")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA temp_store = MEMORY")

    def close(self) -> None:
        """May be repeated."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for _, connection in idle:
            connection.close()

    def _before_fork(self) -> None:
        with self._lock:
            self._forking += 1
        until = time.monotonic() + 5
        while self._active and time.monotonic() < until:  # transactions of some milliseconds
            time.sleep(FIRST_PAUSE)
        with self._lock:
            idle, self._idle = self._idle, []
        for _, connection in idle:
            connection.close()

    def _after_fork_in_parent(self) -> None:
        with self._lock:
            self._forking = max(self._forking - 1, 0)

    def _after_fork_in_child(self) -> None:
        self._clear()


def _number(connection: sqlite3.Connection, query: str) -> int:
    return int(connection.execute(query).fetchone()[0])


def _transaction(
    connection: sqlite3.Connection, work: Callable[[sqlite3.Connection], Result], *, writing: bool
) -> Result:
    connection.execute("BEGIN IMMEDIATE" if writing else "BEGIN")
    try:
        result = work(connection)
        connection.execute("COMMIT")
    except BaseException:
        # SQLite has ended it by itself after some errors. Where it cannot be ended, the connection is closed.
        if connection.in_transaction:
            try:
                connection.execute("ROLLBACK")
            except sqlite3.Error:
                pass
        raise
    return result


_files: weakref.WeakSet[SqliteFile] = weakref.WeakSet()


def _each(method: Callable[[SqliteFile], None]) -> Callable[[], None]:
    def call() -> None:
        for file in list(_files):
            method(file)

    return call


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_each(SqliteFile._before_fork),
        after_in_parent=_each(SqliteFile._after_fork_in_parent),
        after_in_child=_each(SqliteFile._after_fork_in_child),
    )
