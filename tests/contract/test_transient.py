"""Messages that are not kept, over every transport, on real servers."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from ..clients import TRANSPORTS, Client, Polling, WebSocket, request
from .conftest import World


@contextlib.contextmanager
def telling(world: World, channel: str, data: Any = "typing", **options: Any) -> Iterator[None]:
    """It is published again and again as long as this lasts: who is not connected at that moment misses it."""
    stop = threading.Event()
    failures: list[BaseException] = []

    def publish() -> None:
        try:
            while not stop.wait(0.02):
                assert world.publish(channel, data, transient=True, **options) == [None]
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


def hear(client: Client) -> list[Any]:
    """Read until there is something transient."""
    client.transient.clear()
    while not client.transient:
        client.next_batch()
    return [message["data"] for message in client.transient]


@pytest.mark.parametrize(
    "transport", [each for each in TRANSPORTS if each is not Polling], ids=lambda each: each.transport
)
def test_who_is_connected_gets_it_and_its_position_stays(world: World, transport: type[Client]) -> None:
    channel = world.channel()
    world.publish_and_hear(channel, "kept 1")
    with transport.connect(world.url, {channel: 1}) as client:
        with telling(world, channel, {"typing": "Ann"}):
            assert hear(client)[0] == {"typing": "Ann"}
        world.publish(channel, "kept 2")
        assert [(m["message_id"], m["data"]) for m in client.messages(1)] == [(2, "kept 2")]
        client.reconnect()
        world.publish(channel, "kept 3")
        assert client.data(1) == ["kept 3"]


def test_polls_that_are_not_held_get_none_of_it_and_no_gap(world: World) -> None:
    channel = world.channel()
    with Polling.connect(world.url, {channel: 0}) as client, telling(world, channel):
        world.publish(channel, "kept")
        assert client.data(1) == ["kept"]
        assert (client.transient, client.gaps) == ([], [])


def test_it_is_for_whom_it_says(world: World) -> None:
    channel = world.channel()
    world.publish_and_hear(channel, "kept")
    with (
        WebSocket.connect(world.url, {channel: 1}, headers={"X-User": "ann"}) as ann,
        WebSocket.connect(world.url, {channel: 1}, headers={"X-User": "bob"}) as bob,
    ):
        with telling(world, channel, "for ann", user_ids=["ann"]):
            assert set(hear(ann)) == {"for ann"}
        with telling(world, channel, "not for ann", exclude_client_ids=[ann.client_id]):
            assert set(hear(bob)) == {"not for ann"}
        world.publish(channel, "for all")
        assert ann.data(1) == bob.data(1) == ["for all"]
        assert {message["data"] for message in ann.transient} == {"for ann"}


def test_a_reader_that_takes_nothing_is_not_cut_off_for_it_and_gets_the_newest(world: World) -> None:
    """More than may wait for it is told meanwhile."""
    channel = world.channel()
    world.publish_and_hear(channel, "kept")
    with WebSocket.connect(world.url, {channel: 1}, receive_buffer=4096) as client:
        client.next_batch()
        for number in range(5):  # soon enough for its write_timeout
            told = [{"number": 100 * number + each, "filler": "x" * 16_000} for each in range(100)]
            world.publish(channel, *told, transient=True, key="a")
        numbers = [0]
        while numbers[-1] != 499:
            numbers.append(hear(client)[-1]["number"])
        assert numbers == sorted(numbers)
        assert len(numbers) < 450
        world.publish(channel, "kept too")
        assert client.data(1) == ["kept too"]
        assert client.connections == 1


@pytest.mark.parametrize(
    ("value", "code", "field"),
    [
        ({"transient": 1}, "bad_request", "transient"),
        ({"transient": True, "key": ""}, "bad_request", "key"),
        ({"transient": True, "data": "x" * 20_000}, "invalid_data", "transient"),
    ],
)
def test_what_a_page_may_not_tell_is_named(pages: World, value: dict[str, Any], code: str, field: str) -> None:
    body = json.dumps({"channel": pages.channel(), "data": 1, **value})
    with request(pages.url, "POST", "/message-bus/me/publish", body, {"Content-Type": "application/json"}) as response:
        error = json.loads(response.read())["error"]
        assert (error["code"], error["field"]) == (code, field)


def test_a_page_tells_the_others_over_a_websocket_and_by_a_request(pages: World) -> None:
    channel = pages.channel()
    pages.publish_and_hear(channel, "kept")
    with WebSocket.connect(pages.url, {channel: 1}) as ann, WebSocket.connect(pages.url, {channel: 1}) as bob:
        ann.next_batch()
        value = {"channel": channel, "data": "typing", "transient": True, "key": "ann"}
        bob.send({"publish": value, "id": 1})
        assert bob.answer() == {"id": 1, "ok": {"message_id": None}}
        assert hear(ann) == ["typing"]
        headers = {"Content-Type": "application/json"}
        with request(pages.url, "POST", "/message-bus/me/publish", json.dumps(value), headers) as response:
            assert json.loads(response.read()) == {"ok": {"message_id": None}}
        assert hear(ann) == ["typing"]
        pages.publish(channel, "kept too")
        assert ann.messages(1)[0]["message_id"] == 2
