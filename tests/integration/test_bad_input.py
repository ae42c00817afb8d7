"""What is wrong with a request is said in the answer, costs one request, and is nobody else's business."""

from __future__ import annotations

import contextlib
import json
import re
import socket
from collections.abc import Iterator
from urllib.parse import quote, urlencode

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from messagebus.hub.epochs import longest_text

from ..clients import FORM, EventSource, request
from ..servers import Server

BUS = "/message-bus"
BODY_LIMIT = 10_000
MAX_CHANNELS = 20
JSON = "application/json"
FUZZ = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module", params=["flask", "serve"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """Two servers with narrow limits; at the end they still serve, and have nothing to complain of."""
    limits = {"MESSAGEBUS_MAX_REQUEST_BODY": str(BODY_LIMIT), "MESSAGEBUS_MAX_CHANNELS": str(MAX_CHANNELS)}
    with contextlib.closing(Server(request.param, env={**limits, "MESSAGEBUS_LONG_POLLING_INTERVAL": "0.1"})) as server:
        server.start()
        yield server
        assert server.get("/hello") == (200, b"hello")
        with EventSource.connect(server.url, {"/chat": 0}) as client:
            client.next_batch()
        expected = r": This is a development server| messagebus\.serve: a request from \S+ was refused:"
        complaints = rf"Traceback|WARNING(?!{expected})|ERROR|CRITICAL|Error:"
        assert not re.search(complaints, server.output()), server.output()[-5000:]


def ask(
    server: Server, method: str, path: str, body: bytes | str | None = None, kind: str = FORM, **headers: str
) -> tuple[int, dict[str, str], dict[str, str]]:
    """Status, headers and the error in the JSON body."""
    with request(server.url, method, path, body, {"Content-Type": kind, **headers}) as response:
        assert response.getheader("Content-Type") == "application/json; charset=utf-8"
        assert response.getheader("X-Content-Type-Options") == "nosniff"
        return response.status, dict(response.getheaders()), json.loads(response.read())["error"]


@pytest.mark.parametrize(
    "path", ["/x", "/x/", "/x/polls", "/x/poll/", "/x/poll/y", "/poll", "/x/y/z", "/x//poll", "/%2e%2e/poll/x"]
)
def test_an_unknown_path_is_answered_with_404(server: Server, path: str) -> None:
    status, _, error = ask(server, "GET", BUS + path)
    assert (status, error["code"]) == (404, "not_found")


@pytest.mark.parametrize(
    "path", ["/static/nothing.js", "/static/", "/static/../../setup.cfg", "/static/%2e%2e/%2e%2e/setup.cfg"]
)
def test_a_static_file_that_is_not_there_is_answered_with_404(server: Server, path: str) -> None:
    with request(server.url, "GET", BUS + path) as response:
        assert response.status == 404


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/x/poll", "POST, OPTIONS"),
        ("PUT", "/x/poll", "POST, OPTIONS"),
        ("DELETE", "/x/poll", "POST, OPTIONS"),
        ("HEAD", "/x/poll", "POST, OPTIONS"),
        ("POST", "/x/sse", "GET"),
        ("POST", "/x/ws", "GET"),
        ("PATCH", "/x/ws", "GET"),
        ("POST", "/static/messagebus.js", "GET, HEAD"),
    ],
)
def test_the_wrong_method_is_answered_with_405_and_the_right_ones(
    server: Server, method: str, path: str, allowed: str
) -> None:
    with request(server.url, method, BUS + path) as response:
        assert response.status == 405
        assert response.getheader("Allow") == allowed


@pytest.mark.parametrize("client_id", ["a b", "x" * 129, "ä", "a\x00b", "a|b", "<script>", "١"])
@pytest.mark.parametrize("end", ["poll", "sse", "ws"])
def test_a_bad_client_id_is_refused_by_name(server: Server, client_id: str, end: str) -> None:
    status, _, error = ask(server, "POST" if end == "poll" else "GET", f"{BUS}/{quote(client_id, safe='')}/{end}")
    assert (status, error["code"], error["field"]) == (400, "invalid_client_id", "client_id")


CHANNELS = ["chat", "", "/" + "x" * 300, "/a\x00", "/a\nb", "/__status", "/__x", "/a$|$b", "/a$$123$$b"]
POSITIONS = ["x", "1.5", "@", "@-1", "@x", "--1", "1 ", "٣", "9" * 30, "null", "0x10", "1_000"]


@pytest.mark.parametrize("channel", CHANNELS)
def test_a_bad_channel_is_refused_by_name(server: Server, channel: str) -> None:
    query = urlencode({channel: 0})
    for status, _, error in (
        ask(server, "POST", f"{BUS}/x/poll", query),
        ask(server, "POST", f"{BUS}/x/poll", json.dumps({channel: 0}), JSON),
        ask(server, "GET", f"{BUS}/x/sse?{query}"),
    ):
        assert (status, error["code"]) == (400, "invalid_channel")
        assert error["field"] == channel[:100]


@pytest.mark.parametrize("position", POSITIONS)
def test_a_bad_position_is_refused_by_the_name_of_its_channel(server: Server, position: str) -> None:
    query = urlencode({"/good": 0, "/chat": position})
    for status, _, error in (
        ask(server, "POST", f"{BUS}/x/poll", query),
        ask(server, "POST", f"{BUS}/x/poll", json.dumps({"/chat": position}), JSON),
        ask(server, "GET", f"{BUS}/x/sse?{query}"),
    ):
        assert (status, error["code"], error["field"]) == (400, "invalid_position", "/chat")


@pytest.mark.parametrize("position", [None, True, 1.5, [], {}, 10**30])
def test_a_position_that_is_no_whole_number_in_json_is_refused(server: Server, position: object) -> None:
    status, _, error = ask(server, "POST", f"{BUS}/x/poll", json.dumps({"/chat": position}), JSON)
    assert (status, error["code"], error["field"]) == (400, "invalid_position", "/chat")


@pytest.mark.parametrize("body", ["", "{", "[]", '"/chat"', "null", "5", '{"/a": 0} x', "\udcff", "[" * 5000, "NaN"])
def test_bad_json_is_refused(server: Server, body: str) -> None:
    status, _, error = ask(server, "POST", f"{BUS}/x/poll", body.encode("utf-8", "surrogateescape"), JSON)
    assert (status, error["code"], error["field"]) == (400, "malformed", "body")


@pytest.mark.parametrize("body", [b"/a=\xff", b"%2Fa%FF=0"])
def test_a_form_that_is_not_percent_encoded_utf8_is_refused(server: Server, body: bytes) -> None:
    status, _, error = ask(server, "POST", f"{BUS}/x/poll", body)
    assert (status, error["code"], error["field"]) == (400, "malformed", "body")


@pytest.mark.parametrize(
    ("field", "value"),
    [("__seq", "x"), ("__seq", "-1"), ("__seq", "1" * 19), ("__epoch", "x" * (longest_text(MAX_CHANNELS) + 1))],
)
def test_a_bad_own_key_is_refused_by_name(server: Server, field: str, value: str) -> None:
    status, _, error = ask(server, "POST", f"{BUS}/x/poll", urlencode({field: value}))
    assert (status, error["field"]) == (400, field)


def test_a_body_of_another_type_is_answered_with_415(server: Server) -> None:
    status, _, error = ask(server, "POST", f"{BUS}/x/poll", "<poll/>", "text/xml")
    assert (status, error["field"]) == (415, "Content-Type")


def test_a_body_over_the_limit_is_answered_with_413(server: Server) -> None:
    for kind in (FORM, JSON):
        status, _, error = ask(server, "POST", f"{BUS}/x/poll", b"x" * (BODY_LIMIT + 1), kind)
        assert (status, error["code"], error["field"]) == (413, "too_large", "body")


def test_a_chunked_body_is_read_and_one_over_the_limit_answered_with_413(server: Server) -> None:
    head = f"POST {BUS}/x/poll?dlp=t HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: {FORM}\r\n"
    small = urlencode({"/chat": "5"}).encode()
    for body, expected in ((small, b"200"), (b"x" * (BODY_LIMIT + 1), b"413")):
        with server.connect() as sock, sock.makefile("rb") as answer:
            sock.sendall(
                f"{head}Transfer-Encoding: chunked\r\n\r\n{len(body):x}\r\n".encode() + body + b"\r\n0\r\n\r\n"
            )
            assert answer.readline().split()[1] == expected


def test_a_body_that_ends_early_costs_nothing(server: Server) -> None:
    for kind in (FORM, JSON):
        with server.connect() as sock:
            sock.sendall(
                f"POST {BUS}/x/poll HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\nContent-Length: 99\r\n\r\na".encode()
            )
            sock.shutdown(socket.SHUT_WR)
            with contextlib.suppress(ConnectionError):
                while sock.recv(4096):
                    pass


@pytest.mark.parametrize("count", [MAX_CHANNELS + 1, 500])
def test_too_many_channels_are_refused(server: Server, count: int) -> None:
    positions = {f"/{number}": 0 for number in range(count)}
    query = urlencode(positions)
    for status, _, error in (
        ask(server, "POST", f"{BUS}/x/poll", query),
        ask(server, "POST", f"{BUS}/x/poll", json.dumps(positions), JSON),
        ask(server, "GET", f"{BUS}/x/sse?{query}"),
    ):
        assert (status, error["code"], error["field"]) == (400, "too_many_channels", "channels")


def test_as_many_channels_as_are_allowed_are_served(server: Server) -> None:
    query = urlencode({f"/{number}": 0 for number in range(MAX_CHANNELS)})
    with request(server.url, "POST", f"{BUS}/x/poll?dlp=t", query, {"Content-Type": FORM}) as response:
        assert response.status == 200


def test_a_websocket_request_without_upgrade_is_answered_with_426(server: Server) -> None:
    status, headers, error = ask(server, "GET", f"{BUS}/x/ws?%2Fchat=0")
    assert (status, headers["Upgrade"], error["field"]) == (426, "websocket", "Upgrade")


@pytest.mark.parametrize("origin", ["http://[", "x", "http://a:b", "://", "\xff"])
def test_a_malformed_origin_is_a_foreign_one(server: Server, origin: str) -> None:
    upgrade = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"}
    upgrade["Sec-WebSocket-Key"] = "dGhlIHNhbXBsZSBub25jZQ=="
    status, _, error = ask(server, "GET", f"{BUS}/x/ws", None, Origin=origin, **upgrade)
    assert (status, error["field"]) == (403, "Origin")


_text = st.text(max_size=20)
_pairs = st.dictionaries(
    st.one_of(_text, _text.map(lambda text: "/" + text), st.sampled_from(["__seq", "__epoch", "/chat", "dlp"])),
    st.one_of(_text, st.integers().map(str), st.integers().map(lambda number: f"@{number}")),
    max_size=5,
)


@FUZZ
@given(
    query=st.one_of(_pairs.map(urlencode), st.text(alphabet="%&=/?;+@abc0129", max_size=40)),
    end=st.sampled_from(["sse", "ws"]),
)
def test_no_query_is_an_error_of_the_server(server: Server, query: str, end: str) -> None:
    with request(server.url, "GET", f"{BUS}/fuzz/{end}?{query}") as response:
        assert response.status in (200, 400, 426)


@FUZZ
@given(
    body=st.one_of(
        _pairs.map(lambda pairs: urlencode(pairs).encode()),
        _pairs.map(lambda pairs: json.dumps(pairs).encode()),
        st.recursive(
            st.none() | st.integers() | st.floats() | _text,
            lambda inner: st.lists(inner) | st.dictionaries(_text, inner),
            max_leaves=5,
        ).map(lambda value: json.dumps(value).encode()),
        st.binary(max_size=60),
    ),
    kind=st.sampled_from(
        [FORM, JSON, f"{FORM}; charset=utf-16", f"{JSON}; charset=x", "multipart/form-data; boundary=x", ""]
    ),
    sequence=st.sampled_from(["", "?dlp=t", "?dlp=t&dlp=f"]),
)
def test_no_body_is_an_error_of_the_server(server: Server, body: bytes, kind: str, sequence: str) -> None:
    headers = {"Content-Type": kind, "Dont-Chunk": "true"}
    with request(server.url, "POST", f"{BUS}/fuzz/poll{sequence}", body, headers) as response:
        assert response.status in (200, 400, 415)
