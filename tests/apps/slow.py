"""An app whose views take their time, each in its own way. They print that they have begun."""

from __future__ import annotations

import hashlib
import os
import subprocess
import time
from pathlib import Path

from flask import Flask, request

from messagebus import MessageBus

app = Flask(__name__)
app.register_blueprint(MessageBus.blueprint)


@app.get("/hello")
def hello() -> str:
    return "hello"


@app.get("/pid")
def pid() -> str:
    return str(os.getpid())


def begin() -> None:
    print(f"begun: {request.path}", flush=True)


def wait_for_file() -> None:
    while not Path(request.args["until"]).exists():
        time.sleep(0.02)


@app.get("/sleep")
def sleep() -> str:
    """For as long as it is let: an hour."""
    begin()
    time.sleep(3600)
    return "slept"


@app.get("/wait")
def wait() -> str:
    """Until there is a file."""
    begin()
    wait_for_file()
    return "waited"


@app.get("/publish-late")
def publish_late() -> str:
    """When there is a file."""
    begin()
    wait_for_file()
    return str(MessageBus.publish("/a", "late"))


@app.get("/spin")
def spin() -> str:
    begin()
    while True:
        pass


@app.get("/block")
def block() -> str:
    """A call that is not Python, and lets nobody else run."""
    begin()
    return hashlib.pbkdf2_hmac("sha256", b"", b"", 1 << 30).hex()


@app.get("/orphan")
def orphan() -> str:
    """Leaves a process behind whose parent ends at once."""
    subprocess.run(["sh", "-c", "(sleep 0.2 &)"], check=True)
    return "left"


@app.get("/exit")
def leave() -> str:
    os._exit(9)


@app.post("/length")
def length() -> str:
    return str(len(request.get_data()))
