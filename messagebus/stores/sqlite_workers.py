"""What workers tell each other through the SQLite store, each within the transaction of its caller."""

from __future__ import annotations

import sqlite3
import time

from .base import REPORT_LEASE

HEARD_WITHIN = 30
"""Seconds after which an announcement is deleted, with one of the next: feeds look every second."""
DELETED_AT_ONCE = 10


def announce(connection: sqlite3.Connection, text: str) -> None:
    now = time.time()
    connection.execute("UPDATE state SET announced = announced + 1")
    connection.execute("INSERT INTO announcements SELECT announced, ?, ? FROM state", (text, now))
    # The oldest, and more of them than come: to look at all would cost each announcement by those before it.
    connection.execute(
        """DELETE FROM announcements
        WHERE id IN (SELECT id FROM announcements ORDER BY id LIMIT ?) AND announced_at <= ?""",
        (DELETED_AT_ONCE, now - HEARD_WITHIN),
    )


def announcements(connection: sqlite3.Connection, after: int, through: int) -> list[str]:
    """The texts of those whose ids are above ``after``, up to ``through``."""
    query = "SELECT text FROM announcements WHERE id > ? AND id <= ? ORDER BY id"
    rows = connection.execute(query, (after, through))
    return [text for (text,) in rows]


def report(connection: sqlite3.Connection, worker: str, text: str) -> None:
    now = time.time()
    connection.execute("DELETE FROM reports WHERE until <= ?", (now,))
    connection.execute("INSERT OR REPLACE INTO reports VALUES (?, ?, ?)", (worker, text, now + REPORT_LEASE))


def withdraw(connection: sqlite3.Connection, worker: str) -> None:
    connection.execute("DELETE FROM reports WHERE worker = ?", (worker,))


def reports(connection: sqlite3.Connection) -> dict[str, str]:
    return dict(connection.execute("SELECT worker, report FROM reports WHERE until > ?", (time.time(),)).fetchall())
