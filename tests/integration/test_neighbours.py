"""Other extensions of Flask beside the bus, on real servers."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import psycopg
import pytest

from messagebus import Bus
from messagebus import Client as BusClient
from messagebus.client import transport_selector
from tests.clients import FORM, EventSource, LongPolling, Streaming, WebSocket, request
from tests.eventually import eventually
from tests.fixtures_servers import ServeApp
from tests.servers import Server

CODINGS = {"Accept-Encoding": "gzip, br, zstd"}
ROOT = Path(__file__).resolve().parent.parent.parent


# --- Flask-Compress ---


def long_poll(server: Server, position: int) -> tuple[str | None, list[object]]:
    """How the answer was compressed, and the data in it."""
    headers = {"Accept-Encoding": "gzip", "Content-Type": FORM, "Dont-Chunk": "true"}
    with request(server.url, "POST", "/message-bus/somebody/poll", f"/a={position}", headers) as response:
        assert response.status == 200
        coding = response.getheader("Content-Encoding")
        body = response.read()
        batch = json.loads(gzip.decompress(body) if coding == "gzip" else body)
        return coding, [message["data"] for message in batch if message["channel"] == "/a"]


@pytest.mark.redis
@pytest.mark.parametrize("kind", ["serve", "flask", "gunicorn-gthread", "waitress"])
def test_messages_arrive_at_once_where_answers_are_compressed(serve_app: ServeApp, redis_url: str, kind: str) -> None:
    server = serve_app(kind, "tests.apps.neighbours:compressed", env={"MESSAGEBUS_URL": redis_url})
    old = [f"an old message, number {number}" for number in range(50)]
    with contextlib.closing(Bus(url=redis_url)) as bus, contextlib.ExitStack() as stack:
        for data in old:
            bus.publish("/a", data)
        eventually(lambda: long_poll(server, 0) == ("gzip", old))  # when its feed has heard them all
        later = threading.Timer(0.3, bus.publish, ("/a", "held"))
        later.start()
        assert long_poll(server, 50) == (None, ["held"])
        later.join()
        transports = (Streaming, EventSource) if kind == "waitress" else (Streaming, EventSource, WebSocket)
        clients = [
            stack.enter_context(transport.connect(server.url, {"/a": 0}, headers=CODINGS)) for transport in transports
        ]
        for client in clients:
            assert client.data(51) == [*old, "held"]
        for number in range(3):
            bus.publish("/a", number)
            for client in clients:
                assert client.data(1) == [number]


# --- Flask-Limiter ---


@pytest.mark.redis
def test_a_client_that_a_limit_refuses_does_not_ask_again_and_again_and_misses_nothing(
    serve_app: ServeApp, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport_selector, "LEAST_AFTER_429", 0.5)  # not 15 s: the server's Retry-After is 2
    server = serve_app("flask", "tests.apps.neighbours:limited", env={"MESSAGEBUS_URL": redis_url})
    data: list[int] = []
    client = BusClient(server.url, transports=("long-polling",))
    client.subscribe("/a", lambda message: data.append(message.data), last_id=0)
    with contextlib.closing(Bus(url=redis_url)) as bus, client:
        pause = threading.Event()
        for number in range(40):
            bus.publish("/a", number)
            pause.wait(0.1)
        eventually(lambda: data == list(range(40)))
    polls = server.output().count("/poll")
    refused = server.output().count('" 429')
    assert 0 < refused <= polls < 40, (refused, polls)


# --- Flask-Migrate ---


def flask_db(*arguments: str, cwd: Path, **env: str) -> str:
    command = [sys.executable, "-W", "ignore", "-m", "flask", "--app", "tests.apps.neighbours:migrated", "db"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **env}
    result = subprocess.run(
        [*command, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stderr


@pytest.mark.postgres
@pytest.mark.parametrize("way", ["seen", "by hand", "schema", "unfiltered"])
def test_migrations_leave_the_tables_of_the_bus_alone(postgres_url: str, tmp_path: Path, way: str) -> None:
    url = postgres_url
    if way == "schema":
        with psycopg.connect(postgres_url, autocommit=True) as connection:
            connection.execute("DROP SCHEMA IF EXISTS bus CASCADE")
            connection.execute("CREATE SCHEMA bus")
        url += "?options=-csearch_path%3Dbus"
    with contextlib.closing(Bus(url=url)) as bus:
        bus.publish("/a", 1)
        env = {
            "TEST_DATABASE": postgres_url.replace("postgresql:", "postgresql+psycopg:"),
            "TEST_MIGRATE": "unfiltered" if way == "schema" else way,
            "MESSAGEBUS_URL": url,
        }
        flask_db("init", cwd=tmp_path, **env)
        said = flask_db("migrate", "-m", "first", cwd=tmp_path, **env)
        assert "Detected added table 'thing'" in said
        # That nothing is found is shown by what is found otherwise.
        assert ("Detected removed table 'messagebus_messages'" in said) is (way == "unfiltered")
        [version] = (tmp_path / "migrations" / "versions").glob("*.py")
        upgrade = version.read_text().partition("def downgrade")[0]
        assert ("messagebus" in upgrade) is (way == "unfiltered")
        if way == "seen":
            flask_db("upgrade", cwd=tmp_path, **env)
            assert [message.data for message in bus.backlog("/a")] == [1]


# --- Flask-SQLAlchemy ---


@pytest.mark.parametrize("way", ["teardown_appcontext", "call_on_close"])
@pytest.mark.parametrize("kind", ["serve", "flask", "gunicorn-gthread"])
def test_waiting_pages_keep_no_connection_of_the_database(
    serve_app: ServeApp, tmp_path: Path, kind: str, way: str
) -> None:
    env = {"TEST_DATABASE": f"sqlite:///{tmp_path}/database", "TEST_SESSION": way}
    server = serve_app(kind, "tests.apps.one_connection:app", env=env)

    def ask_the_database() -> None:
        for _ in range(4):
            status, body = server.get("/database")
            assert status == 200, body
            assert json.loads(body) == {"found": 5, "checked_out": 1}

    ask_the_database()
    for _ in range(2):
        with contextlib.ExitStack() as stack:
            for number in range(3):
                positions = {f"/private/{number}": -1}
                stack.enter_context(LongPolling.connect(server.url, positions))
                stack.enter_context(EventSource.connect(server.url, positions)).status()
                websocket = stack.enter_context(WebSocket.connect(server.url, positions))
                websocket.status()
                assert "ok" in websocket.ask({"subscribe": {f"/private/more-{number}": -1}})
                ask_the_database()
        ask_the_database()
