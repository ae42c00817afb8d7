"""Names, data and stored messages: bytes to values and back."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from messagebus.errors import InvalidChannel, InvalidData, InvalidTargets, MessageTooLarge
from messagebus.message import (
    Ids,
    decode_message,
    decode_stored,
    encode_data,
    encode_envelope,
    encode_stored,
    gap_message,
    status_message,
)
from messagebus.names import MAX_CHANNEL_LENGTH, check_channel, check_site, split_name, store_name

LIMIT = 1_000_000


def good(check: Any) -> Any:
    def passes(value: str) -> bool:
        try:
            check(value)
        except ValueError:
            return False
        return True

    return passes


# Many of the characters that a store's name gives a meaning to.
texts = st.one_of(st.text(max_size=30), st.text("$|123/_a ü", max_size=30))
channels = texts.map(lambda text: f"/{text}").filter(good(check_channel))
sites = st.one_of(st.none(), texts.filter(good(check_site)))
json_values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(allow_nan=False, allow_infinity=False),
        st.text("\r\n|$\x00aü🎉"),
    ),
    lambda children: st.one_of(
        st.lists(children, max_size=4), st.dictionaries(st.text(max_size=8), children, max_size=4)
    ),
    max_leaves=12,
)
targets = st.one_of(st.none(), st.lists(st.one_of(st.integers(), st.text(max_size=8)), min_size=1, max_size=4))
clients = st.one_of(st.none(), st.lists(st.text(max_size=8), min_size=1, max_size=4))


@given(
    channel=channels,
    site=sites,
    data=json_values,
    user_ids=targets,
    group_ids=targets,
    client_ids=clients,
    excluded=clients,
    ids=st.builds(Ids, st.integers(1, 2**53), st.integers(1, 2**53)),
)
def test_what_is_stored_comes_back(
    channel: str,
    site: str | None,
    data: Any,
    user_ids: list[Any] | None,
    group_ids: list[Any] | None,
    client_ids: list[str] | None,
    excluded: list[str] | None,
    ids: Ids,
) -> None:
    raw = encode_data(data, LIMIT)
    name = store_name(channel, site)
    envelope = encode_envelope(raw, user_ids, group_ids, client_ids, exclude_client_ids=excluded)
    message = decode_stored(encode_stored(ids, name, envelope))
    assert (message.message_id, message.global_id) == ids
    assert message.name == name
    assert message.channel == channel
    assert message.site_id == (None if channel.startswith("/global/") else site)
    assert message.raw == raw
    assert message.data == data
    assert (message.user_ids, message.group_ids, message.client_ids) == (
        user_ids and tuple(user_ids),
        group_ids and tuple(group_ids),
        client_ids and tuple(client_ids),
    )
    assert message.exclude_client_ids == (excluded and tuple(excluded))
    assert message.targeted == any((user_ids, group_ids, client_ids, excluded))
    assert json.loads(message.json) == {
        "global_id": ids.global_id,
        "message_id": ids.message_id,
        "channel": channel,
        "data": data,
    }


@given(channels, sites, channels, sites)
def test_two_channels_or_two_sites_never_have_the_same_name_in_a_store(
    channel: str, site: str | None, other: str, other_site: str | None
) -> None:
    name = store_name(channel, site)
    assert split_name(name)[0] == channel
    if name == store_name(other, other_site):
        assert channel == other
        assert site == other_site or channel.startswith("/global/")


@pytest.mark.parametrize("sender", ["7", '"a b"', '["x"]', "null", '""', '"' + "x" * 129 + '"'])
def test_a_sender_of_another_program_that_is_no_client_is_none(sender: str) -> None:
    assert decode_stored(b'1|1|/a|{"data":1,"sender":%b}' % sender.encode()).sender is None


@given(st.binary(max_size=60))
def test_any_bytes_that_another_program_stored_are_a_message_or_a_value_error(stored: bytes) -> None:
    try:
        decode_stored(stored)
    except ValueError:
        pass


@pytest.mark.parametrize(
    "stored",
    [
        b"",
        b"1|2|/a",
        b"x|2|/a|{}",
        b"1|2|\xff|{}",
        b"1|2|/a|",
        b"1|2|/a|[]",
        b'1|2|/a|{"data":}',
        b'1|2|/a|{"user_ids":5}',
    ],
)
def test_what_is_no_stored_message_is_a_value_error(stored: bytes) -> None:
    with pytest.raises(ValueError):
        decode_stored(stored)


def test_data_that_is_not_utf_8_is_a_value_error_for_it_would_end_every_websocket() -> None:
    with pytest.raises(ValueError, match="message 2 on /a: not UTF-8"):
        decode_stored(b'1|2|/a|{"data":"\xc3("}')
    assert decode_stored('1|2|/a|{"data":"ü"}'.encode()).data == "ü"


def test_a_message_nested_too_deeply_is_a_value_error() -> None:
    """Not a RecursionError, which would end the feed, and each one after it."""
    with pytest.raises(ValueError, match="not an envelope"):
        decode_stored(b'1|1|/a|{"data":' + b"[" * 100_000 + b"]" * 100_000 + b"}")


def test_an_envelope_of_another_program_may_have_more_keys_or_fewer() -> None:
    assert decode_stored(b'1|2|/a|{"data":1,"other":[2]}').data == 1
    assert decode_stored(b"1|2|/a|{}").data is None


def test_the_data_of_an_envelope_may_hold_the_separator_of_stored_messages() -> None:
    assert decode_message(1, 2, "/a|b", b'{"data":"x|y"}').data == "x|y"


@pytest.mark.parametrize("channel", ["/", "/chat/7", "/a|b", "/häuser/雪/🎉", "/$", "/a b", "/" + "x" * 254])
def test_good_channel_names(channel: str) -> None:
    assert check_channel(channel) == channel


@pytest.mark.parametrize(
    ("channel", "reason"),
    [
        (7, "expected a string, not int"),
        (None, "expected a string"),
        ("", "starts with '/'"),
        ("chat", "starts with '/'"),
        ("/" + "x" * MAX_CHANNEL_LENGTH, "longer than 255"),
        ("/__status", "the bus's own"),
        ("/a$|$b", "reserved"),
        ("/a$|", "reserved"),
        ("/a$$123$$b", "reserved"),
        ("/a$$123", "reserved"),
        ("/a\nb", "control"),
        ("/a\x00", "control"),
        ("/\ud800", "surrogates"),
    ],
)
def test_bad_channel_names_say_what_is_wrong(channel: object, reason: str) -> None:
    with pytest.raises(InvalidChannel, match=reason.replace("$", r"\$")) as caught:
        check_channel(channel)
    assert caught.value.channel is channel


@pytest.mark.parametrize("site", [None, 5, "", "x" * 256, "a\nb", "a$$123$$b", "\udfff"])
def test_bad_sites_are_refused(site: object) -> None:
    with pytest.raises(ValueError, match="site"):
        check_site(site)


@pytest.mark.parametrize("data", [{1, 2}, b"bytes", math.nan, math.inf, object(), {("a",): 1}, "\ud800"])
def test_data_that_is_not_json_is_refused(data: object) -> None:
    with pytest.raises(InvalidData):
        encode_data(data, LIMIT)


def test_data_that_holds_itself_is_refused() -> None:
    data: list[object] = []
    data.append(data)
    with pytest.raises(InvalidData):
        encode_data(data, LIMIT)


def test_data_over_the_limit_is_refused_with_its_size() -> None:
    assert encode_data("é" * 4, 10) == '"éééé"'.encode()
    with pytest.raises(MessageTooLarge) as caught:
        encode_data("é" * 4, 9)
    assert (caught.value.size, caught.value.limit) == (10, 9)


@pytest.mark.parametrize(
    ("ids", "reason"),
    [([], "reaches nobody"), ("me", "expected a list"), (b"me", "expected a list"), ([{1}], "user_ids")],
)
def test_targets_that_make_no_sense_are_refused(ids: Any, reason: str) -> None:
    with pytest.raises(InvalidTargets, match=reason):
        encode_envelope(b"1", user_ids=ids)


def test_a_status_and_a_gap_are_messages_of_the_bus_itself() -> None:
    status = status_message({"/chat": 5}, "e1")
    assert json.loads(status.json) == {
        "global_id": -1,
        "message_id": -1,
        "channel": "/__status",
        "data": {"/chat": 5, "__epoch": "e1"},
    }
    assert status_message({"/chat": 5}, None).data == {"/chat": 5}
    gap = gap_message({"/chat": (5, 42), "/all": (None, 1)})
    assert (gap.channel, gap.data) == (
        "/__gap",
        {"/chat": {"after": 5, "before": 42}, "/all": {"after": None, "before": 1}},
    )


def test_data_that_no_reader_could_decode_is_refused() -> None:
    deep: list[Any] = []
    for _ in range(900):
        deep = [deep]
    try:
        raw = encode_data(deep, 10**6)
    except InvalidData:
        return
    # What is accepted can be read again.
    assert decode_stored(encode_stored(Ids(1, 1), "/a", encode_envelope(raw))).data == deep
