"""A Flask app with a channel class, for ``messagebus serve``."""

from __future__ import annotations

from typing import Any

from flask import Flask

from messagebus import Channel, MessageBus

app = Flask(__name__)
app.config["MESSAGEBUS_MAX_COMMANDS"] = 1_000_000
app.register_blueprint(MessageBus.blueprint)


@MessageBus.channel
class Bench(Channel):
    def subscribed(self) -> None:
        self.stream_from(self.params["to"])

    def echo(self, data: dict[str, Any]) -> None:
        self.transmit(data["t"])

    def say(self, data: dict[str, Any]) -> None:
        self.broadcast(self.params["to"], data["t"])
