"""What holds on every server that runs a Flask app, whatever it does with requests by itself."""

from __future__ import annotations

import contextlib
import itertools
import json
import time
from collections.abc import Iterator
from urllib.parse import urlencode

import pytest
from websockets.frames import Frame, Opcode

from ..clients import FORM, Client, EventSource, Streaming, WebSocket, request
from ..eventually import eventually
from ..raw_http import AFTERWARDS, exchange, head
from ..servers import SERVERS, Server

APP = "tests.apps.pooled:app"
HANDSHAKE = (
    "Host: x",
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
)
UPGRADES = {
    "h2c": ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA"),
    "nothing": ("Connection: Upgrade",),
    "nothing, in small letters": ("Connection: upgrade",),
    "websocket without a connection": ("Upgrade: websocket",),
}


@pytest.fixture(scope="module", params=SERVERS)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with contextlib.closing(Server(request.param, APP, env={"MESSAGEBUS_LONG_POLLING_INTERVAL": "1"})) as server:
        server.start()
        yield server
        # gevent's server logs a traceback of its own for a body that it cannot read.
        ours = "Traceback" if server.kind in ("flask", "serve") else "/messagebus/"
        assert ours not in server.output(), server.output()[-5000:]


def publish(server: Server, channel: str, data: object) -> None:
    body = json.dumps({"channel": channel, "data": data})
    with request(server.url, "POST", "/publish", body, {"Content-Type": "application/json"}) as response:
        assert response.status == 200


def chunked(body: bytes) -> bytes:
    return b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)


# --- requests that offer another protocol ---


# What an app's own view is given is the server's affair, and ours where the server is.
@pytest.mark.parametrize(
    ("server", "path"),
    [*itertools.product(SERVERS, ["/message-bus/x/poll?dlp=t", "/message-bus/x/poll"]), ("serve", "/echo")],
    indirect=["server"],
)
@pytest.mark.parametrize("offer", UPGRADES)
@pytest.mark.parametrize("in_chunks", [False, True], ids=["length", "chunks"])
def test_an_offer_to_upgrade_costs_neither_the_body_nor_the_next_request(
    server: Server, offer: str, in_chunks: bool, path: str
) -> None:
    channel = f"/upgrade-{time.monotonic_ns()}"
    publish(server, channel, "due")
    body = urlencode({channel: 0}).encode()
    length = "Transfer-Encoding: chunked" if in_chunks else f"Content-Length: {len(body)}"
    post = head(
        f"POST {path} HTTP/1.1",
        "Host: x",
        *UPGRADES[offer],
        f"Content-Type: {FORM}",
        "Dont-Chunk: true",
        length,
        body=chunked(body) if in_chunks else body,
    )
    first, *rest = exchange(server, post + AFTERWARDS)
    assert first.status == 200
    if path == "/echo":
        assert first.body == body
    else:
        assert [message["data"] for message in first.json] == ["due"]
    assert [(answer.status, answer.body) for answer in rest] in ([], [(200, b"hello")])


@pytest.mark.parametrize("offer", ["h2c", "nothing"])
def test_an_event_source_that_offers_to_upgrade_is_served(server: Server, offer: str) -> None:
    headers = dict(line.split(": ", 1) for line in UPGRADES[offer])
    with EventSource.connect(server.url, {"/upgraded": -1}, headers=headers) as client:
        assert client.status()["/upgraded"] == 0


# --- what is wrong with a request ---


def post(path: str, *fields: str, body: bytes = b"") -> bytes:
    return head(f"POST {path} HTTP/1.1", "Host: x", "Connection: close", f"Content-Type: {FORM}", *fields, body=body)


POLL = "/message-bus/x/poll?dlp=t"
CHUNKED = "Transfer-Encoding: chunked"
MALFORMED = {
    "a raw byte in a query": post("/message-bus/x/poll?\xe7dlp=t", "Content-Length: 0"),
    "a raw byte in an EventSource's query": head(
        "GET /message-bus/x/sse?%2Fa=\xe7 HTTP/1.1", "Host: x", "Connection: close"
    ),
    "an empty chunk size": post(POLL, CHUNKED, body=b"\r\n\r\n"),
    "a chunk size that is no number": post(POLL, CHUNKED, body=b"xyz\r\nabc\r\n"),
    "a chunk that is longer than it says": post(POLL, CHUNKED, body=b"1\r\nabcdef\r\n0\r\n\r\n"),
}


# To waitress an empty chunk size is one that has not come yet, and it waits for the rest.
@pytest.mark.parametrize(
    ("server", "malformed"),
    [pair for pair in itertools.product(SERVERS, MALFORMED) if pair != ("waitress", "an empty chunk size")],
    indirect=["server"],
)
def test_what_is_malformed_is_refused_and_no_fault_of_the_server(server: Server, malformed: str) -> None:
    answers = exchange(server, MALFORMED[malformed])
    assert [answer.status for answer in answers] == [400]


@pytest.mark.parametrize("framing", ["Content-Length: 100", "Transfer-Encoding: chunked"])
def test_a_body_that_ends_early_leaves_no_trace(server: Server, framing: str) -> None:
    data = head("POST /message-bus/x/poll?dlp=t HTTP/1.1", "Host: x", framing, body=b"5\r\n%2Fa")
    with server.connect() as connection:
        connection.sendall(data)
    assert server.get("/hello") == (200, b"hello")


# --- bytes behind a handshake ---


# waitress keeps its sockets: it has no WebSocket.
@pytest.mark.parametrize("server", [kind for kind in SERVERS if kind != "waitress"], indirect=True)
def test_a_command_behind_the_handshake_is_carried_out(server: Server) -> None:
    ping = Frame(Opcode.TEXT, b'{"ping": "early"}').serialize(mask=True)
    later = Frame(Opcode.TEXT, b'{"ping": "later"}').serialize(mask=True)
    data = head("GET /message-bus/x/ws HTTP/1.1", *HANDSHAKE, body=ping + later[:3])
    with server.connect() as connection:
        connection.sendall(data)
        received = b""
        while b"early" not in received:
            part = connection.recv(1 << 16)
            assert part, received
            received += part
        connection.sendall(later[3:])
        while b"later" not in received:
            part = connection.recv(1 << 16)
            assert part, received
            received += part


# --- what an app hangs on its requests ---


@pytest.fixture(scope="module", params=SERVERS)
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.mark.parametrize("give_back", ["teardown", "call_on_close"])
def test_a_held_response_gives_back_what_its_request_has_taken(kind: str, give_back: str) -> None:
    blocks = kind == "waitress"  # a request there lasts as long as its response, and so does what it has taken
    transports: list[type[Client]] = [EventSource] if blocks else [EventSource, Streaming, WebSocket]
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(contextlib.closing(Server(kind, APP, env={"GIVE_BACK": give_back})))
        server.start()
        for transport in transports:
            for _ in range(1 if blocks else 10):
                client = transport.connect(server.url, {"/open": 0}, headers={"X-User": "me"})
                stack.callback(client.cut)
                client.next_batch()
                if isinstance(client, WebSocket):
                    client.positions["/private/me"] = -1
                    assert client.ask({"subscribe": {"/private/me": -1}}) == {"ok": {}}
                    assert client.ask({"subscribe": {"/private/you": -1}})["error"]["code"] == "forbidden"
        if blocks:
            client.cut()
        else:
            assert server.get("/database") == (200, b"5"), "while all of them are held"

        def settled() -> bool:
            if blocks:
                publish(server, "/open", "by this the server notices that the client has gone")
            counts = json.loads(server.get("/counts")[1])
            assert counts["free"] == 1, counts
            assert counts["taken"] == counts["given back"], counts
            # The request that asks is not over.
            assert counts["before"] - 1 == counts["call_on_close"] == counts["teardown"], counts
            return True

        eventually(settled, interval=0.1)
        assert "Traceback" not in server.output(), server.output()[-5000:]
