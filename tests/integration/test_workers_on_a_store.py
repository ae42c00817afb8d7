"""Several workers on one store that answer for each other."""

from __future__ import annotations

import contextlib
import http.client
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from messagebus import Bus
from messagebus.client import Client, Refusal
from tests.clients import EventSource
from tests.eventually import eventually
from tests.servers import Server

KEY = "publisher-key-0123456789"
SETTINGS = {
    "MESSAGEBUS_HTTP_PUBLISHING": "1",
    "MESSAGEBUS_PUBLISHER_KEYS": KEY,
    "MESSAGEBUS_STATISTICS": "1",
    "MESSAGEBUS_ADMIN_KEYS": KEY,
}


@pytest.fixture(
    params=[
        "sqlite",
        pytest.param("redis", marks=pytest.mark.redis),
        pytest.param("postgres", marks=pytest.mark.postgres),
    ]
)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/bus.db"
    found: str = request.getfixturevalue(f"{request.param}_url")
    return found


@pytest.fixture
def servers(url: str) -> Iterator[list[Server]]:
    """Two servers of one process each."""
    with contextlib.ExitStack() as stack:
        env = {**SETTINGS, "MESSAGEBUS_URL": url}
        yield [stack.enter_context(Server("serve", env=env)) for _ in range(2)]


def ask(server: Server, method: str, place: str = "channels/chat") -> dict[str, Any]:
    connection = http.client.HTTPConnection(server.host, server.port, timeout=30)
    with contextlib.closing(connection):
        connection.request(
            method,
            f"/message-bus/{place}",
            body="1" if method == "POST" else None,
            headers={"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"},
        )
        found: dict[str, Any] = json.loads(connection.getresponse().read())
        return found


def bus_stats(server: Server) -> dict[str, Any]:
    return ask(server, "GET", "stats")


def test_a_report_counts_the_subscribers_of_every_worker_and_a_deleted_channel_is_forgotten_by_all(
    url: str, servers: list[Server]
) -> None:
    with contextlib.ExitStack() as stack:
        bus = stack.enter_context(contextlib.closing(Bus(url=url)))
        for number in range(3):
            bus.publish("/chat", number)
        readers = [
            stack.enter_context(EventSource.connect(server.url, {"/chat": 0})) for server in (*servers, servers[0])
        ]
        for reader in readers:
            assert reader.data(3) == [0, 1, 2]
        for server in servers:
            eventually(lambda server=server: ask(server, "GET")["subscribers"] == 3)  # type: ignore[misc]
            assert ask(server, "GET")["last_requested"] is not None
        eventually(lambda: bus_stats(servers[0])["subscribers"] == 3)
        stats = bus_stats(servers[0])
        assert stats["by_transport"] == {"eventsource": 3}
        assert sorted(worker["subscribers"] for worker in stats["by_worker"]) == [1, 2]
        assert (stats["delivered"], stats["catch_ups"], stats["published_messages"]) == (9, 3, 3)
        assert ask(servers[0], "DELETE")["stored_messages"] == 0
        bus.publish("/chat", 3)
        for reader in readers:
            assert reader.data(1) == [3]

        # What one process has sent, any other can tell.
        for reader in readers:
            findings = ask(servers[0], "GET", f"why?channel=/chat&id=4&client={reader.client_id}")["findings"]
            assert (findings[0]["code"], "eventsource" in findings[0]["text"]) == ("sent", True), findings

        def has_forgotten(server: Server) -> bool:
            """Also what it had in memory, for those who come next."""
            with EventSource.connect(server.url, {"/chat": 0}) as late:
                return late.data(1) == [3]

        for server in servers:
            eventually(lambda server=server: has_forgotten(server))  # type: ignore[misc]
        bus.forget("/chat")
        assert bus.backlog("/chat") == []
        assert bus.last_id("/chat") == 4


def test_clients_are_disconnected_and_unsubscribed_by_any_process_and_stay_away(
    url: str, servers: list[Server]
) -> None:
    with contextlib.ExitStack() as stack:
        bus = stack.enter_context(contextlib.closing(Bus(url=url)))
        refused: list[Refusal] = []
        heard: list[tuple[int, str, Any]] = []
        for number, server in enumerate(servers):
            client = Client(server.url, client_id=f"client-{number}", on_refused=refused.append)
            for channel in ("/one", "/two"):
                client.subscribe(
                    channel,
                    lambda message, number=number: heard.append((number, message.channel, message.data)),
                    0,
                )
            client.start()
            stack.callback(client.stop)
        for channel in ("/one", "/two"):
            bus.publish(channel, 1)
        eventually(lambda: len(heard) == 4, timeout=20)
        bus.unsubscribe("/one", client_ids=["client-0"])
        bus.disconnect(client_ids=["client-1"], reason="logged out")
        eventually(lambda: len(refused) == 3, timeout=20)
        assert {(refusal.channel, refusal.code, refusal.message) for refusal in refused} == {
            ("/one", "unsubscribed", "unsubscribed by the application"),
            ("/one", "disconnected", "logged out"),
            ("/two", "disconnected", "logged out"),
        }
        for channel in ("/one", "/two"):
            bus.publish(channel, 2)
        eventually(lambda: (0, "/two", 2) in heard, timeout=20)
        assert [data for _, _, data in heard].count(2) == 1
