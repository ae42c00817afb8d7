"""A page for each client of the bus, and a message every 50 ms, for ``messagebus serve``."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from flask import Flask, Response, request, send_file

from messagebus import MessageBus

CHANNEL = "/ticks"
MODULES = Path(__file__).parent / "node_modules"
NPM_CLIENT = MODULES / "message-bus-client" / "assets" / "message-bus.js"
JQUERY = MODULES / "jquery" / "dist" / "jquery.min.js"  # which the npm client sends its requests with
SCRIPTS = {
    "messagebus": ["/message-bus/static/messagebus.js"],
    "message-bus-client": ["/jquery.js", "/message-bus.js"],
}
PAGE = """<!doctype html><script>const arrivals = [];
const arrived = () => arrivals.push(performance.timeOrigin + performance.now());</script>
{scripts}
<script>MessageBus.subscribe("{channel}", arrived, -1); MessageBus.start();</script>"""

app = Flask(__name__)
app.register_blueprint(MessageBus.blueprint)


@app.get("/")
def page() -> str:
    scripts = "".join(f'<script src="{path}"></script>' for path in SCRIPTS[request.args["client"]])
    return PAGE.format(scripts=scripts, channel=CHANNEL)


@app.get("/jquery.js")
def jquery() -> Response:
    return send_file(JQUERY)


@app.get("/message-bus.js")
def npm_client() -> Response:
    return send_file(NPM_CLIENT)


def tick() -> None:
    while True:
        MessageBus.publish(CHANNEL, "tick")
        time.sleep(0.05)


threading.Thread(target=tick, daemon=True).start()
