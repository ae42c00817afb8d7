"""WebSocket frames and commands that are nearly right, and what has to come back."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Sequence

from websockets.frames import Frame, Opcode

from messagebus.http.frame_reader import FrameReader

from ..servers import Server
from .mutation import Mutation
from .reading import read_to_end

HANDSHAKE = (
    b"GET /message-bus/fuzzer/ws?%2Ffuzz=0&__epoch=&__refusals=t HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n"
    b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
COMMANDS: Sequence[bytes] = [
    json.dumps(command).encode()
    for command in (
        {"subscribe": {"/fuzz": -1, "/a": 0, "/b": "@3", "/c": ""}, "grants": ["a", "b"], "id": 1},
        {"subscribe": {f"/{number}": 0 for number in range(250)}, "id": 2},
        {"unsubscribe": ["/fuzz", "/a"], "id": {"any": ["thing"]}},
        {"publish": {"channel": "/fuzz", "data": {"text": "ü\u2028", "list": [1, 2.5, None, True]}}, "id": "x"},
        {"ping": [1, {"a": None}]},
    )
]
CLOSE_CODES = {1000, 1001, 1002, 1003, 1007, 1008, 1009, 1012, 1013, *range(3000, 5000)}


def _frames(mutation: Mutation) -> bytes:
    """A command as one to three frames, most of them as they should be."""
    draw = mutation.random
    text = mutation.of(COMMANDS)
    if draw.random() < 0.1:
        opcode = draw.choice((Opcode.PING, Opcode.PONG, Opcode.BINARY, Opcode.CLOSE, Opcode.CONT))
        with contextlib.suppress(Exception):
            return Frame(opcode, text[:125]).serialize(mask=True)
    cuts = sorted(draw.randrange(len(text) + 1) for _ in range(draw.choice((0, 0, 0, 1, 2))))
    parts = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    last = len(parts) - 1
    return b"".join(
        Frame(Opcode.CONT if number else Opcode.TEXT, part, fin=number == last).serialize(mask=True)
        for number, part in enumerate(parts)
    )


def send_some(server: Server, mutation: Mutation) -> None:
    """One connection's worth. What comes back are frames in order, and a close frame has a code that may be sent."""
    draw = mutation.random
    data = b"".join(_frames(mutation) for _ in range(draw.choice((1, 2, 5, 20))))
    if draw.random() < 0.3:
        data = mutation.of([data])
    received = bytearray()
    with server.connect() as connection, contextlib.suppress(ConnectionError):
        connection.sendall(HANDSHAKE + data if draw.random() < 0.2 else HANDSHAKE)
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        read_to_end(connection, received, data)
    head, _, rest = bytes(received).partition(b"\r\n\r\n")
    if not head:
        return  # it had gone before it was served
    assert head.startswith(b"HTTP/1.1 101"), f"{data!r} got {bytes(received)!r}"
    reader = FrameReader(None, mask=False)
    reader.feed(rest)
    while (frame := reader.take()) is not None:
        if frame.opcode is Opcode.CLOSE:
            assert len(frame.data) >= 2
            assert int.from_bytes(frame.data[:2], "big") in CLOSE_CODES, f"{data!r} got {frame}"
        elif frame.opcode is Opcode.TEXT:
            said = json.loads(bytes(frame.data))
            assert isinstance(said, list) or said.get("error", {}).get("code") != "internal", f"{data!r} got {said}"
