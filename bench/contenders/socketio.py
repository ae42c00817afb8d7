"""Socket.IO on Node with its Redis adapter; messages come in as its Redis emitter sends them."""

from __future__ import annotations

import shutil

import msgspec

from ..machine import SERVER_CORE
from ..processes import Process, free_port
from ..publishers import RedisPubSubPublisher
from ..redis_server import RedisServer
from ..wires import SOCKET_IO
from .base import Contender

_EVENT = 2  # the packet's type


class SocketIO(Contender):
    name = "socket.io"
    wires = {"websocket": SOCKET_IO}  # noqa: RUF012

    def __init__(self, redis: RedisServer) -> None:
        self.port = free_port()
        self._redis = redis
        node = shutil.which("node")
        assert node, "node is missing; make bench installs it"
        self.process = Process([node, "bench/servers/socketio.js", str(self.port), redis.url()], SERVER_CORE)
        self.process.wait_for(self.port)

    def publisher(self) -> RedisPubSubPublisher:
        return RedisPubSubPublisher(self._redis.port, _encode)


def _encode(channel: str, text: str) -> tuple[bytes, bytes]:
    packet = {"type": _EVENT, "data": ["m", text], "nsp": "/"}
    options: dict[str, object] = {"rooms": [channel], "except": [], "flags": {}}
    return f"socket.io#/#{channel}#".encode(), msgspec.msgpack.encode(["bench", packet, options])
