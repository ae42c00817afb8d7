"""Short polls with nothing new, of a Flask app, against an empty view of it on the same server."""

from __future__ import annotations

import select
import socket
import time

from ..contenders import MessageBus
from ..context import Context
from ..crowd import Failed
from ..results import Bound, Row, Section

CONNECTIONS = 20
SECONDS = 1.5
LEAST = 0.85
_BODY = b"%2Fpolled=0"
EMPTY = b"GET /empty HTTP/1.1\r\nHost: localhost\r\n\r\n"
POLL = (
    b"POST /message-bus/somebody/poll?dlp=t HTTP/1.1\r\nHost: localhost\r\n"
    b"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: %d\r\n\r\n%b" % (len(_BODY), _BODY)
)


def run(context: Context) -> Section:
    seconds = 0.3 if context.quick else SECONDS
    servers = [MessageBus(context.redis), MessageBus(context.redis, through_flask=True)]
    rows = [Row(server.name) for server in servers]
    try:
        for _ in range(context.runs):
            for row, server in zip(rows, servers, strict=True):
                row.add(empty=_rate(server.port, EMPTY, seconds), poll=_rate(server.port, POLL, seconds))
                context.say(f"{row.name}: {row.runs}")
    finally:
        for server in servers:
            server.stop()
    return Section(
        f"Short polls with nothing new, {CONNECTIONS} connections that stay",
        {"empty": "an empty view, requests/s", "poll": "polls/s"},
        rows,
        [
            Bound(f"short polls{row.name.removeprefix(servers[0].name)}, to an empty view", ratio, LEAST)
            for row in rows
            for ratio in [row.median("poll") / row.median("empty")]
        ],
        notes=["Through Flask: with an app that has a `before_request` function, which does nothing."],
    )


def _rate(port: int, request: bytes, seconds: float) -> float:
    """Requests per second: each connection asks again when it has its answer, which comes in one piece or two."""
    sockets = [socket.create_connection(("127.0.0.1", port)) for _ in range(CONNECTIONS)]
    by_fd, said = {sock.fileno(): sock for sock in sockets}, dict.fromkeys((sock.fileno() for sock in sockets), b"")
    with select.epoll() as epoll:
        for sock in sockets:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            epoll.register(sock, select.EPOLLIN)
            sock.sendall(request)
        answers, began = 0, time.perf_counter()
        while time.perf_counter() - began < seconds:
            for fd, _ in epoll.poll(0, CONNECTIONS):
                said[fd] += by_fd[fd].recv(65_536)
                if not said[fd].startswith(b"HTTP/1.1 200"):
                    raise Failed(f"a request was refused: {said[fd][:200]!r}")
                if _is_whole(said[fd]):
                    said[fd] = b""
                    answers += 1
                    by_fd[fd].sendall(request)
        spent = time.perf_counter() - began
    for sock in sockets:
        sock.close()
    return answers / spent


def _is_whole(said: bytes) -> bool:
    head, end, body = said.partition(b"\r\n\r\n")
    _, _, length = head.partition(b"Content-Length: ")
    return bool(end) and len(body) == int(length.split(b"\r\n")[0])
