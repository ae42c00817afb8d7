"""Requests as bytes, nothing added, and everything that a server answers to them."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from .servers import Server

AFTERWARDS = b"GET /hello HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
"""Sent behind the rest: it is answered where the connection was kept, and ends it."""
_BODILESS = {"100", "101", "204", "304"}


@dataclass(frozen=True, slots=True)
class Answered:
    """One response; ``headers`` without the date."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        return dict(self.headers).get(name)

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def head(*lines: str, body: bytes = b"") -> bytes:
    """A request from its lines, as latin-1."""
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def exchange(server: Server, *packets: bytes, to_head: bool = False) -> list[Answered]:
    """What comes back on one connection until the server closes it. ``to_head``: the first answer has no body."""
    received = bytearray()
    with server.connect() as connection, contextlib.suppress(ConnectionError):
        for packet in packets:
            connection.sendall(packet)
        while data := connection.recv(1 << 18):
            received += data
    return list(_answers(io.BytesIO(received), to_head))


def _answers(file: io.BytesIO, to_head: bool) -> Iterable[Answered]:
    while line := file.readline():
        version, status, _ = line.decode("latin-1").split(" ", 2)
        assert version == "HTTP/1.1"
        headers: list[tuple[str, str]] = []
        while (line := file.readline()) != b"\r\n":
            name, value = line.decode("latin-1").removesuffix("\r\n").split(": ", 1)
            if name != "Date":
                headers.append((name.lower(), value))
        body = b"" if to_head or status in _BODILESS else _body(file, dict(headers))
        to_head = False
        yield Answered(int(status), headers, body)


def _body(file: io.BytesIO, headers: dict[str, str]) -> bytes:
    if headers.get("transfer-encoding") == "chunked":
        parts = []
        while size := int(file.readline(), 16):
            parts.append(file.read(size))
            assert file.readline() == b"\r\n"
        assert file.readline() == b"\r\n"
        return b"".join(parts)
    if "content-length" in headers:
        body = file.read(int(headers["content-length"]))
        assert len(body) == int(headers["content-length"])
        return body
    return file.read()
