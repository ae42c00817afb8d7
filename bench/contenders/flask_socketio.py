"""Flask-SocketIO on gevent with gevent-websocket and its Redis queue; messages come in as its other processes send
them."""

from __future__ import annotations

import json
import sys

from ..machine import SERVER_CORE
from ..processes import Process, free_port
from ..publishers import RedisPubSubPublisher
from ..redis_server import RedisServer
from ..wires import SOCKET_IO
from .base import Contender


class FlaskSocketIO(Contender):
    name = "Flask-SocketIO"
    wires = {"websocket": SOCKET_IO}  # noqa: RUF012

    def __init__(self, redis: RedisServer) -> None:
        self.port = free_port()
        self._redis = redis
        command = [sys.executable, "-m", "bench.servers.flask_socketio_server", str(self.port), redis.url()]
        self.process = Process(command, SERVER_CORE)
        self.process.wait_for(self.port)

    def publisher(self) -> RedisPubSubPublisher:
        return RedisPubSubPublisher(self._redis.port, _encode)


def _encode(channel: str, text: str) -> tuple[bytes, bytes]:
    message = {
        "method": "emit",
        "event": "m",
        "data": [text],
        "binary": False,
        "namespace": "/",
        "room": channel,
        "skip_sid": None,
        "callback": None,
        "host_id": "bench",
    }
    return b"flask-socketio", json.dumps(message).encode()
