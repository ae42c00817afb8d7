"""The page with the bell, and what its buttons do."""

from flask import Blueprint, abort, redirect, render_template, url_for
from flask_login import current_user, login_required

from . import database, notifications

blueprint = Blueprint("pages", __name__)


@blueprint.get("/")
@login_required
def home():
    others = database.connection().execute("SELECT * FROM users WHERE id <> ?", (current_user.id,))
    return render_template(
        "home.html",
        others=others.fetchall(),
        channel=notifications.channel_of(current_user.id),
        unread=notifications.unread(current_user.id),
        newest=notifications.newest(current_user.id),
    )


@blueprint.post("/wave/<int:user_id>")
@login_required
def wave(user_id):
    if database.connection().execute("SELECT 1 FROM users WHERE id = ?", (user_id,)).fetchone() is None:
        abort(404)
    notifications.notify(user_id, f"{current_user.name} waves at you")
    return redirect(url_for("pages.home"))


@blueprint.post("/seen")
@login_required
def seen():
    notifications.mark_seen(current_user.id)
    return "", 204
