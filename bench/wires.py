"""How one subscriber begins on each contender: bytes to send, answers to wait for. No sockets."""

from __future__ import annotations

import json
from dataclasses import dataclass
from urllib.parse import quote

TOKEN = b"<>"
"""Every message begins with it, and nothing else that a server sends has it: messages are counted by it."""
DIGITS = 8
WEBSOCKET_KEY = "dGhlIHNhbXBsZSBub25jZQ=="


def payload(number: int, size: int = 160) -> str:
    """The text of a message: the token, its number, and letters up to the size."""
    return f"{TOKEN.decode()}{number:0{DIGITS}d} ".ljust(size, "x")


@dataclass(frozen=True)
class Wire:
    """How a subscriber begins."""

    transport: str
    path: str
    """With ``{channel}`` and ``{number}``, the subscriber's own."""
    ready: bytes = b""
    """What the server has sent when the subscription stands; empty: it says nothing."""
    answer: tuple[bytes, bytes] | None = None
    """What to wait for first, and what to send then."""
    body: str | None = None
    """Of a POST; with ``{channel}`` and ``{position}``."""
    headers: str = ""

    def request(self, channel: str, number: int, position: int) -> bytes:
        quoted = quote(channel, safe="")
        path = self.path.format(channel=quoted, number=number, position=position)
        headers = "Host: localhost\r\n" + self.headers
        if self.transport == "websocket":
            headers += (
                "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                f"Sec-WebSocket-Key: {WEBSOCKET_KEY}\r\n"
            )
        if self.body is None:
            return f"GET {path} HTTP/1.1\r\n{headers}\r\n".encode()
        body = self.body.format(channel=quoted, position=position)
        headers += f"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {len(body)}\r\n"
        return f"POST {path} HTTP/1.1\r\n{headers}\r\n{body}".encode()


def masked(text: bytes) -> bytes:
    """A client's WebSocket frame, masked with zeros."""
    if len(text) < 126:
        return bytes((0x81, 0x80 | len(text), 0, 0, 0, 0)) + text
    return bytes((0x81, 0x80 | 126, *divmod(len(text), 256), 0, 0, 0, 0)) + text


# Told where it stands, a subscriber of ours is live with its first batch, which then has a status in it.
_STATUS = b"/__status"
OURS = {
    "websocket": Wire("websocket", "/message-bus/c{number}/ws?{channel}={position}", _STATUS),
    "eventsource": Wire("eventsource", "/message-bus/c{number}/sse?{channel}={position}", _STATUS),
    "streaming": Wire("streaming", "/message-bus/c{number}/poll", _STATUS, body="{channel}={position}"),
    "long-polling": Wire(
        "long-polling", "/message-bus/c{number}/poll", body="{channel}=0", headers="Dont-Chunk: true\r\n"
    ),
}
NCHAN = {
    "websocket": Wire("websocket", "/sub/{channel}", b"\r\n\r\n"),
    "eventsource": Wire("eventsource", "/sub/{channel}", b": hi", headers="Accept: text/event-stream\r\n"),
}
NCHAN_BEHIND = {
    "websocket": Wire("websocket", "/behind/{channel}"),
    "eventsource": Wire("eventsource", "/behind/{channel}", headers="Accept: text/event-stream\r\n"),
}
SOCKET_IO = Wire(
    "websocket",
    "/socket.io/?EIO=4&transport=websocket&channel={channel}",
    ready=b'40{"sid"',
    answer=(b'0{"sid"', masked(b"40")),
)


def event(text: str) -> bytes:
    """What a message is to Socket.IO's clients, for those who look for it."""
    return json.dumps(["m", text]).encode()
