"""Alembic, and so Flask-Migrate: the tables of the bus are no models of the app's, which is no reason to drop them."""

from __future__ import annotations

from collections.abc import Mapping

TABLES = frozenset(
    f"messagebus_{name}" for name in ("channels", "forgotten", "messages", "publications", "reports", "state")
)
"""What ``stores/postgres.sql`` makes."""


def include_name(name: str | None, type_: str, parent_names: Mapping[str, str | None]) -> bool:
    """Whether a migration may look at what the database has: at all but the tables of the bus.

    For ``context.configure(include_name=...)`` of Alembic, or ``Migrate(app, db, include_name=...)``.
    """
    return type_ != "table" or name not in TABLES
