"""Notifications: kept in the database, announced on the bus."""

import click
from flask_login import current_user

from messagebus import MessageBus

from . import database


def channel_of(user_id):
    return f"/notifications/{user_id}"


@MessageBus.authorize("/notifications/*")
def only_their_own(request, channel):
    return current_user.is_authenticated and channel == channel_of(current_user.id)


def notify(user_id, text):
    """Store a notification first, then ring the bell."""
    connection = database.connection()
    connection.execute("INSERT INTO notifications (user_id, text) VALUES (?, ?)", (user_id, text))
    connection.commit()
    MessageBus.publish(channel_of(user_id), {"text": text, "unread": unread(user_id)})


def mark_seen(user_id):
    """The user has looked: the number goes from every page that the user has open."""
    connection = database.connection()
    connection.execute("UPDATE notifications SET seen = 1 WHERE user_id = ?", (user_id,))
    connection.commit()
    MessageBus.publish(channel_of(user_id), {"unread": 0})


def unread(user_id):
    query = "SELECT count(*) FROM notifications WHERE user_id = ? AND NOT seen"
    return database.connection().execute(query, (user_id,)).fetchone()[0]


def newest(user_id):
    query = "SELECT text FROM notifications WHERE user_id = ? ORDER BY id DESC LIMIT 20"
    return [row["text"] for row in database.connection().execute(query, (user_id,))]


@click.command("notify")
@click.argument("name")
@click.argument("text")
def notify_command(name, text):
    """Notify the user NAME from the command line, or from cron."""
    row = database.connection().execute("SELECT id FROM users WHERE name = ?", (name,)).fetchone()
    if row is None:
        raise click.ClickException(f"there is no user {name}")
    notify(row["id"], text)
