"""What the tests in a browser share: two servers for all of them, and tabs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import pytest
from playwright.sync_api import BrowserContext

from tests.redis_server import RedisServer
from tests.servers import Server

from .tab import APP, Tab


@pytest.fixture(scope="package")
def browsers_redis() -> Iterator[RedisServer]:
    """A Redis of these tests alone: no other test empties it while a page listens."""
    server = RedisServer()
    try:
        yield server.start()
    finally:
        server.stop()


@pytest.fixture(scope="package")
def flask_server() -> Iterator[Server]:
    """Flask's development server, with the store in its memory."""
    with Server("flask", APP) as server:
        yield server


@pytest.fixture(scope="package")
def redis_backed_server(browsers_redis: RedisServer) -> Iterator[Server]:
    """``messagebus serve`` on Redis, with two workers: a page's requests go to either."""
    with Server("serve", APP, env={"MESSAGEBUS_URL": browsers_redis.url}, workers=2) as server:
        yield server


@pytest.fixture(params=["flask", "serve"])
def server(request: pytest.FixtureRequest) -> Server:
    """Each of the two in turn; not to be stopped."""
    fixture = {"flask": "flask_server", "serve": "redis_backed_server"}[request.param]
    running: Server = request.getfixturevalue(fixture)
    return running


class NewTab(Protocol):
    def __call__(self, url: str, *channels: str) -> Tab: ...


@pytest.fixture
def new_tab(context: BrowserContext) -> NewTab:
    """``new_tab(url, channel, ...)``: a tab in the test's own profile, not yet loaded."""
    return lambda url, *channels: Tab(context.new_page(), url, *channels)
