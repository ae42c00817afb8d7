"""PostgreSQL's feed: NOTIFY, its limit, and connections that the server ends."""

from __future__ import annotations

import pytest

from messagebus.message import Ids, encode_envelope
from messagebus.stores import Publication, StoreState
from tests.eventually import eventually
from tests.postgres_server import PostgresServer
from tests.store_helpers import LIMITS, listen, publish

from .conftest import OpenPostgres

pytestmark = pytest.mark.postgres


@pytest.mark.parametrize("size", [7_880, 7_890, 7_900, 7_910, 7_920, 8_000, 1_000_000])
def test_messages_around_and_over_the_limit_of_notify_arrive(
    postgres_url: str, open_postgres: OpenPostgres, size: int
) -> None:
    store = open_postgres(postgres_url)
    recorder = listen(store)
    text = "é" + "x" * size
    for number in range(3):
        publish(store, "/a", number)
        store.publish("/a", encode_envelope(f'"{text}"'.encode()), **LIMITS)
    eventually(lambda: len(recorder.messages) == 6)
    assert recorder.data == [0, text, 1, text, 2, text]
    assert recorder.told("healthy") == recorder.told("resync") == []


def test_every_size_on_either_side_of_the_limit_is_announced(postgres_url: str, open_postgres: OpenPostgres) -> None:
    store = open_postgres(postgres_url)
    recorder = listen(store)
    sizes = range(7_900, 8_010)
    store.publish_many([Publication("/a", encode_envelope(b'"' + b"x" * size + b'"'), 1000, 1000) for size in sizes])
    eventually(lambda: len(recorder.messages) == len(sizes))
    assert [len(str(data)) for data in recorder.data] == list(sizes)


def test_a_large_message_that_its_channel_no_longer_keeps_is_said_to_be_lost(
    postgres_url: str, open_postgres: OpenPostgres
) -> None:
    store = open_postgres(postgres_url)
    recorder = listen(store)
    large, small = encode_envelope(b'"' + b"x" * 10_000 + b'"'), encode_envelope(b"1")
    # One transaction: the first is gone when the feed hears of it.
    store.publish_many([Publication("/a", envelope, 1, 1000) for envelope in (large, small)])
    eventually(lambda: recorder.told("resync") == [StoreState(2, store.state().epoch)])
    publish(store, "/a", 2)
    eventually(lambda: recorder.data == [2])
    assert recorder.told("healthy") == []


def test_a_listener_that_the_server_ends_comes_back_and_misses_nothing(
    postgres_url: str, postgres_server: PostgresServer, open_postgres: OpenPostgres
) -> None:
    store = open_postgres(postgres_url)
    recorder = listen(store)
    with postgres_server.client() as client:
        for number in range(60):
            if number % 20 == 10:
                client.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'")
            publish(store, "/a", number)
    eventually(lambda: len(recorder.messages) == 60)
    assert recorder.data == list(range(60))
    assert recorder.told("resync") == []
    eventually(lambda: recorder.told("healthy")[-1:] == [True])


def test_connections_that_the_server_ended_while_idle_are_not_used_again(
    postgres_url: str, postgres_server: PostgresServer, open_postgres: OpenPostgres
) -> None:
    store = open_postgres(postgres_url)
    publish(store, "/a", 1)
    with postgres_server.client() as client:
        ended = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name = 'messagebus'"
        assert client.execute(ended).fetchall() == [(True,)]
    assert publish(store, "/a", 2) == Ids(2, 2)


def test_a_quiet_feed_stays_up_by_asking_now_and_then(
    postgres_url: str, postgres_server: PostgresServer, open_postgres: OpenPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("messagebus.stores.postgres_feed.QUIET", 0.02)
    store = open_postgres(postgres_url)
    recorder = listen(store)
    asked = "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT 1' AND application_name = 'messagebus'"
    with postgres_server.client() as client:
        eventually(lambda: client.execute(asked).fetchone() == (1,))
    for number in range(20):
        publish(store, "/a", number)
    eventually(lambda: len(recorder.messages) == 20)
    assert recorder.data == list(range(20))
    assert recorder.told("healthy") == []
