"""PostgreSQL that is restarted, hangs, refuses, or comes up later."""

from __future__ import annotations

import logging
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from messagebus import Bus
from messagebus.errors import BackendUnavailable
from messagebus.message import Ids
from messagebus.options import Options
from messagebus.publishing.publish_queue import PublishQueue
from messagebus.stores.postgres import PostgresStore
from messagebus.stores.postgres_connection import connect, connection_arguments
from tests.eventually import eventually
from tests.postgres_server import PASSWORD, PostgresServer
from tests.queued import publish as queued
from tests.recorder import Recorder
from tests.store_helpers import listen, publish

from .conftest import OpenPostgres

pytestmark = pytest.mark.postgres


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT, signal.SIGKILL], ids=lambda how: str(how.name))
def test_the_server_is_restarted_while_publishers_and_feed_go_on(
    mortal_postgres: PostgresServer, open_postgres: OpenPostgres, caplog: pytest.LogCaptureFixture, how: signal.Signals
) -> None:
    caplog.set_level(logging.INFO, "messagebus")
    store = open_postgres(mortal_postgres.url, max_global_backlog_size=10_000)
    queue = PublishQueue(store, 100_000)
    recorder = listen(store)
    end = threading.Event()
    published: list[int] = [0] * 4

    def work(publisher: int) -> None:
        while not end.wait(0.005):
            queued(queue, published[publisher], f"/{publisher}")
            published[publisher] += 1

    threads = [threading.Thread(target=work, args=(publisher,)) for publisher in range(4)]
    for thread in threads:
        thread.start()
    try:
        eventually(lambda: len(recorder.messages) > 20)
        if how == signal.SIGKILL:
            mortal_postgres.kill()
        else:
            mortal_postgres.end(how)
        eventually(lambda: len(queue) > 20 and recorder.told("healthy") == [False])
        mortal_postgres.start()
        eventually(lambda: not len(queue))
    finally:
        end.set()
        for thread in threads:
            thread.join()
    eventually(lambda: len(recorder.messages) == sum(published))
    assert recorder.ids == list(range(1, store.state().global_id + 1))
    for publisher, count in enumerate(published):
        mine = [message.data for message in recorder.messages if message.channel == f"/{publisher}"]
        assert mine == list(range(count))
    assert recorder.told("resync") == []
    eventually(lambda: recorder.told("healthy") == [False, True])
    assert PASSWORD not in caplog.text
    feed_log = [record.levelname for record in caplog.records if "feed from" in record.message]
    assert feed_log == ["WARNING", "WARNING"]
    queue.close(1)


def test_a_feed_begins_when_the_server_comes_up_later(open_postgres: OpenPostgres) -> None:
    server = PostgresServer()
    try:
        store = open_postgres(server.url)
        recorder = Recorder()
        store.listen(recorder)
        eventually(lambda: recorder.told("healthy") == [False])
        server.start()
        eventually(lambda: recorder.events[1:] == [("started", store.state()), ("healthy", True)])
    finally:
        server.stop()


def test_a_server_that_turned_read_only_makes_publishes_wait_until_it_takes_them(
    mortal_postgres: PostgresServer, open_postgres: OpenPostgres
) -> None:
    store = open_postgres(mortal_postgres.url)
    queue = PublishQueue(store, 10)
    recorder = listen(store)
    assert queued(queue, 1) == Ids(1, 1)
    with mortal_postgres.client() as client:

        def set_read_only(value: str) -> None:
            client.execute(f"ALTER SYSTEM SET default_transaction_read_only = {value}")
            client.execute("SELECT pg_reload_conf()")

        def refused() -> bool:
            try:
                store.reset()  # which does no harm while it is not refused yet
            except BackendUnavailable as error:
                return "read-only" in str(error)
            return False

        set_read_only("on")
        eventually(lambda: client.execute("SHOW default_transaction_read_only").fetchone() == ("on",))
        eventually(refused)
        with pytest.raises(BackendUnavailable, match="read-only"):
            publish(store, "/a", 0)
        assert queued(queue, 2) is None
        assert queued(queue, 3) is None
        client.execute("SET default_transaction_read_only = off")
        set_read_only("off")
    eventually(lambda: recorder.data == [1, 2, 3])
    queue.close(1)


def test_too_many_connections_are_an_outage(open_postgres: OpenPostgres) -> None:
    server = PostgresServer()
    try:
        server.start("max_connections=2", "superuser_reserved_connections=0")
        store = open_postgres(server.url)
        publish(store, "/a", 1)
        with server.client(), pytest.raises(BackendUnavailable, match="too many"):
            check_all_at_once(store)

        def is_back() -> bool:
            try:
                return publish(store, "/a", 3).message_id >= 2
            except BackendUnavailable:  # the server takes a moment to see that others have gone
                return False

        eventually(is_back)
    finally:
        server.stop()


def check_all_at_once(store: PostgresStore) -> None:
    """Makes the backend want several connections at the same time."""
    with ThreadPoolExecutor(4) as executor:
        list(executor.map(lambda number: publish(store, "/b", number), range(100)))


def test_a_server_that_hangs_is_noticed_by_the_feed_and_by_publishers(
    mortal_postgres: PostgresServer, open_postgres: OpenPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("messagebus.stores.postgres_feed.QUIET", 0.2)
    store = PostgresStore(Options(url=mortal_postgres.url, store_timeout=0.3))
    recorder = listen(store)
    publish(store, "/a", 0)
    pids = [pid for pid in mortal_postgres.pids() if pid != os.getpid()]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(BackendUnavailable, match="no answer within"):
            publish(store, "/a", -1)
        eventually(lambda: recorder.told("healthy") == [False])
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
    eventually(lambda: recorder.told("healthy") == [False, True])
    publish(store, "/b", 1)
    eventually(lambda: [message.data for message in recorder.messages if message.channel == "/b"] == [1])
    store.close()


# --- statements that wait in the server ---


def connections(client: Any) -> int:
    row = client.execute("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'messagebus'").fetchone()
    return int(row[0])


def waiting_statements(client: Any) -> int:
    row = client.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'messagebus' AND state = 'active'"
        " AND (wait_event_type = 'Lock' OR wait_event = 'SyncRep')"
    ).fetchone()
    return int(row[0])


def publish_while(bus: Bus, seconds: float) -> None:
    """Twelve messages from four threads, none of which waits for what only happens afterwards."""

    def work(first: int) -> None:
        for number in range(first, first + 3):
            bus.publish("/a", number)

    threads = [threading.Thread(target=work, args=(first,)) for first in range(0, 12, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    threading.Event().wait(seconds)


def test_publishes_behind_a_lock_are_ended_at_the_server_and_stored_once(mortal_postgres: PostgresServer) -> None:
    bus = Bus(url=mortal_postgres.url, store_timeout=0.5)
    bus.publish("/warm", 0)
    with mortal_postgres.client() as client, mortal_postgres.client() as other:
        with client.transaction():
            client.execute("LOCK TABLE messagebus_state IN ACCESS EXCLUSIVE MODE")
            publish_while(bus, 2.0)
            assert connections(other) <= 8
        eventually(lambda: not len(bus._publisher_now().queue))
        assert sorted(message.data for message in bus.backlog("/a")) == list(range(12))
        for first in range(0, 12, 3):
            mine = [message.data for message in bus.backlog("/a") if first <= message.data < first + 3]
            assert mine == sorted(mine)
        eventually(lambda: waiting_statements(other) == 0)
    bus.close()


def test_publishes_that_wait_for_a_standby_that_is_gone_are_ended_and_stored_once(
    mortal_postgres: PostgresServer,
) -> None:
    bus = Bus(url=mortal_postgres.url, store_timeout=0.5)
    bus.publish("/warm", 0)
    with mortal_postgres.client() as client:

        def set_standby(name: str) -> None:
            client.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{name}'")
            client.execute("SELECT pg_reload_conf()")
            eventually(lambda: client.execute("SHOW synchronous_standby_names").fetchone() == (name,))

        client.execute("SET synchronous_commit = local")
        set_standby("nobody")
        publish_while(bus, 1.0)
        assert connections(client) <= 9
        set_standby("")
        eventually(lambda: not len(bus._publisher_now().queue))
        assert sorted(message.data for message in bus.backlog("/a")) == list(range(12))
        eventually(lambda: waiting_statements(client) == 0)
    bus.close()


def test_a_limit_for_statements_that_the_role_has_already_is_not_raised(
    postgres_url: str, postgres_server: PostgresServer
) -> None:
    def limit(parameters: str = "") -> str:
        with connect(connection_arguments(postgres_url + parameters, 5.0), 5.0) as connection:
            row = connection.execute("SHOW statement_timeout").fetchone()
            assert row is not None
            return str(row[0])

    assert limit() == "4s"
    assert limit("?options=-cstatement_timeout%3D100") == "100ms"
    assert limit("?options=-cstatement_timeout%3D1min") == "4s"
