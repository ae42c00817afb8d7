"""A notification bell: it rings on every open page of the user whom something happens to."""

from pathlib import Path

from flask import Flask

from messagebus import MessageBus

from . import accounts, database, notifications, pages
from .extensions import csrf, login_manager


def create_app(config=None):
    app = Flask(__name__)
    app.config.from_mapping(
        SECRET_KEY="for development only",
        DATABASE=str(Path(app.instance_path) / "bell.sqlite"),
    )
    app.config.from_prefixed_env()  # FLASK_SECRET_KEY, FLASK_DATABASE
    app.config.from_mapping(config or {})

    login_manager.init_app(app)
    csrf.init_app(app)

    app.register_blueprint(accounts.blueprint)
    app.register_blueprint(pages.blueprint)
    app.register_blueprint(MessageBus.blueprint)
    app.teardown_appcontext(database.close)
    app.cli.add_command(database.init_command)
    app.cli.add_command(notifications.notify_command)
    return app
