"""PostgreSQL with less than was said of it: put back from an older copy, tables that were dropped or emptied."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from messagebus.message import Ids
from messagebus.stores import BacklogQuery, StoreState
from tests.eventually import eventually
from tests.postgres_server import AS_USER, PostgresServer
from tests.store_helpers import listen, publish

from .conftest import OpenPostgres

pytestmark = pytest.mark.postgres


@pytest.mark.parametrize("published", [0, 3, 30], ids="{} messages later".format)
def test_a_server_put_back_from_an_older_copy_is_given_another_epoch_wherever_its_ids_are(
    mortal_postgres: PostgresServer, open_postgres: OpenPostgres, published: int
) -> None:
    server = mortal_postgres
    store, other = open_postgres(server.url), open_postgres(server.url)
    for number in range(20):
        publish(store, f"/{number % 2}", number)
    server.end()
    copy = server.directory / "copy"
    subprocess.run(["cp", "-r", str(server.data), str(copy)], check=True, **AS_USER)
    server.start()
    recorders = [listen(store), listen(other)]
    for number in range(20, 30):
        publish(store, f"/{number % 2}", number)
    for recorder in recorders:
        eventually(lambda recorder=recorder: len(recorder.messages) == 10)  # type: ignore[misc]
    epoch = store.state().epoch
    server.kill()
    shutil.rmtree(server.data)
    copy.rename(server.data)
    server.start("listen_addresses=")
    publisher = open_postgres(server.unix_url)
    for number in range(published):  # before any feed is back
        publish(publisher, f"/{number % 2}", 100 + number)
    server.end()
    server.start()
    for recorder in recorders:
        eventually(lambda recorder=recorder: recorder.told("resync"))  # type: ignore[misc]
    [state] = recorders[0].told("resync")
    assert recorders[1].told("resync") == [state] == [store.state()]
    assert store.state().epoch != epoch
    publish(store, "/0", 7)
    for recorder in recorders:
        eventually(lambda recorder=recorder: recorder.data[-1] == 7)  # type: ignore[misc]
        assert recorder.told("resync") == [state]


def test_dropped_tables_are_made_again_and_every_feed_notices(
    postgres_url: str, postgres_server: PostgresServer, open_postgres: OpenPostgres
) -> None:
    store = open_postgres(postgres_url)
    recorder = listen(store)
    for number in range(5):
        publish(store, "/a", number)
    eventually(lambda: len(recorder.messages) == 5)
    epoch = store.state().epoch
    with postgres_server.client() as client:
        client.execute(
            "DROP TABLE messagebus_state, messagebus_channels, messagebus_messages, messagebus_forgotten CASCADE"
        )
    assert [publish(store, "/a", number) for number in (5, 6)] == [Ids(1, 1), Ids(2, 2)]
    eventually(lambda: recorder.data == list(range(7)))
    [state] = recorder.told("resync")
    assert isinstance(state, StoreState)
    assert state.epoch == store.state().epoch != epoch


@pytest.mark.parametrize("table", ["state", "channels", "forgotten"])
def test_deleted_rows_are_made_again_from_the_messages(
    postgres_url: str, postgres_server: PostgresServer, open_postgres: OpenPostgres, table: str
) -> None:
    store = open_postgres(postgres_url)
    recorder = listen(store)
    for number in range(5):
        publish(store, "/a", number)
    eventually(lambda: len(recorder.messages) == 5)
    with postgres_server.client() as client:
        client.execute(f"DELETE FROM messagebus_{table}")
    assert publish(store, "/a", 5) == Ids(6, 6)
    [page] = store.backlogs([BacklogQuery("/a", 0)], 1 << 20)
    assert [message.data for message in page.messages] == list(range(6))
    if table == "state":
        eventually(lambda: recorder.told("resync") == [store.state()])
    else:
        eventually(lambda: recorder.data == list(range(6)))
        assert recorder.told("resync") == []
