"""Envelopes in another form than JSON, over every store."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from messagebus import Bus, InvalidOption
from messagebus.codecs import MessagePackCodec
from messagebus.message import Ids, decode_stored, encode_data, encode_envelope, encode_stored

from .eventually import eventually
from .redis_server import RedisServer

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abü\0", max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(data=json_values, user_ids=st.none() | st.lists(st.integers(0, 9) | st.text("ab"), min_size=1))
def test_messagepack_gives_back_what_it_was_given(data: Any, user_ids: list[Any] | None) -> None:
    codec = MessagePackCodec()
    envelope = encode_envelope(encode_data(data, 10**6), user_ids, codec=codec)
    message = decode_stored(encode_stored(Ids(1, 2), "/a|b", envelope), codec)
    assert message.data == data
    assert message.channel == "/a|b"
    assert message.user_ids == (None if user_ids is None else tuple(user_ids))


@pytest.fixture(params=["memory", "redis", "postgres"])
def bus(request: pytest.FixtureRequest) -> Iterator[Bus]:
    url = "memory://" if request.param == "memory" else request.getfixturevalue(f"{request.param}_url")
    with_codec = Bus(url=url, transport_codec=MessagePackCodec())
    yield with_codec
    with_codec.close()


def test_a_bus_with_a_codec_publishes_reads_and_hears(bus: Bus) -> None:
    heard: list[Any] = []
    bus.publish("/chat", {"before": [1, "ü|"]})
    bus.subscribe("/chat", lambda message: heard.append(message.data), last_id=0)
    bus.publish("/chat", {"after": "x" * 20_000})
    eventually(lambda: heard == [{"before": [1, "ü|"]}, {"after": "x" * 20_000}])
    assert [message.data for message in bus.backlog("/chat")] == heard
    assert [message.data for message in bus.global_backlog()] == heard


def test_redis_holds_the_codecs_bytes(redis_url: str, redis_server: RedisServer) -> None:
    bus = Bus(url=redis_url, transport_codec=MessagePackCodec())
    bus.publish("/chat", "hello")
    with redis_server.client() as client:
        (stored,) = client.zrange("__mb_backlog_n_/chat", 0, -1)
    assert stored.startswith(b"1|1|/chat|\x84\xa4data\xa5hello")
    bus.close()


def test_a_message_that_the_codec_does_not_understand_is_logged_and_left_out(
    redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    plain, packed = Bus(url=redis_url), Bus(url=redis_url, transport_codec=MessagePackCodec())
    heard: list[Any] = []
    packed.subscribe("/chat", lambda message: heard.append(message.data))
    plain.publish("/chat", "in JSON")
    packed.publish("/chat", "in MessagePack")
    eventually(lambda: heard == ["in MessagePack"])
    assert "the codec failed" in caplog.text
    assert {record.levelno for record in caplog.records} == {logging.WARNING}
    plain.close()
    packed.close()


def test_what_is_no_codec_is_refused() -> None:
    with pytest.raises(InvalidOption, match="transport_codec: expected an object with encode and decode"):
        Bus(transport_codec="msgpack")  # type: ignore[arg-type]
