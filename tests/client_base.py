"""What the readers of the bus have in common, whatever their transport; see ``clients.py``."""

from __future__ import annotations

import contextlib
import http.client
import json
import secrets
import socket
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, ClassVar, TypeVar
from urllib.parse import urlsplit

Message = dict[str, Any]
Batch = list[Message]
ClientT = TypeVar("ClientT", bound="Client")


class Ended(Exception):
    """The server has ended the connection; ``code`` is a WebSocket's close code."""

    def __init__(self, code: int | None = None) -> None:
        super().__init__(f"the server ended the connection, code {code}")
        self.code = code


class Refused(Exception):
    """The server has answered with something else than 200 or 101."""

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        super().__init__(f"{status}: {body[:200]!r}")
        self.status = status
        self.headers = headers
        self.body = body

    @property
    def error(self) -> dict[str, str]:
        """What the JSON body says is wrong."""
        assert self.headers["Content-Type"] == "application/json; charset=utf-8"
        found: dict[str, str] = json.loads(self.body)["error"]
        return found


class Client(ABC):
    """One subscriber. Not safe to share between threads."""

    transport: ClassVar[str]

    def __init__(
        self,
        url: str,
        positions: Mapping[str, int | str],
        *,
        client_id: str | None = None,
        headers: Mapping[str, str] | None = None,
        epoch: str | None = None,
        last_event_id: int | str | None = None,
        receive_buffer: int | None = None,
        timeout: float = 30.0,
        takes_refusals: bool = False,
        grants: Iterable[str] = (),
    ) -> None:
        """``epoch``: what the client sends as ``__epoch``, ``None`` for nothing. ``receive_buffer``: bytes that the
        kernel may receive before the client reads. ``timeout``: seconds for any one read. ``takes_refusals``: whether
        it asks to be told of channels that are refused one by one."""
        self.url = url
        self.positions: dict[str, int | str] = dict(positions)
        self.client_id = client_id or secrets.token_hex(16)
        self.headers = dict(headers or {})
        self.epoch = epoch
        self.last_event_id = last_event_id
        self.receive_buffer = receive_buffer
        self.timeout = timeout
        self.takes_refusals = takes_refusals
        self.grants = list(grants)
        self.partitions = 1
        """Of the server's store: global ids of different partitions say nothing of each other."""
        self.batches: list[Batch] = []
        self.received: list[Message] = []
        """Messages of the channels, without statuses and gaps."""
        self.transient: list[Message] = []
        """Those that are not kept."""
        self.statuses: list[dict[str, int]] = []
        """The positions that each status told, without those that told the epoch alone."""
        self.gaps: list[dict[str, Any]] = []
        self.refused: dict[str, dict[str, Any]] = {}
        """Channel -> why it was refused."""
        self.waits: list[int] = []
        """The milliseconds that the server told it to come back after."""
        self.connections = 0
        """How many times it has connected, where a connection outlives a batch."""
        self._unread: deque[Message] = deque()

    @classmethod
    def connect(cls: type[ClientT], url: str, positions: Mapping[str, int | str], **options: Any) -> ClientT:
        """Ask for channels from their positions; what the server says to that comes with the first batch."""
        client = cls(url, positions, **options)
        client.reconnect()
        return client

    def __enter__(self: ClientT) -> ClientT:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.cut()

    # --- the connection ---

    @abstractmethod
    def reconnect(self) -> None:
        """Come back with the positions and the epoch as they are now."""

    @abstractmethod
    def cut(self) -> None:
        """Close the socket without a word. May be repeated."""

    @abstractmethod
    def _next(self) -> Batch:
        """The next batch as it comes. Raises Ended, Refused or TimeoutError."""

    # --- what it receives ---

    def next_batch(self) -> Batch:
        """Read the next batch, whatever is in it."""
        batch = self._next()
        self._take(batch)
        return batch

    def messages(self, count: int, timeout: float = 30.0, resume: bool = False) -> list[Message]:
        """The next messages of the channels. ``resume``: come back where the server ends the connection."""
        self.read_until(lambda client: len(client._unread) >= count, resume, timeout)
        return [self._unread.popleft() for _ in range(count)]

    def read_until(self, holds: Callable[[Client], object], resume: bool = False, timeout: float | None = None) -> None:
        """Read batches until something holds of this client. ``resume``: see :meth:`messages`. ``timeout``: seconds,
        the client's own without it."""
        timeout = self.timeout if timeout is None else timeout
        deadline = time.monotonic() + timeout
        while not holds(self):
            assert time.monotonic() < deadline, (
                f"not in {timeout} s; {len(self._unread)} messages unread, the last batches: {self.batches[-5:]}"
            )
            try:
                self.next_batch()
            except Ended:
                if not resume:
                    raise
                self.reconnect()

    def data(self, count: int, **options: Any) -> list[Any]:
        """As :meth:`messages`, only their data."""
        return [message["data"] for message in self.messages(count, **options)]

    def status(self) -> dict[str, int]:
        """Read until there is another status with positions."""
        seen = len(self.statuses)
        deadline = time.monotonic() + self.timeout
        while len(self.statuses) == seen:
            assert time.monotonic() < deadline, f"no status in {self.timeout} s, but {self.batches[-5:]}"
            self.next_batch()
        return self.statuses[-1]

    def position(self, channel: str) -> int | str:
        return self.positions[channel]

    def _take(self, batch: Batch) -> None:
        self.batches.append(batch)
        global_ids = []
        for number, message in enumerate(batch):
            assert set(message) - {"transient"} == {"global_id", "message_id", "channel", "data"}, message
            channel, data = message["channel"], message["data"]
            if message.get("transient"):
                # Of the same position, to a client that knows nothing of such messages as well.
                assert message["message_id"] == self.positions.get(channel, message["message_id"])
                self.transient.append(message)
                continue
            if channel == "/__status":
                assert number == len(batch) - 1, "a status is the last of its batch"
                self._take_status(data)
            elif channel == "/__refused":
                assert number == 0, "refusals are the first of their batch"
                self.refused.update(data)
            elif channel == "/__gap":
                assert all(m["channel"] == "/__refused" for m in batch[:number]), "a gap comes before the messages"
                self.gaps.append(data)
            elif channel.startswith("/__presence/"):
                assert message["global_id"] == -1 < message["message_id"]
                self.positions[channel] = message["message_id"]
                self.received.append(message)
                self._unread.append(message)
                continue
            else:
                global_ids.append(message["global_id"])
                if channel in self.positions:
                    self.positions[channel] = message["message_id"]
                else:
                    [pattern] = [name for name in self.positions if name[-1] == "*" and channel.startswith(name[:-1])]
                    self.positions[pattern] = message["global_id"]
                self.received.append(message)
                self._unread.append(message)
            assert (message["global_id"] == message["message_id"] == -1) == channel.startswith("/__")
        for partition in range(self.partitions):
            own = [global_id for global_id in global_ids if global_id % self.partitions == partition]
            assert own == sorted(set(own)), "a batch is in the order of the global ids"

    def _take_status(self, data: dict[str, Any]) -> None:
        self.epoch = data.pop("__epoch", self.epoch)
        if "__reconnect" in data:
            self.waits.append(data.pop("__reconnect"))
        data.pop("__moving", None)  # it stays until it is ended, as clients do that know nothing of it
        assert set(data) <= set(self.positions)
        self.positions.update(data)
        if data:
            self.statuses.append(data)

    def _query(self) -> dict[str, str]:
        query = {channel: str(position) for channel, position in self.positions.items()}
        if self.epoch is not None:
            query["__epoch"] = self.epoch
        if self.takes_refusals:
            query["__refusals"] = "t"
        if self.grants:
            query["__grants"] = ",".join(self.grants)
        return query

    def _path(self, end: str) -> str:
        return f"{urlsplit(self.url).path}/message-bus/{self.client_id}/{end}"

    def _socket(self) -> socket.socket:
        parts = urlsplit(self.url)
        assert parts.hostname
        assert parts.port
        self.connections += 1
        sock = socket.socket()
        try:
            if self.receive_buffer is not None:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.receive_buffer)
            # http.client writes head and body apart; the second must not wait for the first one's acknowledgement.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.settimeout(self.timeout)
            sock.connect((parts.hostname, parts.port))
        except OSError:
            sock.close()
            raise
        return sock


@contextlib.contextmanager
def request(
    url: str, method: str, path: str, body: bytes | str | None = None, headers: Mapping[str, str] | None = None
) -> Iterator[http.client.HTTPResponse]:
    """A plain request on a connection of its own."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=30.0)
    with contextlib.closing(connection):
        connection.request(method, path, body, {"Connection": "close", **(headers or {})})
        # The response has the socket, too, and keeps it open until it is closed itself.
        with connection.getresponse() as response:
            yield response
