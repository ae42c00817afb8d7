"""Apps with other extensions of Flask beside the bus, all in one process."""

from __future__ import annotations

import os

from flask import Flask, Response, jsonify, request
from flask_compress import Compress
from flask_limiter import Limiter
from flask_limiter.util import get_remote_address
from flask_migrate import Migrate
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from messagebus import MessageBus
from messagebus.integrations.alembic import include_name


class Base(DeclarativeBase):
    pass


db = SQLAlchemy(model_class=Base)


class Thing(Base):
    __tablename__ = "thing"
    id: Mapped[int] = mapped_column(primary_key=True)


def make_app() -> Flask:
    app = Flask(__name__)

    @app.get("/hello")
    def hello() -> str:
        return "hello"

    @app.post("/publish")
    def publish() -> Response:
        arguments = request.get_json()
        return jsonify(message_id=MessageBus.publish(arguments["channel"], arguments["data"]))

    return app


compressed = make_app()
Compress(compressed)
compressed.register_blueprint(MessageBus.blueprint)

limited = make_app()
Limiter(
    get_remote_address,
    app=limited,
    default_limits=["8 per 2 seconds"],
    storage_uri="memory://",
    headers_enabled=True,
)
limited.register_blueprint(MessageBus.blueprint)

migrated = make_app()
migrated.config["SQLALCHEMY_DATABASE_URI"] = os.environ.get("TEST_DATABASE", "sqlite://")
db.init_app(migrated)
WAY = os.environ.get("TEST_MIGRATE", "seen")
if WAY == "seen":
    Migrate(migrated, db)
migrated.register_blueprint(MessageBus.blueprint)
if WAY == "by hand":
    Migrate(migrated, db, include_name=include_name)
elif WAY == "unfiltered":
    Migrate(migrated, db)
