"""Every server with PostgreSQL as its store: one worker each, and the database restarted under it."""

from __future__ import annotations

import pytest

from ..clients import EventSource, LongPolling, WebSocket
from ..eventually import eventually
from ..fixtures_servers import ServeApp
from ..postgres_server import PostgresServer
from ..servers import SERVERS
from .test_servers import publish


@pytest.mark.parametrize("kind", [kind for kind in SERVERS if kind != "waitress"])
def test_every_server_delivers_from_postgres(serve_app: ServeApp, postgres_url: str, kind: str) -> None:
    server = serve_app(kind, env={"MESSAGEBUS_URL": postgres_url})
    publish(server, "/chat", "before")
    with WebSocket.connect(server.url, {"/chat": 0}) as socket, EventSource.connect(server.url, {"/chat": 0}) as events:
        assert socket.data(1) == events.data(1) == ["before"]
        publish(server, "/chat", "ü" * 10_000)
        assert socket.data(1) == events.data(1) == ["ü" * 10_000]
    with LongPolling.connect(server.url, {"/chat": 1}) as poll:
        assert poll.data(1) == ["ü" * 10_000]
    assert "Traceback" not in server.output()


@pytest.mark.parametrize("kind", ["gunicorn-gthread", "serve"])
def test_a_restarted_postgres_costs_subscribers_nothing(
    serve_app: ServeApp, mortal_postgres: PostgresServer, kind: str
) -> None:
    server = serve_app(kind, env={"MESSAGEBUS_URL": mortal_postgres.url, "MESSAGEBUS_STORE_TIMEOUT": "2"})
    with WebSocket.connect(server.url, {"/chat": 0}) as socket:
        publish(server, "/chat", 1)
        assert socket.data(1) == [1]
        mortal_postgres.end()
        assert publish(server, "/chat", 2) is None  # kept in memory
        mortal_postgres.start()
        assert socket.data(1) == [2]
        eventually(lambda: publish(server, "/chat", 3))
        assert socket.data(1) == [3]
