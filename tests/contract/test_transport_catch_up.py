"""What a client has missed comes in pieces of bounded size, and takes bounded memory however slowly it reads."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlencode

import pytest
from websockets.exceptions import ConnectionClosed

from ..clients import Client, EventSource, LongPolling, Polling, Streaming, WebSocket
from ..crowd import subscription
from ..redis_server import RedisServer
from .conftest import World, run

MEGABYTE = 1_000_000
BATCH = 64 * 1024


@pytest.fixture(scope="module", params=["flask", "serve"])
def bounded(request: pytest.FixtureRequest, redis_server: RedisServer) -> Iterator[World]:
    """Servers that soon end a reader who takes nothing."""
    yield from run(
        request.param,
        redis_server,
        messagebus_write_timeout="2",
        messagebus_max_outbox_total=str(8 * MEGABYTE),
        messagebus_window_bytes=str(16 * MEGABYTE),
    )


def resident(world: World) -> int:
    """Bytes of memory that the server's processes take."""
    process = world.server._process
    assert process is not None
    pids, found = [process.pid], 0
    for pid in pids:
        children = Path(f"/proc/{pid}/task/{pid}/children")
        pids += map(int, children.read_text().split()) if children.exists() else ()
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                found += int(line.split()[1]) * 1024
    return found


def fill(world: World, channel: str, count: int, size: int) -> None:
    for start in range(0, count, 20):
        numbers = range(start, min(start + 20, count))
        world.publish(channel, *[[number, "x" * size] for number in numbers], max_backlog_size=count)


@pytest.mark.parametrize("size", [300, 20_000])
def test_a_large_backlog_comes_in_batches_in_order_and_new_messages_follow(
    world: World, transport: type[Client], size: int
) -> None:
    channel = world.channel()
    count = 3 * MEGABYTE // size // 4
    fill(world, channel, count, size)
    with transport.connect(world.url, {channel: 0}) as client:
        messages = client.messages(count)
        assert [message["data"][0] for message in messages] == list(range(count))
        sizes = [len(json.dumps(batch)) for batch in client.batches if batch]
        assert max(sizes) < BATCH + size + 20_000
        world.publish(channel, "new")
        assert client.data(1) == ["new"]
        assert client.gaps == []


def test_several_backlogs_come_by_global_id_over_all_batches(world: World, transport: type[Client]) -> None:
    channels = [world.channel() for _ in range(3)]
    for number in range(20):
        for channel in channels:
            world.publish(channel, [number, "x" * 10_000])
    with transport.connect(world.url, dict.fromkeys(channels, 0)) as client:
        messages = client.messages(60)
        for partition in range(world.partitions):
            ids = [id_ for message in messages if (id_ := message["global_id"]) % world.partitions == partition]
            assert ids == sorted(ids)
        for channel in channels:
            assert [m["data"][0] for m in messages if m["channel"] == channel] == list(range(20))


def test_what_has_come_is_kept_where_the_connection_breaks_in_the_middle(world: World, transport: type[Client]) -> None:
    channel = world.channel()
    fill(world, channel, 100, 20_000)
    received = 0
    with transport.connect(world.url, {channel: 0}, receive_buffer=4096) as client:
        while len(client.received) < 100:
            client.messages(3)
            client._unread.clear()
            client.cut()
            assert len(client.received) > received
            received = len(client.received)
            client.reconnect()
        assert [message["data"][0] for message in client.received] == list(range(100))
        assert client.gaps == []


def test_messages_that_are_published_while_a_client_catches_up_come_once_and_in_order(
    world: World, transport: type[Client]
) -> None:
    channel = world.channel()
    fill(world, channel, 100, 20_000)
    stop = threading.Event()

    def publish() -> None:
        number = 100
        while not stop.is_set():
            world.publish(channel, [number, "x" * 5000], max_backlog_size=10_000)
            number += 1

    publisher = threading.Thread(target=publish)
    with transport.connect(world.url, {channel: 0}, receive_buffer=4096) as client:
        publisher.start()
        try:
            ids = [message["message_id"] for message in client.messages(130)]
        finally:
            stop.set()
            publisher.join()
        assert ids == list(range(1, 131))


def test_a_socket_that_asks_for_the_backlog_again_and_again_takes_no_memory(bounded: World) -> None:
    channel = bounded.channel()
    fill(bounded, channel, 100, 50_000)
    with WebSocket.connect(bounded.url, {channel: -1}, receive_buffer=4096) as client:
        client.status()
        before = resident(bounded)
        for _ in range(6):
            try:
                for number in range(40):
                    client.send({"subscribe": {channel: 0}, "id": number})
            except ConnectionClosed:  # for it has taken nothing
                client.reconnect()
            time.sleep(1)  # within max_commands
            assert resident(bounded) - before < 12 * MEGABYTE


@pytest.mark.parametrize("kind", ["eventsource", "websocket", "streaming", "long-polling"])
def test_readers_that_do_not_read_take_no_memory_and_are_ended(bounded: World, kind: str) -> None:
    channel = bounded.channel()
    fill(bounded, channel, 200, 20_000)
    with Polling.connect(bounded.url, {channel: 0}) as client:
        client.messages(200)
    before = resident(bounded)
    with ExitStack() as stack:
        sockets = []
        for number in range(60):
            sock = socket.socket()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            stack.callback(sock.close)
            sock.connect((bounded.server.host, bounded.server.port))
            sock.sendall(subscription(kind, f"{kind}-{number}", channel))
            sockets.append(sock)
        with EventSource.connect(bounded.url, {channel: 0}) as reader:
            assert len(reader.messages(200)) == 200, "others are served"
        for _ in range(10):
            time.sleep(0.5)  # until they have taken nothing for too long, which shows nowhere
            assert resident(bounded) - before < 20 * MEGABYTE
        if kind == "long-polling" and bounded.server.kind == "serve":
            return  # one batch may fit into the socket
        ended = [sock for sock in sockets if eventually_ends(sock)]
        assert len(ended) == len(sockets)


def eventually_ends(sock: socket.socket) -> bool:
    """Whether the server closes the connection, once what it has sent is read."""
    sock.settimeout(30)
    deadline = time.monotonic() + 30
    try:
        while time.monotonic() < deadline:
            if not sock.recv(1 << 20):
                return True
    except TimeoutError:
        return False
    except OSError:
        return True
    return False


def test_polls_that_nobody_reads_take_no_memory(bounded: World) -> None:
    channel = bounded.channel()
    fill(bounded, channel, 200, 20_000)
    with Polling.connect(bounded.url, {channel: 0}) as client:
        client.messages(200)
    before = resident(bounded)
    form = urlencode({channel: 0})
    with ExitStack() as stack:
        for number in range(100):
            sock = socket.socket()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            stack.callback(sock.close)
            sock.connect((bounded.server.host, bounded.server.port))
            head = f"POST /message-bus/p{number}/poll?dlp=t HTTP/1.1\r\nHost: x\r\n"
            kind = f"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {len(form)}\r\n\r\n"
            sock.sendall((head + kind + form).encode())
        for _ in range(4):
            time.sleep(0.5)
            assert resident(bounded) - before < 25 * MEGABYTE
        with LongPolling.connect(bounded.url, {channel: 0}) as reader:
            assert len(reader.messages(200)) == 200


@pytest.mark.parametrize("kind", [Streaming, EventSource, WebSocket], ids=lambda kind: kind.transport)
def test_a_slow_line_gets_all_of_a_large_backlog(bounded: World, kind: type[Client]) -> None:
    """A fifth of a megabyte a second, with a server that ends readers that take nothing for two seconds."""
    channel = bounded.channel()
    fill(bounded, channel, 60, 20_000)
    with kind.connect(bounded.url, {channel: 0}, receive_buffer=8192) as client:
        before = client.connections
        for _ in range(20):
            client.messages(3)
            time.sleep(0.3)
        assert [message["data"][0] for message in client.received] == list(range(60))
        assert client.connections == before or kind is Streaming


def test_a_backlog_that_is_larger_than_the_windows_arrives(bounded: World, transport: type[Client]) -> None:
    channel = bounded.channel()
    fill(bounded, channel, 450, 60_000)  # 27 MB, where 16 are remembered
    before = resident(bounded)
    with transport.connect(bounded.url, {channel: 0}) as client:
        for _ in range(45):
            messages = client.messages(10)
            client.received.clear()
            client.batches = client.batches[-1:]
            assert len(messages) == 10
        assert client.positions[channel] == 450
        assert client.gaps == []
    if bounded.server.kind == "serve":  # elsewhere the store itself is in the process
        assert resident(bounded) - before < 45 * MEGABYTE
