"""A channel whose messages were deleted carries transient ones on, in every worker and over each held transport."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from ..clients import Client, EventSource, LongPolling, Streaming, WebSocket, request
from ..fixtures_servers import ServeApp
from ..serve_helpers import alone
from ..servers import Server

BATCHES = 20
"""Long polls are answered with something else now and then."""


def ask(server: Server, method: str, query: str = "", body: str | None = None) -> None:
    with request(server.url, method, f"/message-bus/channels/chat{query}", body) as response:
        assert response.status < 300


@pytest.mark.parametrize("transport", [EventSource, LongPolling, Streaming, WebSocket], ids=lambda each: each.transport)
def test_who_follows_it_gets_transient_messages_and_then_the_next_one_that_is_kept(
    serve_app: ServeApp, tmp_path: Path, transport: type[Client]
) -> None:
    server = alone(serve_app, "--url", f"sqlite:///{tmp_path}/bus.db", "--workers", "2", "--allow-anonymous-publish")
    ask(server, "POST", body="one")
    heard = threading.Event()

    def tell() -> None:
        while not heard.wait(0.05):  # who is between two polls misses it
            ask(server, "POST", "?transient=1", "typing")

    with transport.connect(server.url, {"/chat": 0}) as client:
        assert client.data(1) == ["one"]
        ask(server, "DELETE")
        telling = threading.Thread(target=tell)
        telling.start()
        try:
            for _ in range(BATCHES):
                if not client.transient:
                    client.next_batch()
        finally:
            heard.set()
            telling.join()
        assert {(m["message_id"], m["data"]) for m in client.transient} == {(1, "typing")}
        ask(server, "POST", body="two")
        assert [(m["message_id"], m["data"]) for m in client.messages(1)] == [(2, "two")]
        assert client.gaps == []
