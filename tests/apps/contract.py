"""An app that does to the bus whatever a test of the transports asks for."""

from __future__ import annotations

import os

from flask import Flask, render_template_string, request

from messagebus import MessageBus
from messagebus.options import Environ

from .common import routes


def groups(environ: Environ) -> list[str]:
    return [group for group in environ.get("HTTP_X_GROUPS", "").split(",") if group]


MessageBus.configure(
    user_id_lookup=lambda environ: environ.get("HTTP_X_USER"),
    group_ids_lookup=groups,
    site_id_lookup=lambda environ: environ.get("HTTP_X_SITE"),
)
MessageBus.register_client_message_filter(
    "/filtered", lambda message: not isinstance(message.data, dict) or "hidden" not in message.data
)
app = Flask(__name__)
app.register_blueprint(MessageBus.blueprint)
app.register_blueprint(routes)


@app.get("/pid")
def pid() -> str:
    return str(os.getpid())


@app.post("/reset")
def reset() -> str:
    MessageBus.reset()
    return "reset"


@app.get("/page")
def page() -> str:
    """A page that is late: something is published while it is made."""
    channel = request.args["channel"]
    MessageBus.publish(channel, "while the page was made")
    return render_template_string("{{ message_bus([channel]) }}", channel=channel)
