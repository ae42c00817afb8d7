"""What the tests of the Python client share: a server, a channel of its own for each, and what it received."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from messagebus import Client
from messagebus.client import ClientMessage
from messagebus.client.types import Transport
from tests import publishing
from tests.clients import request
from tests.servers import Server

APP = "tests.apps.contract:app"
TRANSPORTS: tuple[Transport, ...] = ("websocket", "eventsource", "streaming", "long-polling", "polling")
SECRET = "a secret for tests"
SETTINGS = {
    "MESSAGEBUS_CLIENT_PUBLISH": "/open-*",
    "MESSAGEBUS_PROTECTED_CHANNELS": "/protected-*",
    "MESSAGEBUS_SECRET_KEY": SECRET,
    "MESSAGEBUS_WILDCARD_SUBSCRIPTIONS": ",".join(f"/below-{transport}/*" for transport in TRANSPORTS),
}
QUICK: dict[str, Any] = {"callback_interval": 0.05}
"""Settings for a client that is not to wait."""

_numbers = itertools.count()


@pytest.fixture
def channel() -> str:
    """A channel that no other test has."""
    return f"/client-{next(_numbers)}"


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """Flask's development server, with the store in memory; clients may publish to /open-…."""
    with Server("flask", APP, env=SETTINGS) as running:
        yield running
        assert "Traceback" not in running.output(), running.output()[-5000:]


@pytest.fixture
def got() -> list[ClientMessage]:
    """For what a client receives."""
    return []


def publish(server: Server, channel: str, *data: Any, **options: Any) -> list[int]:
    """Their ids."""
    return publishing.publish(server.url, channel, *data, **options)


def reset(server: Server) -> None:
    """The store loses everything."""
    with request(server.url, "POST", "/reset") as response:
        assert response.status == 200, response.read()


def follows(client: Client, channel: str) -> Callable[[], bool]:
    """Whether the server has said where it begins."""
    return lambda: client.positions[channel] != -1
