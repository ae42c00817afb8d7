"""Feeds of the PostgreSQL store that hear only some channels: buckets, markers, and messages too long for NOTIFY."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest

from messagebus.message import Message, encode_envelope
from messagebus.stores import Publication, Store
from messagebus.stores.postgres_feed import BUCKETS, bucket_of
from tests.eventually import eventually
from tests.interested import Interested
from tests.store_helpers import LIMITS, listen, publish

from .conftest import OpenPostgres

pytestmark = pytest.mark.postgres
SAME = next(name for name in map("/{}".format, range(100_000)) if bucket_of(name) == bucket_of("/a"))
"""The name of a channel that is in one bucket with ``/a``."""


@pytest.fixture
def store(postgres_url: str, open_postgres: OpenPostgres) -> Store:
    return open_postgres(postgres_url)


def test_messages_of_any_length_come_in_order_and_those_of_strangers_in_the_same_bucket_do_not(store: Store) -> None:
    recorder = Interested(store, "/a", "/|pipe")
    all_of_them = listen(store)
    long = "é" * 5000
    for number in range(5):
        publish(store, "/a", number)
        store.publish(SAME, encode_envelope(f'"{long}"'.encode()), **LIMITS)
        publish(store, SAME, number)
        store.publish("/|pipe", encode_envelope(f'"{long}"'.encode()), **LIMITS)
    recorder.catch_up()
    assert recorder.data == [each for number in range(5) for each in (number, long)]
    eventually(lambda: len(all_of_them.messages) == 20)
    recorder.want(SAME)
    publish(store, SAME, 5)
    recorder.catch_up()
    recorder.let_go(SAME)
    publish(store, SAME, 6)
    publish(store, "/a", 7)
    recorder.catch_up()
    assert recorder.data[-2:] == [5, 7]
    assert recorder.told("resync") == recorder.told("healthy") == []


def test_a_long_message_that_its_channel_no_longer_keeps_is_said_to_be_lost(store: Store) -> None:
    recorder = Interested(store, "/a")
    publish(store, "/a", 0)
    recorder.catch_up()
    large, small = encode_envelope(b'"' + b"x" * 10_000 + b'"'), encode_envelope(b"1")
    # One transaction: the first is gone when the feed hears of it.
    store.publish_many([Publication("/a", envelope, 1, 1000) for envelope in (large, small)])
    eventually(lambda: recorder.told("resync"))
    publish(store, "/a", 2)
    eventually(lambda: recorder.data[-1] == 2)
    assert recorder.told("healthy") == []


def test_names_in_all_buckets_are_heard_and_let_go_again(store: Store) -> None:
    recorder = Interested(store)
    names = [f"/many/{number}" for number in range(4 * BUCKETS)]
    recorder.want(*names)
    assert {bucket_of(name) for name in names} == set(range(BUCKETS))
    store.publish_many([Publication(name, encode_envelope(b"1"), 1000, 1000) for name in names[:1000]])
    recorder.catch_up()
    assert [message.name for message in recorder.messages] == names[:1000]
    for name in names[1:]:
        recorder.wanted.pop(name)
        recorder.interest.changed(name)
    recorder.catch_up()
    publish(store, names[5], 2)
    publish(store, names[0], 3)
    recorder.catch_up()
    assert recorder.data[1000:] == [3]


class Checked(Interested):
    """Notes, for each time that a name is wanted, the ids that came."""

    def __init__(self, store: Store, *names: str) -> None:
        self.of_name: dict[str, list[int]] = {}
        super().__init__(store, *names)

    def received(self, messages: Sequence[Message]) -> None:
        super().received(messages)
        for message in messages:
            self.of_name.setdefault(message.name, []).append(message.message_id)


def test_names_that_come_and_go_while_others_publish_have_no_hole_between(store: Store) -> None:
    recorder = Checked(store, "/steady")
    stop = threading.Event()

    def publish_all() -> None:
        while not stop.is_set():
            store.publish_many(
                [Publication(name, encode_envelope(b"1"), 1000, 1000) for name in ("/a", SAME, "/steady")]
            )

    publishing = threading.Thread(target=publish_all)
    publishing.start()
    try:
        for _ in range(15):
            for name in ("/a", SAME):
                recorder.of_name.pop(name, None)
                recorder.want(name)
            eventually(lambda: all(len(recorder.of_name.get(name, [])) > 3 for name in ("/a", SAME)))
            for name in ("/a", SAME):
                recorder.let_go(name)
                came = recorder.of_name[name]
                assert came == list(range(came[0], came[0] + len(came)))
    finally:
        stop.set()
        publishing.join()
    recorder.catch_up()
    assert recorder.of_name["/steady"] == list(range(1, store.last_ids(["/steady"])[0] + 1))
    assert recorder.ids == sorted(recorder.ids)
    assert recorder.told("resync") == recorder.told("healthy") == []
