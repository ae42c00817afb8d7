"""Channel classes with our own client, on servers with two workers: requests go to either."""

from __future__ import annotations

import itertools
import json
import os
import signal
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from playwright.sync_api import Page

from tests.bad_network import BadNetwork
from tests.chromium import PageErrors
from tests.eventually import eventually
from tests.publishing import publish
from tests.redis_server import RedisServer
from tests.servers import Server

from .tab import QUICK

pytestmark = pytest.mark.browser

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def classes(browsers_redis: RedisServer) -> Iterator[Server]:
    with Server("serve", "tests.apps.cable:app", env={"MESSAGEBUS_URL": browsers_redis.url}, workers=2) as server:
        yield server


@pytest.fixture(scope="module")
def short_grants(browsers_redis: RedisServer) -> Iterator[Server]:
    """Rooms that need the grants of their class, which last a second."""
    env = {"MESSAGEBUS_URL": browsers_redis.url, "MESSAGEBUS_PROTECTED_CHANNELS": "/rooms/*", "GRANT_SECONDS": "1"}
    with Server("serve", "tests.apps.cable:app", env=env, workers=2) as server:
        yield server


@pytest.fixture
def room() -> str:
    """One that no other test has."""
    return f"own-{next(_numbers)}"


def enter(page: Page, url: str, room: str, *transports: str) -> None:
    settings = {**QUICK, "transports": transports}
    page.goto(f"{url}/channel?id={room}&settings={quote(json.dumps(settings))}")


def has_seen(page: Page, kind: str, *data: Any) -> None:
    wanted = json.dumps([kind, *data], separators=(",", ":"))[:-1]
    page.wait_for_function("(wanted) => JSON.stringify(seen).includes(wanted)", arg=wanted)


def received(page: Page) -> list[Any]:
    found: list[Any] = page.evaluate('seen.filter(([kind]) => kind === "received").map(([, data]) => data)')
    return found


@pytest.mark.parametrize("transport", ["websocket", "streaming", "polling"])
def test_a_page_enters_performs_and_receives_on_every_transport(
    page: Page, page_errors: PageErrors, classes: Server, room: str, transport: str
) -> None:
    page_errors.expect("status of 400|status of 500")  # of the calls that are refused
    enter(page, classes.url, room, transport)
    has_seen(page, "connected")
    assert page.evaluate('room.perform("speak", {text: "hi"})') == {"ok": True}
    has_seen(page, "received", {"text": "hi", "from": "somebody"})
    publish(classes.url, f"/rooms/{room}", "from elsewhere")
    has_seen(page, "received", "from elsewhere")
    assert page.evaluate('room.perform("note", {}).catch(({code}) => code)') == "unknown_action"
    assert page.evaluate('room.perform("fail").catch(({code, message}) => code + message)').startswith("internal")
    assert len(received(page)) == 2


def test_a_page_is_rejected(page: Page, classes: Server, page_errors: PageErrors) -> None:
    page_errors.expect("403")
    enter(page, classes.url, "secret", "streaming")
    has_seen(page, "rejected")


def test_a_page_that_was_cut_off_misses_nothing(
    page: Page, page_errors: PageErrors, classes: Server, room: str
) -> None:
    page_errors.expect("ERR_|WebSocket")
    with BadNetwork(classes.port) as network:
        enter(page, network.url, room, "websocket")
        has_seen(page, "connected")
        publish(classes.url, f"/rooms/{room}", 1)
        has_seen(page, "received", 1)
        network.refuse()
        network.cut()
        has_seen(page, "disconnected")
        publish(classes.url, f"/rooms/{room}", 2, 3)
        network.refuse(False)
        has_seen(page, "received", 3)
        assert page.evaluate('room.perform("speak", {text: "back"})') == {"ok": True}
        has_seen(page, "received", {"text": "back", "from": "somebody"})
    assert received(page)[:3] == [1, 2, 3]


def test_a_page_enters_again_where_its_worker_has_died(
    page: Page, page_errors: PageErrors, classes: Server, room: str
) -> None:
    page_errors.expect("ERR_|WebSocket|410")
    enter(page, classes.url, room, "websocket")
    has_seen(page, "connected")
    for pid in classes.worker_pids():
        os.kill(pid, signal.SIGKILL)
    has_seen(page, "connected", {"reconnected": True})
    assert page.evaluate('room.perform("speak", {text: "again"})') == {"ok": True}
    has_seen(page, "received", {"text": "again", "from": "somebody"})


@pytest.mark.parametrize("transport", ["websocket", "polling"])
def test_a_page_whose_grant_runs_out_enters_again_and_misses_nothing(
    page: Page, page_errors: PageErrors, short_grants: Server, room: str, transport: str
) -> None:
    page_errors.expect("403|the server refused")
    enter(page, short_grants.url, room, transport)
    has_seen(page, "connected")
    publish(short_grants.url, f"/rooms/{room}", 1)
    has_seen(page, "received", 1)
    eventually(lambda: room in json.loads(short_grants.get("/left")[1]))  # it has left, to enter once more
    publish(short_grants.url, f"/rooms/{room}", 2)
    has_seen(page, "received", 2)
    assert page.evaluate('room.perform("speak", {text: "hi"})') == {"ok": True}
    has_seen(page, "received", {"text": "hi", "from": "somebody"})
    assert len(received(page)) == 3
    assert "rejected" not in str(page.evaluate("seen"))
