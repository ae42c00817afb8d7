"""What the judges share: the npm packages, servers, and pages with one client or the other."""

from __future__ import annotations

import itertools
import json
import subprocess
from collections.abc import Iterator
from typing import Protocol

import pytest
from playwright.sync_api import BrowserContext

from tests.redis_server import RedisServer
from tests.servers import ROOT, Server

from .listener import APP, CLIENTS, MODES, Listener

NODE_MODULES = ROOT / "node_modules"
_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def npm_packages() -> None:
    """The packages that package.json pins, as they come from npm."""
    pinned = json.loads((ROOT / "package.json").read_text())["devDependencies"]
    for name in ("message-bus-client", "jquery", "@rails/actioncable", "@anycable/web"):
        described = NODE_MODULES / name / "package.json"
        installed = json.loads(described.read_text())["version"] if described.exists() else "nothing"
        if installed != pinned[name]:
            pytest.fail(
                f"{NODE_MODULES} has {installed} of {name} where package.json asks for {pinned[name]}: run npm install"
            )


@pytest.fixture(scope="package")
def judges_redis() -> Iterator[RedisServer]:
    server = RedisServer()
    try:
        yield server.start()
    finally:
        server.stop()


@pytest.fixture(scope="package", params=["flask", "serve"])
def server(request: pytest.FixtureRequest, judges_redis: RedisServer) -> Iterator[Server]:
    """Flask's development server with its memory, then ``messagebus serve`` with two workers on Redis."""
    if request.param == "flask":
        running = Server("flask", APP)
    else:
        running = Server("serve", APP, env={"MESSAGEBUS_URL": judges_redis.url}, workers=2)
    with running:
        yield running


@pytest.fixture(params=CLIENTS)
def client(request: pytest.FixtureRequest) -> str:
    """Each client in turn."""
    name: str = request.param
    return name


@pytest.fixture(params=MODES)
def mode(request: pytest.FixtureRequest) -> str:
    """Each way of being served in turn."""
    name: str = request.param
    return name


@pytest.fixture(scope="session")
def cables(npm_packages: None) -> str:
    """Both clients as one script, built from their packages as they are."""
    text = 'import * as a from "@rails/actioncable"; import * as b from "@anycable/web";'
    text += "globalThis.ActionCable = a; globalThis.AnyCable = b;"
    command = [str(NODE_MODULES / ".bin/esbuild"), "--bundle", "--format=iife"]
    built = subprocess.run(command, input=text.encode(), check=True, capture_output=True, cwd=NODE_MODULES.parent)
    return built.stdout.decode()


@pytest.fixture
def room_id() -> str:
    """A room that no other test has."""
    return f"room-{next(_numbers)}"


class NewListener(Protocol):
    def __call__(self, client: str, mode: str) -> Listener: ...


@pytest.fixture
def new_listener(npm_packages: None, context: BrowserContext) -> NewListener:
    """``new_listener(client, mode)``: a page in the test's own profile, not yet loaded."""
    return lambda client, mode: Listener(context.new_page(), client, mode)


@pytest.fixture
def listener(new_listener: NewListener, client: str, mode: str) -> Listener:
    """One for each client and mode in turn."""
    return new_listener(client, mode)
