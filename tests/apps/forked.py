"""An app that uses the bus while it is imported: before a server forks, where that preloads."""

from __future__ import annotations

import os

from flask import Flask, Response, jsonify

from messagebus import MessageBus

from .basic import app as basic

heard: list[str] = []


@MessageBus.subscribe("/heard")
def hear(message: object) -> None:
    heard.append(message.data)  # type: ignore[attr-defined]


MessageBus.publish("/import", os.getpid())

app: Flask = basic


@app.get("/heard")
def what_was_heard() -> Response:
    return jsonify(pid=os.getpid(), heard=heard)
