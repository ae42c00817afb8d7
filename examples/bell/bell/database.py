"""Users and their notifications, in SQLite."""

import sqlite3
from pathlib import Path

import click
from flask import current_app, g
from werkzeug.security import generate_password_hash

SCHEMA = """
CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT UNIQUE, password TEXT);
CREATE TABLE notifications (id INTEGER PRIMARY KEY, user_id INTEGER, text TEXT, seen INTEGER DEFAULT 0);
"""


def connection():
    if "database" not in g:
        g.database = sqlite3.connect(current_app.config["DATABASE"])
        g.database.row_factory = sqlite3.Row
    return g.database


def close(error=None):
    if database := g.pop("database", None):
        database.close()


def init(**passwords):
    """Make the tables, and a user for each name."""
    Path(current_app.config["DATABASE"]).parent.mkdir(parents=True, exist_ok=True)
    database = connection()
    database.executescript(SCHEMA)
    users = [(name, generate_password_hash(password)) for name, password in passwords.items()]
    database.executemany("INSERT INTO users (name, password) VALUES (?, ?)", users)
    database.commit()


@click.command("init-db")
def init_command():
    """Make the tables, with the users ada and grace; their passwords are their names."""
    init(ada="ada", grace="grace")
