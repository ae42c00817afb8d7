"""How messages get to a contender's server from the load's core. None needs a thread."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from typing import Protocol

from messagebus.message import encode_data, encode_envelope
from messagebus.options import Options
from messagebus.publishing.batches import batches_of
from messagebus.stores import Publication, open_store

Messages = Sequence[tuple[str, str]]
"""Channels and texts."""


class Publisher(Protocol):
    def publish(self, messages: Messages) -> None:
        """Hand them over in their order; they need not have been delivered when this returns."""

    def close(self) -> None: ...


class _Pipe:
    """A connection to which requests are written one behind the other; the answers are only thrown away."""

    def __init__(self, port: int) -> None:
        self._sock = socket.create_connection(("127.0.0.1", port))
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def write(self, data: bytes) -> None:
        self._sock.setblocking(False)
        try:
            while self._sock.recv(1 << 18):
                pass
        except BlockingIOError:
            pass
        self._sock.setblocking(True)
        self._sock.sendall(data)

    def close(self) -> None:
        self._sock.close()


class HttpPublisher(_Pipe):
    """One request for each message, pipelined; ``path`` has ``{channel}`` in it."""

    def __init__(self, port: int, path: str) -> None:
        super().__init__(port)
        self._path = path

    def publish(self, messages: Messages) -> None:
        self.write(b"".join([self._request(channel, text) for channel, text in messages]))

    def _request(self, channel: str, text: str) -> bytes:
        path = self._path.format(channel=channel.replace("/", "%2F"))
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\nContent-Length: {len(text)}\r\n\r\n"
        return (head + text).encode()


class LinesPublisher(_Pipe):
    """One request for all messages: lines of channel, blank, text."""

    def publish(self, messages: Messages) -> None:
        body = "\n".join([f"{channel} {text}" for channel, text in messages]).encode()
        self.write(b"POST /publish HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))


class RedisPubSubPublisher(_Pipe):
    """``PUBLISH`` for each message, as ``encode`` has it: channel, text -> Redis channel, bytes."""

    def __init__(self, port: int, encode: Callable[[str, str], tuple[bytes, bytes]]) -> None:
        super().__init__(port)
        self._encode = encode

    def publish(self, messages: Messages) -> None:
        self.write(b"".join([self._command(*self._encode(channel, text)) for channel, text in messages]))

    @staticmethod
    def _command(channel: bytes, body: bytes) -> bytes:
        return b"*3\r\n$7\r\nPUBLISH\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n" % (len(channel), channel, len(body), body)


class StorePublisher:
    """Into our store, as ``Bus.publish_many`` does it, without the feed that a bus would start in this process."""

    def __init__(self, url: str, announce: str = "together") -> None:
        self._options = Options(url=url, redis_announce=announce)
        self._store = open_store(self._options)

    def publish(self, messages: Messages, client_ids: Sequence[str] | None = None) -> None:
        """``client_ids``: for each message the one whom it is for."""
        options = self._options
        publications = [
            Publication(
                channel,
                encode_envelope(
                    encode_data(text, options.max_message_size), client_ids=[client_ids[i]] if client_ids else None
                ),
                options.max_backlog_size,
                options.max_backlog_age,
            )
            for i, (channel, text) in enumerate(messages)
        ]
        for batch in batches_of(publications):
            self._store.publish_many(batch.messages)

    def close(self) -> None:
        self._store.close()
