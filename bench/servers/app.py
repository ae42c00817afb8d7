"""A Flask app with the bus, for ``messagebus serve``. With ``BENCH_THROUGH_FLASK`` set it looks at every request, as
many apps do, so that the bus's own go through Flask, too."""

from __future__ import annotations

import os

from flask import Flask, request

from messagebus import MessageBus

app = Flask(__name__)
app.register_blueprint(MessageBus.blueprint)

if "BENCH_THROUGH_FLASK" in os.environ:

    @app.before_request
    def look() -> None:
        pass


@app.get("/empty")
def empty() -> str:
    return ""


@app.post("/publish")
def publish() -> str:
    """Lines of channel, blank, text. For the memory store, which nobody else can reach."""
    lines = [line.partition(" ") for line in request.get_data(as_text=True).split("\n")]
    MessageBus.publish_many([(channel, text) for channel, _, text in lines])
    return ""
