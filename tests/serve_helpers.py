"""What the tests of ``messagebus serve`` share."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path
from urllib.parse import quote

from .clients import request
from .eventually import eventually
from .fixtures_servers import ServeApp
from .ports import free_port
from .servers import ROOT, Server

APP = "tests.apps.slow:app"
"""Its views take long, in several ways."""


VIEWS = """
import os
from gevent.monkey import is_module_patched
from flask import Flask, jsonify, request
from messagebus import Bus, MessageBus
assert is_module_patched("threading"), "imported before gevent has patched"

def make(bus=MessageBus, name="app"):
    app = Flask(name)
    app.register_blueprint(bus.blueprint)
    app.add_url_rule("/hello", "hello", lambda: f"hello from {name}")
    @app.post("/publish")
    def publish():
        given = request.get_json()
        return jsonify(message_id=bus.publish(given["channel"], given["data"]))
    return app
"""


def write(directory: Path, **modules: str) -> None:
    """Modules of a program in a directory of its own; they can import ``views``."""
    (directory / "views.py").write_text(VIEWS)
    for name, text in modules.items():
        (directory / f"{name}.py").write_text(textwrap.dedent(text))


IDLE_SOCKETS = 2
"""Of a worker. It listens on one, and gevent on its copy."""
CLIENT = "/message-bus/static/messagebus.js"


def alone(serve_app: ServeApp, *args: str, **options: object) -> Server:
    """It serves nothing but the bus."""
    return serve_app("serve", "", args=args, ready=CLIENT, **options)


def publish(server: Server, channel: str, text: str) -> tuple[int, dict[str, object]]:
    """The status and the body of the answer."""
    with request(server.url, "POST", f"/message-bus/publish?channel={quote(channel)}", text.encode()) as response:
        return response.status, json.load(response)


def fail_to_serve(*args: str, cwd: Path = ROOT, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """The command, which is expected to end by itself."""
    command = [sys.executable, "-m", "messagebus", "serve", "--bind", f"127.0.0.1:{free_port()}", *args]
    environ = {**os.environ, "PYTHONPATH": f"{cwd}{os.pathsep}{ROOT}", **(env or {})}
    return subprocess.run(command, cwd=cwd, env=environ, capture_output=True, text=True, timeout=60)


def in_background(call: Callable[[], object]) -> tuple[threading.Thread, list[object]]:
    """Runs a call in a thread; the list gets what it returned or raised."""
    came: list[object] = []

    def run() -> None:
        try:
            came.append(call())
        except Exception as error:
            came.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, came


def get(server: Server, path: str, timeout: float = 5.0) -> bytes | None:
    """The body; ``None`` where there is no answer."""
    try:
        return server.get(path, timeout=timeout)[1]
    except (OSError, HTTPException):
        return None


def begin(server: Server, path: str) -> tuple[threading.Thread, list[object]]:
    """Ask for one of the slow views in the background; returns when it has begun."""
    seen = server.output().count("begun: ")
    background = in_background(lambda: server.get(path, timeout=90))
    eventually(lambda: server.output().count("begun: ") > seen)
    return background


def refuses(server: Server) -> bool:
    """Whether it takes no new connections."""
    try:
        server.connect().close()
    except ConnectionRefusedError:
        return True
    return False


def hammer(server: Server, stop: threading.Event) -> list[object]:
    """Requests one after the other, each on a connection of its own; what was not answered with 200."""
    failed: list[object] = []
    while not stop.is_set():
        try:
            answered = server.get("/hello", timeout=20)
            if answered[0] != 200:
                failed.append(answered)
        except OSError as error:
            failed.append(error)
        time.sleep(0.02)
    return failed
