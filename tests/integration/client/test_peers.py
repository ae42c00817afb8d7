"""The Python client and servers that are not ours, or not as they should be."""

from __future__ import annotations

import contextlib
import json
import logging
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection
from websockets.sync.server import serve as serve_websockets

from messagebus import Client
from messagebus.client import ClientMessage, StateInfo
from messagebus.client.types import Transport
from tests.eventually import eventually
from tests.stub_servers import PollsOnly, Request, StubServer

QUICK: dict[str, Any] = {"callback_interval": 0.05, "first_chunk_timeout": 0.5}


def message(message_id: int, data: Any = None) -> dict[str, Any]:
    return {"global_id": message_id, "message_id": message_id, "channel": "/chat", "data": data}


# --- a server that knows only polls ---


@pytest.mark.parametrize("lenient", [False, True], ids=["not found", "everything is a poll"])
def test_a_server_that_knows_only_polls_is_streamed_from(lenient: bool, got: list[ClientMessage]) -> None:
    ruby = PollsOnly(lenient=lenient)
    with StubServer(ruby.serve) as server, Client(server.url, **QUICK) as client:
        client.subscribe("/chat", got.append)
        eventually(lambda: client.stats.transport == "streaming")
        eventually(lambda: client.positions == {"/chat": 0})
        for number in range(20):
            ruby.publish("/chat", number)
        eventually(lambda: len(got) == 20)
        assert [one.data for one in got] == list(range(20))
        eventually(lambda: sum(not request.query for request in server.requests) > 3)  # streams, one after the other
        ruby.publish("/chat", 20)
        eventually(lambda: len(got) == 21)
        assert client.stats.state == "connected"
        assert client.epoch is None


@pytest.mark.parametrize("transport", ["streaming", "long-polling", "polling"])
def test_each_kind_of_poll_works_without_what_we_have_added(transport: Transport, got: list[ClientMessage]) -> None:
    ruby = PollsOnly(lenient=True)
    for number in range(3):
        ruby.publish("/chat", number)
    with StubServer(ruby.serve) as server, Client(server.url, transports=(transport,), **QUICK) as client:
        client.subscribe("/chat", got.append, last_id=-3)
        eventually(lambda: [one.data for one in got] == [1, 2])
        ruby.publish("/other", "not for us")
        ruby.publish("/chat", 3)
        eventually(lambda: [one.data for one in got] == [1, 2, 3])
        assert client.stats.transport == transport


def test_held_polls_are_held_by_a_server_that_takes_every_key_for_a_channel(got: list[ClientMessage]) -> None:
    ruby = PollsOnly(lenient=True, interval=0.3)
    with StubServer(ruby.serve) as server, Client(server.url, transports=("long-polling",), **QUICK) as client:
        client.subscribe("/chat", got.append)
        started = time.monotonic()
        eventually(lambda: len(server.requests) == 5)
        assert time.monotonic() - started > 0.8
        assert server.connections == 1  # one after the other, on the same connection


def test_a_stream_that_is_no_stream_is_followed_by_held_polls(got: list[ClientMessage]) -> None:
    """A proxy that buffers."""
    ruby = PollsOnly(lenient=False, interval=1.0)

    def serve(request: Request) -> None:
        if not request.query and request.headers.get("Dont-Chunk") is None:
            time.sleep(1.5)
        ruby.serve(request)

    with StubServer(serve) as server, Client(server.url, **QUICK) as client:
        client.subscribe("/chat", got.append, 0)
        eventually(lambda: client.stats.transport == "long-polling" and client.stats.state == "connected")
        ruby.publish("/chat", "hello")
        eventually(lambda: [one.data for one in got] == ["hello"])


@pytest.mark.parametrize("lesser", ["long-polling", "polling"])
def test_a_better_transport_is_taken_again_when_its_time_has_come(lesser: Transport, got: list[ClientMessage]) -> None:
    ruby = PollsOnly(lenient=False)
    blocked = True

    def serve(request: Request) -> None:
        if blocked and not request.query and request.headers.get("Dont-Chunk") is None:
            request.answer(502)
        else:
            ruby.serve(request)

    with StubServer(serve) as server, Client(server.url, transports=("streaming", lesser), **QUICK) as client:
        client.subscribe("/chat", got.append, 0)
        eventually(lambda: client.stats.state == "connected" and client.stats.transport == lesser)
        assert client._selector.better_at is not None
        blocked = False
        client._selector._upgrade_at = 0.0  # five minutes have passed
        eventually(lambda: client.stats.transport == "streaming")
        ruby.publish("/chat", "hello")
        eventually(lambda: [one.data for one in got] == ["hello"])


# --- refusals ---


def test_too_many_requests_are_answered_by_waiting_as_long_as_the_server_says(got: list[ClientMessage]) -> None:
    told: list[StateInfo] = []
    with (
        StubServer(lambda request: request.answer(429, b"slow down", Retry_After="40")) as server,
        Client(server.url, on_state_change=lambda state, info: told.append(info)) as client,
    ):
        client.subscribe("/chat", got.append)
        info = eventually(lambda: [info for info in told if info.status == 429])[0]
        assert info.delay == pytest.approx(40.0)
        assert info.message == "429 slow down"
        client.subscribe("/other", got.append)  # no reason to come back earlier
        client.stop()
        assert len(server.requests) == 1
        assert client.stats.last_error == "429 slow down"


def test_an_unavailable_server_is_asked_again_when_it_says(got: list[ClientMessage]) -> None:
    times: list[float] = []

    def serve(request: Request) -> None:
        times.append(time.monotonic())
        if len(times) == 1:
            request.answer(503, b"", Retry_After="1")
        else:
            request.batch(message(1, "back"))

    with StubServer(serve) as server, Client(server.url, transports=("polling",), **QUICK) as client:
        client.subscribe("/chat", got.append, 0)
        eventually(lambda: [one.data for one in got] == ["back"])
        assert 0.95 < times[1] - times[0] < 20


def test_a_refused_channel_is_told_with_its_status_and_leaving_it_lets_the_others_through(
    got: list[ClientMessage],
) -> None:
    told: list[StateInfo] = []

    def serve(request: Request) -> None:
        if "/private" in request.form or "private" in request.query:
            request.answer(403, b"not /private")
        else:
            request.batch(message(1))

    with (
        StubServer(serve) as server,
        Client(server.url, on_state_change=lambda state, info: told.append(info), **QUICK) as client,
    ):
        client.subscribe("/private", got.append)
        client.subscribe("/chat", got.append, 0)
        info = eventually(lambda: [info for info in told if info.status == 403 and info.delay])[0]
        assert (info.message, info.delay) == ("403 not /private", 180.0)
        client.unsubscribe("/private")
        eventually(lambda: got)


def test_a_redirect_says_which_address_to_use(got: list[ClientMessage]) -> None:
    with (
        StubServer(lambda request: request.answer(308, Location="https://example.com/")) as server,
        Client(server.url, transports=("polling",)) as client,
    ):
        client.subscribe("/chat", got.append)
        eventually(lambda: "redirected to https://example.com/" in (client.stats.last_error or ""))


@pytest.mark.parametrize("body", [b"", b"<html>", b"{}", b"[5]", b'[{"channel":"/chat"}]', b"\xff", b"[" * 100_000])
def test_an_answer_that_is_no_batch_is_an_error_and_the_next_one_counts(
    body: bytes, got: list[ClientMessage], caplog: pytest.LogCaptureFixture
) -> None:
    bodies: Iterator[Callable[[Request], None]] = iter([lambda request: request.answer(200, body)])

    def serve(request: Request) -> None:
        next(bodies, lambda request: request.batch(message(1, "good")))(request)

    with StubServer(serve) as server, Client(server.url, transports=("polling",), **QUICK) as client:
        client.subscribe("/chat", got.append, 0)
        eventually(lambda: [one.data for one in got] == ["good"])
        assert client.stats.last_error


def test_headers_are_sent_on_every_transport(got: list[ClientMessage]) -> None:
    ruby = PollsOnly(lenient=False)
    headers = {"Cookie": "session=1", "user-agent": "mine"}
    with StubServer(ruby.serve) as server, Client(f"{server.url}/app", headers=headers, **QUICK) as client:
        client.subscribe("/chat", got.append)
        eventually(lambda: client.stats.state == "connected" and client.stats.transport == "streaming")
        assert {request.path.rpartition("/")[2] for request in server.requests} == {"ws", "sse", "poll"}
        for request in server.requests:
            assert request.path.startswith(f"/app/message-bus/{client.client_id}/")
            assert request.headers.get_all("Cookie") == ["session=1"]
            assert request.headers.get_all("User-Agent") == ["mine"]


def test_a_connection_that_the_server_closes_between_two_polls_is_no_failure(got: list[ClientMessage]) -> None:
    def serve(request: Request) -> None:
        request.batch(message(len(server.requests)))
        request.hang_up()  # without having said so

    with StubServer(serve) as server, Client(server.url, transports=("polling",), **QUICK) as client:
        client.subscribe("/chat", got.append, 0)
        eventually(lambda: len(got) >= 4)
        assert client.stats.last_error is None
        assert server.connections >= 4


# --- silence ---


def test_silence_after_the_beginning_ends_the_connection(got: list[ClientMessage]) -> None:
    release = threading.Event()

    def serve(request: Request) -> None:
        request.begin(Content_Type="text/event-stream")
        request.write(b"data: [%b]\n\n" % json.dumps(message(len(server.requests))).encode())
        release.wait(60)

    settings = {**QUICK, "heartbeat_timeout": 0.3}
    with StubServer(serve) as server, Client(server.url, transports=("eventsource",), **settings) as client:
        client.subscribe("/chat", got.append, 0)
        eventually(lambda: len(got) >= 3)
        assert client.stats.last_error == "nothing came for too long"
        client.stop()
        release.set()


def test_heartbeats_keep_a_connection(got: list[ClientMessage]) -> None:
    over = threading.Event()

    def serve(request: Request) -> None:
        request.begin(Content_Type="text/event-stream")
        while not over.wait(0.05):
            request.write(b"data: []\n\n")

    settings = {**QUICK, "heartbeat_timeout": 0.3}
    with StubServer(serve) as server, Client(server.url, transports=("eventsource",), **settings) as client:
        client.subscribe("/chat", got.append, 0)
        eventually(lambda: client.stats.bytes > 30 * 15)
        assert (len(server.requests), client.stats.state) == (1, "connected")
        client.stop()
        over.set()


@pytest.mark.parametrize("transport", ["websocket", "eventsource", "streaming", "long-polling", "polling"])
def test_stop_ends_a_wait_for_a_server_that_says_nothing(transport: Transport, got: list[ClientMessage]) -> None:
    release = threading.Event()

    def serve(request: Request) -> None:
        release.wait(60)

    with StubServer(serve) as server:
        client = Client(server.url, transports=(transport,), first_chunk_timeout=60.0)
        client.subscribe("/chat", got.append)
        client.start()
        eventually(lambda: server.requests)
        started = time.monotonic()
        client.stop()
        assert time.monotonic() - started < 20
        release.set()


def test_stop_ends_a_connecting_that_gets_no_answer(got: list[ClientMessage]) -> None:
    with socket.socket() as full, contextlib.ExitStack() as stack:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        # With its queue full, it lets further connections wait.
        for _ in range(4):
            queued = stack.enter_context(socket.socket())
            queued.setblocking(False)
            queued.connect_ex(full.getsockname())
        client = Client(f"http://127.0.0.1:{full.getsockname()[1]}", first_chunk_timeout=60.0)
        client.subscribe("/chat", got.append)
        client.start()
        eventually(lambda: client.stats.requests == 1)
        started = time.monotonic()
        client.stop()
        assert time.monotonic() - started < 20
        assert client.stats.state == "stopped"


# --- TLS ---


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that nobody knows, and its key."""
    directory = tmp_path_factory.mktemp("tls")
    certificate, key = directory / "certificate.pem", directory / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-days", "2", "-subj", "/CN=stub", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
        timeout=30,
    )
    return certificate, key


@pytest.fixture
def server_context(certificate: tuple[Path, Path]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    return context


def test_a_certificate_of_nobody_known_is_refused(server_context: ssl.SSLContext, got: list[ClientMessage]) -> None:
    with StubServer(PollsOnly(lenient=True).serve, server_context) as server, Client(server.url, **QUICK) as client:
        client.subscribe("/chat", got.append)
        eventually(lambda: "CERTIFICATE_VERIFY_FAILED" in (client.stats.last_error or ""))
        assert not server.requests


@pytest.mark.parametrize("transport", ["streaming", "long-polling", "polling"])
def test_a_certificate_that_the_program_knows_lets_messages_through(
    transport: Transport, certificate: tuple[Path, Path], server_context: ssl.SSLContext, got: list[ClientMessage]
) -> None:
    ruby = PollsOnly(lenient=True)
    context = ssl.create_default_context(cafile=certificate[0])
    with (
        StubServer(ruby.serve, server_context) as server,
        Client(server.url, transports=(transport,), ssl_context=context, **QUICK) as client,
    ):
        client.subscribe("/chat", got.append, 0)
        eventually(lambda: client.stats.state == "connected")
        text = "x" * 300_000  # more than fits into one record
        ruby.publish("/chat", text)
        eventually(lambda: [one.data for one in got] == [text])


def test_a_websocket_goes_over_tls(
    certificate: tuple[Path, Path], server_context: ssl.SSLContext, got: list[ClientMessage]
) -> None:
    text = "x" * 300_000

    def serve(socket: ServerConnection) -> None:
        socket.send("[]")
        socket.ping().wait(30)
        batch = json.dumps([message(1, text), message(2, "end")])
        socket.send([batch[:5], batch[5:200_000], batch[200_000:]])  # in fragments
        with contextlib.suppress(ConnectionClosed):
            socket.recv()

    context = ssl.create_default_context(cafile=certificate[0])
    with serve_websockets(serve, "127.0.0.1", 0, ssl=server_context) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        url = f"https://127.0.0.1:{server.socket.getsockname()[1]}"
        with Client(url, transports=("websocket",), ssl_context=context) as client:
            client.subscribe("/chat", got.append, 0)
            eventually(lambda: len(got) == 2)
            assert [one.data for one in got] == [text, "end"]
        server.shutdown()
        thread.join(30)


def test_failures_are_logged_once_and_without_a_traceback(
    got: list[ClientMessage], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "messagebus.client")
    with (
        StubServer(lambda request: request.answer(403, b"no")) as server,
        Client(server.url, transports=("polling",)) as client,
    ):
        client.subscribe("/chat", got.append)
        eventually(lambda: client.stats.last_error)
    warnings = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert [record.getMessage() for record in warnings] == [f"polling to {server.url[7:]}: 403 no"]
    assert not warnings[0].exc_info
