"""The poll protocol to the byte, as the original server speaks it, from bare sockets.

On a server whose sockets are taken, on one that keeps them, and on gevent's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from urllib.parse import urlencode

import pytest

from tests.contract.conftest import World, run
from tests.redis_server import RedisServer

FORM = "application/x-www-form-urlencoded; charset=UTF-8"  # as jQuery writes it
NOT_CACHED = {
    "cache-control": "must-revalidate, private, max-age=0",
    "pragma": "no-cache",
    "expires": "0",
}
ONE_BATCH = {**NOT_CACHED, "content-type": "application/json; charset=utf-8"}
STREAM = {
    **NOT_CACHED,
    "content-type": "text/plain; charset=utf-8",
    "transfer-encoding": "chunked",
    "x-content-type-options": "nosniff",
}
SEPARATOR = b"\r\n|\r\n"


@pytest.fixture(scope="module", params=["flask", "waitress", "serve"])
def world(request: pytest.FixtureRequest, redis_server: RedisServer) -> Iterator[World]:
    yield from run(request.param, redis_server, messagebus_long_polling_interval="0.6")


class Answer:
    """What comes back on a connection of its own, read as it comes."""

    def __init__(self, world: World, positions: Mapping[str, object], query: str = "", **headers: str) -> None:
        body = urlencode(dict(positions))
        head = {"Host": "x", "Content-Type": FORM, "Content-Length": str(len(body)), **headers}
        lines = [f"POST /message-bus/0123456789abcdef/poll{query} HTTP/1.1", *(f"{n}: {v}" for n, v in head.items())]
        self._socket = world.server.connect()
        self._socket.sendall("\r\n".join([*lines, "", body]).encode())
        self._file = self._socket.makefile("rb")
        self.status = self._file.readline()
        self.headers: dict[str, str] = {}
        while line := self._file.readline().strip():
            name, _, value = line.decode("ascii").partition(": ")
            assert name.lower() not in self.headers, f"{name} twice"
            self.headers[name.lower()] = value

    def __enter__(self) -> Answer:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._socket.close()

    def expect_headers(self, expected: Mapping[str, str]) -> None:
        assert self.status == b"HTTP/1.1 200 OK\r\n"
        assert {name: self.headers.get(name) for name in expected} == dict(expected)

    def one_batch(self) -> bytes:
        """The body by its length, which must be there."""
        self.expect_headers(ONE_BATCH)
        assert "transfer-encoding" not in self.headers
        return self._file.read(int(self.headers["content-length"]))

    def chunk(self) -> bytes:
        """The next chunk; empty for the last one."""
        size = self._file.readline()
        assert re.fullmatch(rb"[0-9a-fA-F]+\r\n", size)
        data = self._file.read(int(size, 16))
        assert self._file.readline() == b"\r\n"
        return data

    def is_over(self) -> bool:
        """Whether the server closes the connection now."""
        self._socket.settimeout(30)
        try:
            return self._file.read(1) == b""
        except TimeoutError:
            return False


def newest_global_id(world: World) -> int:
    """That of a message which is published now."""
    channel = world.channel()
    world.publish(channel, None)
    with Answer(world, {channel: 0}, "?dlp=t") as answer:
        found = re.match(rb'\[\{"global_id":(\d+),', answer.one_batch())
        assert found
        return int(found[1])


def test_nothing_new_is_two_brackets(world: World) -> None:
    with Answer(world, {world.channel(): 0}, "?dlp=t") as answer:
        assert answer.one_batch() == b"[]"


def test_a_batch_is_compact_json_with_its_keys_in_the_known_order(world: World) -> None:
    channel = world.channel()
    before = newest_global_id(world)
    world.publish(channel, {"b": [1, 2.5, None, True], "a": "é"}, "text")
    with Answer(world, {channel: 0, "__seq": 1}, "?dlp=t") as answer:
        body = answer.one_batch()
    text = body.decode()
    first, second = before + 1, before + 2
    assert text.replace("\\u00e9", "é") == (
        f'[{{"global_id":{first},"message_id":1,"channel":"{channel}","data":{{"b":[1,2.5,null,true],"a":"é"}}}},'
        f'{{"global_id":{second},"message_id":2,"channel":"{channel}","data":"text"}}]'
    )


def test_a_status_is_the_last_message_and_its_ids_are_minus_one(world: World) -> None:
    channel, other = world.channel(), world.channel()
    world.publish(channel, 1, 2)
    with Answer(world, {channel: -1, other: -1}, "?dlp=t") as answer:
        body = answer.one_batch().decode()
    assert body.startswith('[{"global_id":-1,"message_id":-1,"channel":"/__status","data":{')
    assert f'"{channel}":2' in body
    assert f'"{other}":0' in body


def test_looking_back_is_answered_without_a_status(world: World) -> None:
    channel = world.channel()
    world.publish(channel, 1, 2, 3)
    with Answer(world, {channel: -2}, "?dlp=t") as answer:
        body = answer.one_batch()
    assert re.fullmatch(rb'\[\{"global_id":\d+,"message_id":3,"channel":"[^"]+","data":3\}\]', body)


@pytest.mark.parametrize("header", ["true", "True"])
def test_a_held_poll_is_answered_as_one_batch_with_the_same_headers(world: World, header: str) -> None:
    channel = world.channel()
    world.publish(channel, "there already")
    with Answer(world, {channel: 0}, **{"Dont-Chunk": header}) as answer:
        assert b'"data":"there already"' in answer.one_batch()
    with Answer(world, {channel: 1}, **{"Dont-Chunk": header}) as answer:  # held until the interval is over
        assert answer.one_batch() == b"[]"


def test_each_batch_of_a_stream_is_a_chunk_that_ends_with_the_separator(world: World) -> None:
    channel = world.channel()
    world.publish(channel, "a|b", "c")
    with Answer(world, {channel: 0}) as answer:
        answer.expect_headers(STREAM)
        assert "content-length" not in answer.headers
        first = answer.chunk()
        assert first.endswith(b'"data":"c"}]' + SEPARATOR)
        assert first.count(SEPARATOR) == 1
        world.publish(channel, "\r\n|\r\n")
        live = answer.chunk()
        assert live.endswith(rb'"data":"\r\n|\r\n"}]' + SEPARATOR)
        assert live.count(SEPARATOR) == 1
        # The interval is over.
        assert answer.chunk() == b"[]" + SEPARATOR
        assert answer.chunk() == b""
        if answer.headers.get("connection", "").lower() == "close":
            assert answer.is_over()


def test_a_stream_with_nothing_to_say_begins_with_an_empty_batch(world: World) -> None:
    with Answer(world, {world.channel(): 0}) as answer:
        assert answer.chunk() == b"[]" + SEPARATOR


def test_keys_that_begin_with_two_underscores_are_no_channels(world: World) -> None:
    channel = world.channel()
    world.publish(channel, 1)
    with Answer(world, {"__seq": 4, "__whatever": "x", "__time": 7, channel: 0}, "?dlp=t") as answer:
        assert answer.one_batch().count(b'"channel"') == 1


@pytest.mark.parametrize("query", ["?dlp=t", "?dlp=t&_=1700000000000"])
def test_polls_that_ask_for_it_are_not_held(world: World, query: str) -> None:
    with Answer(world, {world.channel(): 0}, query) as answer:
        assert answer.one_batch() == b"[]"
