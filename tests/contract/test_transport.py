"""What every transport promises: the same stories over each, on real servers."""

from __future__ import annotations

import html
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import quote

import pytest

from ..clients import Client
from ..eventually import eventually
from .conftest import World

TEXTS = [
    "Grüße, 世界, 🎉, \u2028\u2029, \x00\x1f, \ud83d",
    "\r\n|\r\n",
    "\r\n||\r\n",
    "a\r\n|\r\n|\r\n||\r\nb",
    "||",
    "|\n\n|\r\r|data: x\n\nid: 5\n\n",
    "$$123$$|$|$|]}\"'\\",
]


@contextmanager
def publishing(world: World, channel: str) -> Iterator[None]:
    """Numbers are published on the channel, one after the other, as long as this lasts."""
    stop = threading.Event()
    failures: list[BaseException] = []

    def publish() -> None:
        number = 0
        try:
            while not stop.is_set():
                world.publish(channel, *range(number, number + 3), max_backlog_size=100_000)
                number += 3
        except BaseException as failure:
            failures.append(failure)

    thread = threading.Thread(target=publish)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    assert not failures, failures


def test_minus_one_is_answered_with_the_position_and_brings_only_what_comes_then(
    world: World, transport: type[Client]
) -> None:
    channel = world.channel()
    world.publish_and_hear(channel, "old 1", "old 2")
    with transport.connect(world.url, {channel: -1}) as client:
        assert client.status()[channel] == 2
        assert client.received == []
        world.publish(channel, "new")
        [message] = client.messages(1)
        assert (message["channel"], message["message_id"], message["data"]) == (channel, 3, "new")
        assert message["global_id"] > 0


def test_an_empty_position_is_as_minus_one(world: World, transport: type[Client]) -> None:
    channel = world.channel()
    world.publish_and_hear(channel, "old")
    with transport.connect(world.url, {channel: ""}) as client:
        assert client.status()[channel] == 1
        assert client.received == []


def test_zero_on_a_channel_without_messages_waits_for_the_first(world: World, transport: type[Client]) -> None:
    channel = world.channel()
    with transport.connect(world.url, {channel: 0}) as client:
        world.publish(channel, "first")
        assert client.messages(1)[0]["message_id"] == 1


def test_a_position_brings_everything_after_it(world: World, transport: type[Client]) -> None:
    channel = world.channel()
    world.publish(channel, *range(1, 6))
    with transport.connect(world.url, {channel: 2}) as client:
        assert client.data(3) == [3, 4, 5]
        world.publish(channel, 6)
        assert client.data(1) == [6]
        assert client.gaps == client.statuses == []


@pytest.mark.parametrize(
    ("position", "expected"), [(-2, [5]), (-3, [4, 5]), (-6, [1, 2, 3, 4, 5]), (-50, [1, 2, 3, 4, 5])]
)
def test_a_position_of_minus_k_brings_the_last_k_minus_1_messages(
    world: World, transport: type[Client], position: int, expected: list[int]
) -> None:
    channel = world.channel()
    world.publish(channel, *range(1, 6))
    with transport.connect(world.url, {channel: position}) as client:
        assert client.data(len(expected)) == expected
        world.publish(channel, 6)
        assert client.data(1) == [6]
        assert client.gaps == []


def test_several_channels_each_have_their_own_position(world: World, transport: type[Client]) -> None:
    one, two, three, other = [world.channel() for _ in range(4)]
    for channel in (one, two, three, other):
        world.publish(channel, f"{channel} 1", f"{channel} 2")
    with transport.connect(world.url, {one: 0, two: 1, three: -1}) as client:
        assert sorted(client.data(3)) == sorted([f"{one} 1", f"{one} 2", f"{two} 2"])
        assert client.statuses[-1][three] == 2
        world.publish(other, "not asked for")
        world.publish(three, f"{three} 3")
        world.publish(one, f"{one} 3")
        assert sorted(client.data(2)) == sorted([f"{three} 3", f"{one} 3"])


def test_a_channel_may_have_any_name_that_the_rules_allow(world: World, transport: type[Client]) -> None:
    channel = world.channel() + "/häuser/雪 ❄?a=b&c=d+e%20#|;,\"'"
    with transport.connect(world.url, {channel: -1}) as client:
        client.status()
        world.publish(channel, 1)
        assert client.messages(1)[0]["channel"] == channel


def test_text_arrives_as_it_was_published(world: World, transport: type[Client]) -> None:
    channel = world.channel()
    texts = [text.encode("utf-8", "ignore").decode() for text in TEXTS]
    world.publish(channel, *texts)
    with transport.connect(world.url, {channel: 0}) as client:
        assert client.data(len(texts)) == texts
        for text in texts:
            world.publish(channel, {"text": [text], text: None})
            assert client.data(1) == [{"text": [text], text: None}]


def test_a_message_of_a_megabyte_arrives_live_and_from_the_backlog(world: World, transport: type[Client]) -> None:
    channel = world.channel()
    large = "0123456789abcdé|" * (1 << 16)
    with transport.connect(world.url, {channel: 0}) as live:
        world.publish(channel, large, "small")
        assert live.data(2) == [large, "small"]
    with transport.connect(world.url, {channel: 0}) as late:
        assert late.data(2) == [large, "small"]


def test_what_is_published_in_the_moment_of_subscribing_arrives_once(world: World, transport: type[Client]) -> None:
    channel = world.channel()
    with publishing(world, channel):
        position = 0
        for turn in range(20):
            start = [-1, position, -3][turn % 3]
            with transport.connect(world.url, {channel: start}) as client:
                if start == -1:
                    position = client.status()[channel]
                ids = [message["message_id"] for message in client.messages(8)]
                first = position + 1 if start >= -1 else ids[0]
                assert ids == list(range(first, first + 8)), (start, position, client.batches)
                # The numbers are published in order, so that the data tells as well.
                assert [message["data"] for message in client.received[:8]] == [number - 1 for number in ids]
                position = ids[-1]


def test_a_position_that_the_backlog_no_longer_reaches_is_answered_with_a_gap(
    world: World, transport: type[Client]
) -> None:
    channel = world.channel()
    world.publish(channel, *range(1, 11), max_backlog_size=4)
    with transport.connect(world.url, {channel: 2}) as client:
        assert client.data(4) == [7, 8, 9, 10]
        assert client.gaps == [{channel: {"after": 2, "before": 7}}]
        world.publish(channel, 11)
        assert client.data(1) == [11]


def test_a_position_just_before_the_backlog_is_no_gap(world: World, transport: type[Client]) -> None:
    channel = world.channel()
    world.publish(channel, *range(1, 11), max_backlog_size=4)
    with transport.connect(world.url, {channel: 6}) as client:
        assert client.data(4) == [7, 8, 9, 10]
        assert client.gaps == []


def test_a_position_beyond_the_last_id_is_put_right_for_a_client_that_sends_no_epoch(
    world: World, transport: type[Client]
) -> None:
    channel = world.channel()
    world.publish(channel, 1, 2)
    with transport.connect(world.url, {channel: 9}) as client:
        assert client.status()[channel] == 2
        assert client.received == []
        world.publish(channel, 3)
        assert client.data(1) == [3]


def test_a_position_beyond_the_last_id_in_the_same_epoch_brings_the_whole_backlog(
    world: World, transport: type[Client]
) -> None:
    channel = world.channel()
    world.publish(channel, 1, 2)
    with transport.connect(world.url, {channel: -1}, epoch="") as client:
        client.status()
        assert client.epoch
        client.positions[channel] = 9
        client.reconnect()
        assert client.data(2) == [1, 2]
        assert client.gaps == [{channel: {"after": None, "before": 1}}]
        world.publish(channel, 3)
        assert client.data(1) == [3]


def test_a_position_by_global_id_brings_what_was_published_after_it(world: World, transport: type[Client]) -> None:
    channel, other = world.channel(), world.channel()
    world.publish(channel, 1)
    world.publish(other, "a", "b")
    world.publish(channel, 2, 3)
    with transport.connect(world.url, {channel: 0}) as client:
        ids = {message["data"]: message["global_id"] for message in client.messages(3)}
    for after, expected in ((ids[1], [2, 3]), (ids[2], [3]), (ids[2] - world.partitions, [2, 3]), (0, [1, 2, 3])):
        with transport.connect(world.url, {channel: f"@{after}"}) as client:
            assert client.data(len(expected)) == expected
    with transport.connect(world.url, {channel: f"@{ids[3]}"}) as client:
        world.publish(channel, 4)
        assert client.data(1) == [4]


def test_after_a_reset_of_the_store_a_client_gets_the_whole_backlog_after_a_gap(
    world: World, transport: type[Client]
) -> None:
    channel = world.channel()
    world.publish(channel, "a", "b", "c")
    with transport.connect(world.url, {channel: -1}, epoch="") as client:
        client.status()
        epoch = client.epoch
        assert epoch
        client.cut()
        world.reset()
        world.publish(channel, *range(1, 8))

        def is_known() -> bool:
            with transport.connect(world.url, {channel: -1}, epoch="") as other:
                other.status()
                return other.epoch != epoch

        eventually(is_known)
        assert client.positions[channel] == 3
        client.reconnect()
        assert client.data(7) == [1, 2, 3, 4, 5, 6, 7]
        assert client.gaps == [{channel: {"after": None, "before": 1}}]
        assert client.epoch != epoch


def test_a_reset_sends_connected_clients_back_for_the_new_messages(world: World, transport: type[Client]) -> None:
    channel = world.channel()
    world.publish(channel, "a", "b", "c")
    with transport.connect(world.url, {channel: -1}, epoch="") as client:
        client.status()
        world.reset()
        world.publish(channel, "new 1", "new 2")
        eventually(lambda: client.messages(1, resume=True)[0]["data"] == "new 2")
        # What it had seen means nothing any more: it was told, and has the whole.
        assert client.gaps[-1][channel] == {"after": None, "before": 1}
        assert [message["data"] for message in client.received][-2:] == ["new 1", "new 2"]


# --- for whom a message is ---


def test_a_targeted_message_reaches_only_those_it_is_for(world: World, transport: type[Client]) -> None:
    channel = world.channel()
    people = {
        "ann": transport.connect(world.url, {channel: -1}, headers={"X-User": "ann", "X-Groups": "staff"}),
        "bob": transport.connect(world.url, {channel: -1}, headers={"X-User": "bob", "X-Groups": "staff,chess"}),
        "guest": transport.connect(world.url, {channel: -1}, client_id="the-guest"),
    }
    for person in people.values():
        person.status()
    world.publish(channel, "ann", user_ids=["ann"])
    world.publish(channel, "staff", group_ids=["staff"])
    world.publish(channel, "chess or ann", group_ids=["chess"], user_ids=["ann"])
    world.publish(channel, "guest", client_ids=["the-guest"])
    world.publish(channel, "bob on another client", user_ids=["bob"], client_ids=["the-guest"])
    world.publish(channel, "all")
    expected = {
        "ann": ["ann", "staff", "chess or ann", "all"],
        "bob": ["staff", "chess or ann", "all"],
        "guest": ["guest", "all"],
    }
    for name, person in people.items():
        with person:
            assert person.data(len(expected[name])) == expected[name]


def test_a_message_for_everybody_but_one_client_reaches_the_others(world: World, transport: type[Client]) -> None:
    channel = world.channel()
    with (
        transport.connect(world.url, {channel: -1}, client_id="the-author") as author,
        transport.connect(world.url, {channel: -1}, headers={"X-User": "ann"}) as reader,
    ):
        author.status()
        reader.status()
        world.publish(channel, "live", exclude_client_ids=["the-author"])
        world.publish(channel, "ann, here", user_ids=["ann"], exclude_client_ids=["the-author"])
        world.publish(channel, "all")
        assert reader.data(3) == ["live", "ann, here", "all"]
        assert author.data(1) == ["all"]
    with (
        transport.connect(world.url, {channel: 0}, client_id="the-author") as author,
        transport.connect(world.url, {channel: 0}) as other,
    ):
        assert author.data(1) == ["all"]
        assert author.gaps == []
        assert other.data(2) == ["live", "all"]


def test_the_backlog_withholds_as_the_live_feed_does_and_says_how_far_it_went(
    world: World, transport: type[Client]
) -> None:
    channel = world.channel()
    world.publish(channel, "all")
    world.publish(channel, "ann 1", "ann 2", user_ids=["ann"])
    with transport.connect(world.url, {channel: 0}, headers={"X-User": "bob"}) as bob:
        assert bob.data(1) == ["all"]
        assert bob.statuses == [{channel: 3}] or bob.status() == {channel: 3}
    with transport.connect(world.url, {channel: 0}, headers={"X-User": "ann"}) as ann:
        assert ann.data(3) == ["all", "ann 1", "ann 2"]
        assert ann.statuses == []


def test_a_site_does_not_hear_another_but_every_site_hears_global_channels(
    world: World, transport: type[Client]
) -> None:
    channel = world.channel()
    shared = "/global" + channel
    red = transport.connect(world.url, {channel: 0, shared: 0}, headers={"X-Site": "red"})
    blue = transport.connect(world.url, {channel: 0, shared: 0}, headers={"X-Site": "blue"})
    with red, blue:
        world.publish(channel, "to red", site_id="red")
        world.publish(channel, "to blue", site_id="blue")
        world.publish(channel, "to none")
        world.publish(shared, "to all")
        assert red.data(2) == ["to red", "to all"]
        assert blue.data(2) == ["to blue", "to all"]


def test_a_page_gets_what_was_published_while_it_was_made(world: World, transport: type[Client]) -> None:
    channel = world.channel()
    world.publish(channel, "before")
    with transport.connect(world.url, {channel: 0}) as client:  # the server's own feed has come as far
        assert client.data(1) == ["before"]
    status, page = world.server.get(f"/page?channel={quote(channel)}")
    assert status == 200
    attributes = {name: html.unescape(value) for name, value in re.findall(r'data-([a-z-]+)="([^"]*)"', page.decode())}
    positions = json.loads(attributes["channels"])
    assert re.fullmatch(r"@[0-9]+", positions[channel])
    with transport.connect(world.url, positions, epoch=attributes["epoch"]) as client:
        assert client.data(1) == ["while the page was made"]
        world.publish(channel, "after")
        assert client.data(1) == ["after"]
        assert client.gaps == []
