"""What the transports over plain HTTP promise beyond the stories they share: polls, streams and EventSource."""

from __future__ import annotations

import contextlib
import http.client
import json
import time
from collections.abc import Iterator
from urllib.parse import urlencode

import pytest

from ..clients import (
    FORM,
    NOT_CACHED,
    Client,
    EventSource,
    LongPolling,
    Polling,
    Refused,
    Streaming,
    WebSocket,
    request,
)
from ..eventually import eventually
from ..redis_server import RedisServer
from .conftest import World, run

INTERVAL = 0.4
HELD = (LongPolling, Streaming)


@pytest.fixture(scope="module")
def small(redis_server: RedisServer) -> Iterator[World]:
    """A server that holds two clients at most, for a short while, and lets some foreign pages in."""
    yield from run(
        "serve",
        redis_server,
        messagebus_long_polling_interval=str(INTERVAL),
        messagebus_max_active_clients="2",
        messagebus_allowed_origins="https://example.com, https://*.example.org",
    )


def poll_raw(world: World, body: str, version: str = "1.1", header: str = "") -> bytes:
    """Everything that the server answers to a poll until it closes the connection."""
    head = (
        f"POST /message-bus/raw/poll HTTP/{version}\r\nHost: x\r\nConnection: close\r\nContent-Type: {FORM}\r\n{header}"
    )
    with world.server.connect() as sock, sock.makefile("rb") as answer:
        sock.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
        return answer.read()


# --- polls ---


def test_a_long_poll_ends_with_an_empty_batch_when_its_interval_is_over(small: World) -> None:
    channel = small.channel()
    started = time.monotonic()
    with LongPolling.connect(small.url, {channel: 0}) as client:
        assert client.next_batch() == []
    assert INTERVAL <= time.monotonic() - started < 20, "25 s are the default"


def test_a_stream_begins_at_once_and_ends_with_an_empty_batch_and_the_last_chunk(small: World) -> None:
    started = time.monotonic()
    answer = poll_raw(small, urlencode({small.channel(): 0}))
    assert INTERVAL <= time.monotonic() - started < 20, "25 s are the default"
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"Transfer-Encoding: chunked" in head.split(b"\r\n")
    assert body == b"7\r\n[]\r\n|\r\n\r\n" * 2 + b"0\r\n\r\n"


def test_http_1_0_is_answered_with_one_batch(small: World) -> None:
    channel = small.channel()
    small.publish(channel, 1)
    head, _, body = poll_raw(small, urlencode({channel: 0}), version="1.0").partition(b"\r\n\r\n")
    assert b"Content-Type: application/json; charset=utf-8" in head.split(b"\r\n")
    assert b"chunked" not in head
    assert [message["data"] for message in json.loads(body)] == [1]


def test_a_poll_may_be_json(world: World) -> None:
    channel = world.channel()
    world.publish(channel, 1, 2)
    headers = {"Content-Type": "application/json"}
    for position in (1, "1"):
        body = json.dumps({channel: position, "__seq": 1})
        with request(world.url, "POST", "/message-bus/c/poll?dlp=t", body, headers) as response:
            assert [message["data"] for message in json.load(response)] == [2]


def test_a_poll_without_channels_is_answered_with_nothing(world: World) -> None:
    with Polling.connect(world.url, {}) as client:
        assert client.next_batch() == []


@pytest.mark.parametrize("transport", HELD)
def test_a_poll_with_a_higher_sequence_ends_the_held_one(world: World, transport: type[Client]) -> None:
    channel = world.channel()
    first = transport.connect(world.url, {channel: 0}, client_id="twice")
    other = transport.connect(world.url, {channel: 0}, client_id="another")
    second = transport(world.url, {channel: 0}, client_id="twice")
    with first, second, other:
        if transport is Streaming:
            assert first.next_batch() == other.next_batch() == []
        second._sequence = 7  # type: ignore[attr-defined]
        second.reconnect()
        assert first.next_batch() == []
        if transport is Streaming:
            assert second.next_batch() == []
        world.publish(channel, "new")
        assert second.data(1) == ["new"]
        assert other.data(1) == ["new"]


@pytest.mark.parametrize("transport", HELD)
def test_a_poll_with_a_lower_sequence_that_comes_late_ends_at_once(world: World, transport: type[Client]) -> None:
    channel = world.channel()
    newer = transport(world.url, {channel: 0}, client_id="late")
    newer._sequence = 7  # type: ignore[attr-defined]
    newer.reconnect()
    if transport is Streaming:
        newer.next_batch()
    # A long poll tells nothing while it is held; but whichever of the two comes first, it is the newer that stays.
    with newer, transport.connect(world.url, {channel: 0}, client_id="late") as older:
        assert older.next_batch() == []
        world.publish(channel, "new")
        assert newer.data(1) == ["new"]


def test_options_is_answered_with_the_headers_of_a_poll(world: World) -> None:
    with request(world.url, "OPTIONS", "/message-bus/c/poll") as response:
        assert response.status == 200
        for name, value in NOT_CACHED.items():
            assert response.getheader(name) == value


def test_a_stream_that_is_cut_up_by_a_proxy_would_still_be_read_by_its_separators(world: World) -> None:
    channel = world.channel()
    with Streaming.connect(world.url, {channel: 0}) as client:
        assert client.next_batch() == []
        world.publish(channel, "a", "b", {"c": "\r\n|\r\n"})
        assert client.data(3) == ["a", "b", {"c": "\r\n|\r\n"}]
        assert client.connections == 1


# --- no room ---


def test_above_max_active_clients_polls_are_answered_at_once_and_the_others_refused(small: World) -> None:
    channel = small.channel()
    small.publish(channel, 1)
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(EventSource.connect(small.url, {channel: 0})) for _ in range(2)]
        for client in held:
            client.messages(1)
        kinds: tuple[type[Client], ...] = (EventSource, WebSocket)
        for kind in kinds:
            with pytest.raises(Refused) as refused, kind.connect(small.url, {channel: 0}) as other:
                other.next_batch()
            assert refused.value.status == 503
            assert int(refused.value.headers["Retry-After"]) > 0
            assert refused.value.error["code"] == "unavailable"
        answer = poll_raw(small, urlencode({channel: 1}))
        assert answer.endswith(b"\r\n\r\n[]")
        assert b"Transfer-Encoding" not in answer
        held[0].cut()

        def has_room() -> bool:
            try:
                with EventSource.connect(small.url, {channel: 0}) as client:
                    return bool(client.messages(1))
            except Refused:
                return False

        eventually(has_room)


# --- other origins ---


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        ("https://example.com", True),
        ("https://a.example.org", True),
        ("https://example.org", False),
        ("http://example.com", False),
        ("https://evil-example.org", False),
        ("null", False),
    ],
)
def test_an_allowed_page_may_read_the_answers_and_no_other(small: World, origin: str, allowed: bool) -> None:
    channel = small.channel()
    small.publish(channel, 1)
    body = urlencode({channel: 0})
    for method, path in (
        ("POST", "/message-bus/c/poll"),
        ("POST", "/message-bus/c/poll?dlp=t"),
        ("OPTIONS", "/message-bus/c/poll"),
        ("GET", f"/message-bus/c/sse?{body}"),
        ("POST", "/message-bus/c/nothing"),
    ):
        headers = {"Origin": origin, "Content-Type": FORM, "Access-Control-Request-Headers": "X-One, X-Two"}
        with request(small.url, method, path, body if method == "POST" else None, headers) as response:
            assert response.getheader("Vary") == "Origin"
            assert response.getheader("Access-Control-Allow-Origin") == (origin if allowed else None)
            asked = method == "OPTIONS" and allowed
            assert response.getheader("Access-Control-Allow-Headers") == ("X-One, X-Two" if asked else None)
            assert response.getheader("Access-Control-Allow-Methods") == ("POST, GET" if asked else None)


def test_without_allowed_origins_nothing_is_said_of_them(world: World) -> None:
    with request(world.url, "OPTIONS", "/message-bus/c/poll", headers={"Origin": "https://example.com"}) as response:
        assert response.getheader("Access-Control-Allow-Origin") is None


# --- EventSource ---


def test_every_channel_continues_after_the_last_event_id(world: World) -> None:
    one, two = world.channel(), world.channel()
    world.publish(one, "one 1")
    world.publish(two, "two 1")
    with EventSource.connect(world.url, {one: 0, two: 0}) as client:
        client.messages(2)
        seen = client.last_event_id
        assert seen
        client.cut()
        world.publish(two, "two 2")
        world.publish(one, "one 2")
    # A browser comes back with the address that it began with, whose positions are older.
    with EventSource.connect(world.url, {one: 0, two: 0}, last_event_id=seen) as client:
        assert sorted(client.data(2)) == ["one 2", "two 2"]
    # And a position that is later counts.
    with EventSource.connect(world.url, {one: 2, two: 0}, last_event_id=seen) as client:
        assert client.data(1) == ["two 2"]
        world.publish(one, "one 3")
        assert client.data(1) == ["one 3"]
    with EventSource.connect(world.url, {one: -1, two: -1}, last_event_id=seen) as client:
        assert sorted(client.data(3)) == ["one 2", "one 3", "two 2"]


def test_a_last_event_id_that_is_none_is_refused(world: World) -> None:
    with request(world.url, "GET", "/message-bus/c/sse?%2Fa=0", headers={"Last-Event-ID": "x"}) as response:
        assert response.status == 400
        assert json.load(response)["error"]["field"] == "Last-Event-ID"


def test_an_event_is_the_same_bytes_for_every_subscriber(world: World) -> None:
    channel = world.channel()
    query = urlencode({channel: 0})
    with contextlib.ExitStack() as stack:
        responses: list[http.client.HTTPResponse] = []
        for name in ("a", "b"):
            response = stack.enter_context(request(world.url, "GET", f"/message-bus/{name}/sse?{query}"))
            while response.readline() != b"\n":
                pass  # the first event, with the epoch or with nothing
            responses.append(response)
        world.publish(channel, "ü")
        first, second = [[response.readline() for _ in range(3)] for response in responses]
        assert first == second
        assert first[1].startswith(b"data: [{")
        assert first[2] == b"\n"


def test_events_may_be_named_after_their_channels_and_carry_the_bare_data(world: World) -> None:
    first, second = world.channel(), world.channel()
    world.publish(first, "<li>one</li>", {"two": 2})
    query = urlencode({first: 0, second: -1, "events": "channel", "format": "data"})

    def events(response: http.client.HTTPResponse, count: int) -> list[tuple[str, str]]:
        """The name and the data of the next events."""
        found: list[tuple[str, str]] = []
        name = ""
        while len(found) < count:
            field, _, value = response.readline().decode().rstrip("\n").partition(": ")
            name = value if field == "event" else name
            found += [(name, value)] if field == "data" else []
        return found

    with request(world.url, "GET", f"/message-bus/named/sse?{query}") as response:
        assert response.getheader("Content-Type") == "text/event-stream"
        assert events(response, 2) == [(first, "<li>one</li>"), (first, '{"two":2}')]
        world.publish(second, "live")
        assert events(response, 1) == [(second, "live")]


@pytest.mark.parametrize(
    "form", ["format=xml", "events=all&format=data", "events=channel&format=xml", "events=", "format="]
)
def test_a_form_of_events_that_there_is_not_is_refused(world: World, form: str) -> None:
    with request(world.url, "GET", f"/message-bus/c/sse?%2Fa=0&{form}") as response:
        assert response.status == 400
        assert json.load(response)["error"]["field"] in ("events", "format")
