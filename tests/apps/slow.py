"""An app whose views take their time, each in its own way."""

from __future__ import annotations

import hashlib
import os
import subprocess
import time

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


@app.get("/sleep/<float:seconds>")
def sleep(seconds: float) -> str:
    time.sleep(seconds)
    return "slept"


@app.get("/publish-after/<float:seconds>")
def publish_after(seconds: float) -> str:
    time.sleep(seconds)
    return str(MessageBus.publish("/a", "late"))


@app.get("/spin")
def spin() -> str:
    while True:
        pass


@app.get("/block")
def block() -> str:
    """A call that is not Python, and lets nobody else run."""
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
