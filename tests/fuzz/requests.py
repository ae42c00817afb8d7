"""Requests that are nearly right, and what has to come back."""

from __future__ import annotations

import contextlib
import re
import socket
from collections.abc import Sequence

from ..servers import Server
from .mutation import Mutation
from .reading import read_to_end

FORM = b"%2Ffuzz=0&%2Fother=-1&__seq=3&__epoch=&__grants=a,b&__refusals=t"
JSON = b'{"/fuzz": 0, "/other": "@5", "__seq": 3, "__epoch": "x", "__grants": ["a"], "__refusals": true}'
SHAKE = b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
HARD = [
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: identity\r\n",
    b"Content-Length: 5\r\n",
    b"Content-Length: -1\r\n",
    b"Connection: Upgrade\r\n",
    b"Upgrade: h2c\r\n",
    b"Expect: 100-continue\r\n",
    b"Content-Type: application/json\r\n",
    b"Dont-Chunk: true\r\n",
    b"Last-Event-ID: 7\r\n",
    b"Origin: https://evil.example\r\n",
    b"Host: a b\r\n",
    b"HTTP/0.9",
    b"HTTP/1.0",
    b"HTTP/2.0",
    b"5;a\nb\r\nhello\r\n0\r\n\r\n",
    b"fffffffffffffffff\r\n",
]


def _post(query: bytes, kind: bytes, body: bytes, fields: bytes = b"") -> bytes:
    head = b"POST /message-bus/fuzzer/poll%b HTTP/1.1\r\nHost: x\r\nContent-Type: %b\r\n%b" % (query, kind, fields)
    return head + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)


def _chunked(body: bytes) -> bytes:
    return (
        b"POST /message-bus/fuzzer/poll?dlp=t HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    )


SEEDS: Sequence[bytes] = [
    _post(b"?dlp=t", b"application/x-www-form-urlencoded", FORM),
    _post(b"?dlp=t", b"application/json", JSON),
    _post(b"", b"application/x-www-form-urlencoded", FORM, b"Dont-Chunk: true\r\n"),
    _post(b"", b"application/json; charset=utf-8", JSON),
    _chunked(FORM),
    b"GET /message-bus/fuzzer/sse?%b HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n" % FORM,
    b"GET /message-bus/fuzzer/ws?%b HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n%b\r\n" % (FORM, SHAKE),
    b"GET /message-bus/static/messagebus.js HTTP/1.1\r\nHost: x\r\nAccept-Encoding: gzip\r\nRange: bytes=0-5\r\n\r\n",
    b"OPTIONS /message-bus/fuzzer/poll HTTP/1.1\r\nHost: x\r\nOrigin: https://a.example\r\n\r\n",
    b"GET /hello HTTP/1.1\r\nHost: x\r\nConnection: keep-alive\r\n\r\n",
]
FAILED = re.compile(rb"HTTP/1\.[01] 50[02]|Traceback")


def send_some(server: Server, mutation: Mutation) -> None:
    """One connection's worth: a request or several, whole or in two pieces, after which the client says no more. It
    ends, and no answer is the server's fault."""
    data = b"".join(mutation.of(SEEDS) for _ in range(mutation.random.choice((1, 1, 1, 2, 5))))
    cut = mutation.random.randrange(len(data) + 1)
    received = bytearray()
    with server.connect() as connection, contextlib.suppress(ConnectionError):
        for part in (data[:cut], data[cut:]):
            connection.sendall(part)
        connection.shutdown(socket.SHUT_WR)
        read_to_end(connection, received, data)
    assert not FAILED.search(received), f"{data!r} got {bytes(received[:500])!r}"
