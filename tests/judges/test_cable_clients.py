"""The clients of ActionCable and AnyCable from npm, unmodified, in Chromium: they are who says what is right."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, Page

from tests.bad_network import BadNetwork
from tests.chromium import PageErrors
from tests.fixtures_servers import ServeApp
from tests.publishing import publish
from tests.redis_server import RedisServer
from tests.servers import Server

from .cable_pages import ACTIONCABLE, ANYCABLE, APP, BROKEN, enter, has_seen, received

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module", params=["serve", "gunicorn-gthread"])
def cable_server(request: pytest.FixtureRequest, judges_redis: RedisServer) -> Iterator[Server]:
    """``messagebus serve`` and gunicorn with threads, each with two workers on Redis."""
    with Server(request.param, APP, env={"MESSAGEBUS_URL": judges_redis.url}, workers=2) as server:
        yield server


@pytest.fixture
def network(cable_server: Server) -> Iterator[BadNetwork]:
    with BadNetwork(cable_server.port) as network:
        yield network


def enter_over(network: BadNetwork, page: Page, page_errors: PageErrors, cables: str, script: str, room: str) -> None:
    """Enter a room, on a connection that the test is going to cut."""
    page_errors.expect(BROKEN)
    enter(page, cables, script, network.url, room)
    has_seen(page, "connected")


@pytest.mark.parametrize("script", [ACTIONCABLE, ANYCABLE], ids=["actioncable", "anycable"])
def test_it_subscribes_performs_and_receives(
    page: Page, cables: str, cable_server: Server, room_id: str, script: str
) -> None:
    enter(page, cables, script, cable_server.url, room_id)
    has_seen(page, "connected")
    page.evaluate('room.perform("speak", {text: "hi"})')
    has_seen(page, "received", {"text": "hi", "from": "ann"})
    publish(cable_server.url, f"/rooms/{room_id}", "from elsewhere")
    has_seen(page, "received", "from elsewhere")
    page.evaluate('room.perform("fail")')
    page.evaluate('room.perform("speak", {text: "still here"})')
    has_seen(page, "received", {"text": "still here", "from": "ann"})
    assert len(received(page)) == 3


@pytest.mark.parametrize(("script", "kind"), [(ACTIONCABLE, "rejected"), (ANYCABLE, "closed")])
def test_it_is_rejected(
    page: Page, page_errors: PageErrors, cables: str, cable_server: Server, script: str, kind: str
) -> None:
    page_errors.expect("SubscriptionRejectedError")
    enter(page, cables, script, cable_server.url, "secret")
    has_seen(page, kind)
    assert "connected" not in str(page.evaluate("seen"))


def test_anycable_resumes_without_loss_when_its_connection_is_cut(
    page: Page, page_errors: PageErrors, cables: str, cable_server: Server, network: BadNetwork, room_id: str
) -> None:
    enter_over(network, page, page_errors, cables, ANYCABLE, room_id)
    publish(cable_server.url, f"/rooms/{room_id}", 1, 2)
    has_seen(page, "received", 2)
    for number in (3, 5):
        network.refuse()
        network.cut()
        publish(cable_server.url, f"/rooms/{room_id}", number, number + 1)
        network.refuse(False)
        has_seen(page, "received", number + 1)
    assert received(page) == [1, 2, 3, 4, 5, 6]
    assert "history_not_found" not in str(page.evaluate("seen"))


def test_anycable_whispers_to_the_others_and_sees_who_is_there(
    context: BrowserContext, cables: str, cable_server: Server, room_id: str
) -> None:
    ann, bob, eve = (context.new_page() for _ in range(3))
    for page, name in ((ann, "ann"), (bob, "bob")):
        enter(page, cables, ANYCABLE, cable_server.url, room_id, member=name)
        has_seen(page, "connected")
    ann.evaluate('room.whisper({typing: "ann"})')
    has_seen(bob, "received", {"typing": "ann"})
    # The rule of the server says who has joined, whatever a page says.
    bob.evaluate('room.presence.join("root", {name: "root"})')
    bob.wait_for_function('async () => Object.keys(await room.presence.info()).sort().join() === "ann,bob"')
    enter(eve, cables, ANYCABLE, cable_server.url, room_id, member="eve")
    has_seen(bob, "presence", "join", "eve")
    eve.close()
    has_seen(bob, "presence", "leave", "eve")
    assert bob.evaluate("async () => Object.keys(await room.presence.info()).sort()") == ["ann", "bob"]
    assert received(ann) == []


def test_anycable_is_told_where_there_is_no_presence(
    page: Page, page_errors: PageErrors, cables: str, cable_server: Server
) -> None:
    page_errors.expect("failed to retrieve presence")
    enter(page, cables, ANYCABLE, cable_server.url, "quiet")
    has_seen(page, "connected")
    told = page.evaluate("room.presence.info().then(() => 'there', (error) => error.message)")
    assert told == "failed to retrieve presence"
    has_seen(page, "presence", "error")


def test_anycable_resumes_on_a_stream_of_which_it_has_seen_nothing(
    page: Page, page_errors: PageErrors, cables: str, cable_server: Server, network: BadNetwork, room_id: str
) -> None:
    enter_over(network, page, page_errors, cables, ANYCABLE, room_id)
    network.refuse()
    network.cut()
    has_seen(page, "disconnected")
    publish(cable_server.url, f"/rooms/{room_id}", 1, 2)
    network.refuse(False)
    has_seen(page, "received", 2)
    assert received(page) == [1, 2]


def test_who_may_not_connect_is_refused_before_the_101(
    page: Page, page_errors: PageErrors, cables: str, cable_server: Server
) -> None:
    page_errors.expect(BROKEN)
    page.goto(f"{cable_server.url}/empty")
    page.add_script_tag(content=cables)
    told = page.evaluate(
        """(base) => new Promise((resolve) => {
          const socket = new WebSocket(base.replace("http", "ws") + "/cable?stranger=1", ["actioncable-v1-json"])
          socket.onopen = () => resolve("open")
          socket.onclose = (event) => resolve(event.code)
        })""",
        cable_server.url,
    )
    assert told == 1006


@pytest.mark.parametrize("kind", ["serve", "gunicorn-gthread", "gunicorn-gevent"])
def test_a_server_that_is_told_to_stop_unsubscribes_everybody_once(
    page: Page,
    page_errors: PageErrors,
    cables: str,
    serve_app: ServeApp,
    judges_redis: RedisServer,
    kind: str,
    tmp_path: Any,
) -> None:
    page_errors.expect(BROKEN)
    notes = tmp_path / "notes"
    server = serve_app(kind, APP, env={"MESSAGEBUS_URL": judges_redis.url, "NOTES": str(notes)}, workers=2)
    enter(page, cables, ACTIONCABLE, server.url, "a")
    has_seen(page, "connected")
    page.evaluate(ACTIONCABLE, {"id": "b", "base": server.url, "query": ""})
    has_seen(page, "connected")
    server.stop()
    assert sorted(notes.read_text().split("\n")) == [
        "",
        "subscribed a",
        "subscribed b",
        "unsubscribed a",
        "unsubscribed b",
    ]
