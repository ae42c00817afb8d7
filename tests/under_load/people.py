"""Clients that follow a room and publish to it, one message after the other, each over another wire."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable
from typing import Any
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidHandshake, WebSocketException
from websockets.typing import Subprotocol

from messagebus import AsyncClient
from messagebus.client import ClientMessage, StateInfo
from messagebus.client.types import PublishError, Transport
from tests.cable_client import EXTENDED, JSON, identifier_of

PATIENCE = 15.0
"""Seconds for an answer."""


class Unknown(Exception):
    """No answer came: nobody knows what became of it."""


class Person(ABC):
    """One who is in a room under a name."""

    kind: str

    def __init__(self, url: str, name: str, room: str) -> None:
        self.url = url
        self.name = name
        self.room = room
        self.headers = {"X-User": name}
        self.acknowledged: list[int] = []
        self.unknown: list[tuple[int, str]] = []
        self.faults: list[str] = []
        self.seen = 0
        """The last message of the room."""
        self.states: list[tuple[float, str]] = []
        """What became of its connection, and when."""
        self.slowest = 0.0
        """Seconds that an answer took."""

    async def publish_until(self, stop: asyncio.Event, every: float) -> None:
        """Publish one after the other, about ``every`` seconds, until told to stop."""
        number = 0
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(stop.wait(), random.random() * every)
        while not stop.is_set():
            number += 1
            began = time.monotonic()
            try:
                await self.publish(number)
                self.acknowledged.append(number)
            except Unknown as unknown:
                self.unknown.append((number, str(unknown)))
            took = time.monotonic() - began
            self.slowest = max(self.slowest, took)
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(stop.wait(), max(0.01, every * (0.5 + random.random()) - took))

    def has_seen(self, message_id: int) -> None:
        if message_id != self.seen + 1:
            self.faults.append(f"{self.name}: {message_id} came after {self.seen}")
        self.seen = message_id

    @abstractmethod
    async def begin(self) -> None:
        """Be in the room."""

    @abstractmethod
    async def publish(self, number: int) -> None:
        """Raises :class:`Unknown`."""

    @abstractmethod
    async def end(self) -> None: ...


class Follower(Person):
    """With the bus's own client, on a transport."""

    def __init__(self, url: str, name: str, room: str, transport: Transport) -> None:
        super().__init__(url, name, room)
        self.kind = transport
        self.client = AsyncClient(
            url, transports=(transport,), headers=self.headers, callback_interval=0.5, on_gap=self._gap
        )
        self.client.on_state_change = self._state
        self.client.subscribe(room, self._message, 0)

    def _state(self, state: object, info: StateInfo) -> None:
        self.states.append((time.time(), f"{state} {info.transport} {info.status or ''} {(info.message or '')[:60]!r}"))

    def _message(self, message: ClientMessage) -> None:
        self.has_seen(message.message_id)

    def _gap(self, gap: object) -> None:
        self.faults.append(f"{self.name}: {gap}")

    async def begin(self) -> None:
        self.client.start()
        assert await self.client.wait_connected(60.0), self.client.stats.last_error

    async def publish(self, number: int) -> None:
        try:
            await self.client.publish(self.room, {"n": number}, timeout=PATIENCE)
        except PublishError as error:
            raise Unknown(error.code) from None

    async def end(self) -> None:
        await self.client.stop()


class Performer(Follower):
    """The same, but it publishes by an action of a channel class, each with a request."""

    def __init__(self, url: str, name: str, room: str) -> None:
        super().__init__(url, name, room, "eventsource")
        self.kind = "actions by POST"
        self._id = ""

    async def publish(self, number: int) -> None:
        deadline = time.monotonic() + PATIENCE
        while not self._id:
            params = {"channel": "RoomChannel", "params": {"room": self.room}, "key": secrets.token_hex(8)}
            self._id = (await self._insist("enter", params, deadline))["id"]
        value = {"id": self._id, "action": "speak", "data": {"n": number}, "key": secrets.token_hex(8)}
        assert (await self._insist("perform", value, deadline))["result"] == {"ack": number}

    async def _insist(self, verb: str, value: dict[str, Any], deadline: float) -> dict[str, Any]:
        why = "no answer"
        while time.monotonic() < deadline:
            told: dict[str, Any] = {}
            with contextlib.suppress(OSError, ValueError, asyncio.IncompleteReadError, asyncio.TimeoutError):
                answer = self._post(verb, value)
                told = json.loads(await asyncio.wait_for(answer, max(0.0, deadline - time.monotonic())))
            if "ok" in told:
                found: dict[str, Any] = told["ok"]
                return found
            why = told.get("error", {}).get("code", why)
            if why == "gone":
                self._id = ""
                break
            if why not in ("no answer", "unavailable"):
                self.faults.append(f"{self.name}: {told}")
                break
            await asyncio.sleep(0.3)
        raise Unknown(why)

    async def _post(self, verb: str, value: dict[str, Any]) -> bytes:
        parts = urlsplit(self.url)
        assert parts.hostname
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        try:
            body = json.dumps(value)
            writer.write(
                f"POST /message-bus/{self.client.client_id}/{verb} HTTP/1.1\r\nHost: {parts.netloc}\r\n"
                f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\nX-User: {self.name}\r\n"
                f"Connection: close\r\n\r\n{body}".encode()
            )
            return (await reader.read()).partition(b"\r\n\r\n")[2]
        finally:
            writer.close()


class CableUser(Person):
    """On ``/cable``; one of AnyCable's protocol comes back with its position."""

    def __init__(self, url: str, name: str, room: str, protocol: str) -> None:
        super().__init__(url, name, room)
        self.kind = protocol
        self._identifier = identifier_of("RoomChannel", room=room)
        self._position: dict[str, Any] = {}
        self._socket: ClientConnection | None = None
        self._task: asyncio.Task[None] | None = None
        self._confirmed = asyncio.Event()
        self._acks: dict[int, asyncio.Future[None]] = {}

    async def begin(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run())
        await asyncio.wait_for(self._confirmed.wait(), 60.0)

    async def _run(self) -> None:
        while True:
            with contextlib.suppress(OSError, WebSocketException, InvalidHandshake, asyncio.TimeoutError):
                async with connect(
                    self.url.replace("http", "ws", 1) + "/cable",
                    subprotocols=[Subprotocol(self.kind)],
                    additional_headers=self.headers,
                    ping_interval=None,
                    close_timeout=1.0,
                ) as self._socket:
                    await self._listen(self._socket)
            self._confirmed.clear()
            self.states.append((time.time(), "lost"))
            for ack in self._acks.values():
                ack.cancel()
            await asyncio.sleep(0.2 + 0.3 * random.random())

    async def _listen(self, socket: ClientConnection) -> None:
        self.states.append((time.time(), "open"))
        asking: dict[str, Any] = {"command": "subscribe", "identifier": self._identifier}
        if self.kind == EXTENDED and self._position:
            asking["history"] = {"streams": {self.room: self._position}}
        await socket.send(json.dumps(asking))
        while True:
            # A ping comes every 3 seconds.
            told = json.loads(await asyncio.wait_for(socket.recv(), 10.0))
            if told.get("type") == "confirm_subscription":
                self._confirmed.set()
                self.states.append((time.time(), "confirmed"))
            elif told.get("type") in ("reject_subscription", "reject_history", "error"):
                self.faults.append(f"{self.name}: {told}")
            elif "message" in told and "type" not in told:
                self._take(told)

    def _take(self, told: dict[str, Any]) -> None:
        message = told["message"]
        if "ack" in message:
            ack = self._acks.get(message["ack"])
            if ack is not None and not ack.done():
                ack.set_result(None)
        elif self.kind == EXTENDED:
            if self._position or told["offset"] == 1:
                self.has_seen(told["offset"])
            self.seen = told["offset"]
            self._position = {"epoch": told["epoch"], "offset": told["offset"]}

    async def publish(self, number: int) -> None:
        self._acks[number] = ack = asyncio.get_running_loop().create_future()
        data = json.dumps({"action": "speak", "n": number})
        command = {"command": "message", "identifier": self._identifier, "data": data}
        try:
            await self._within(self._confirmed.wait())
            assert self._socket is not None
            await self._socket.send(json.dumps(command))
            await self._within(ack)
        except (OSError, WebSocketException, asyncio.TimeoutError) as error:
            raise Unknown(type(error).__name__) from None
        except asyncio.CancelledError:
            if not ack.cancelled():
                raise
            raise Unknown("disconnected") from None
        finally:
            del self._acks[number]

    async def _within(self, awaited: Awaitable[Any]) -> None:
        await asyncio.wait_for(awaited, PATIENCE)

    async def end(self) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.wait([self._task])


def crowd(url: str, number: int, rooms: int) -> list[Person]:
    """Of each kind some, in rooms that have all kinds."""
    over_http: tuple[Transport, ...] = ("eventsource", "streaming", "long-polling", "polling")
    kinds = ("websocket", "websocket", *over_http, EXTENDED, EXTENDED, JSON, "performer")
    found: list[Person] = []
    for each in range(number):
        name, room, kind = f"p{each}", f"/rooms/{each // len(kinds) % rooms}", kinds[each % len(kinds)]
        if kind in (EXTENDED, JSON):
            found.append(CableUser(url, name, room, kind))
        elif kind == "performer":
            found.append(Performer(url, name, room))
        else:
            found.append(Follower(url, name, room, kind))  # type: ignore[arg-type]
    return found
