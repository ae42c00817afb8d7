"""The npm clients of ActionCable and AnyCable against two servers behind nginx, round robin, on one Redis."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import NamedTuple

import pytest
from playwright.sync_api import BrowserContext, Page

from tests.bad_network import BadNetwork
from tests.chromium import PageErrors
from tests.clients import request
from tests.eventually import eventually
from tests.nginx_server import Nginx
from tests.publishing import publish
from tests.redis_server import RedisServer
from tests.servers import Server

from .cable_pages import ACTIONCABLE, ANYCABLE, APP, BROKEN, enter, has_seen, received

pytestmark = [pytest.mark.browser, pytest.mark.redis]

NAMES = ("east", "west")
GRACE = 1.0


class Site(NamedTuple):
    url: str
    """nginx's."""
    networks: dict[str, BadNetwork]
    """Between nginx and each instance."""
    servers: dict[str, Server]


@pytest.fixture(scope="module", params=["serve", "gunicorn-gthread"])
def site(
    request: pytest.FixtureRequest, judges_redis: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    env = {"MESSAGEBUS_URL": judges_redis.url, "MESSAGEBUS_PRESENCE_GRACE": str(GRACE)}
    with contextlib.ExitStack() as stack:
        servers, networks = {}, {}
        for name in NAMES:
            servers[name] = stack.enter_context(Server(request.param, APP, env={**env, "INSTANCE": name}))
            networks[name] = stack.enter_context(BadNetwork(servers[name].port))
        upstreams = [f"127.0.0.1:{network.port}" for network in networks.values()]
        nginx = Nginx(upstreams, tmp_path_factory.mktemp("nginx"))
        stack.callback(nginx.close)
        nginx.start()
        yield Site(nginx.url, networks, servers)


def enter_at(site: Site, instance: str, page: Page, cables: str, script: str, room: str, **query: str) -> None:
    """Enter a room through nginx, at one of the instances: there is no way to the other."""
    others = [network for other, network in site.networks.items() if other != instance]
    for network in others:
        network.refuse()
    enter(page, cables, script, site.url, room, **query)
    has_seen(page, "connected")
    for network in others:
        network.refuse(False)
    is_at(page, instance)


def is_at(page: Page, instance: str) -> None:
    page.evaluate('room.perform("where")')
    has_seen(page, "received", {"instance": instance})
    page.evaluate("seen.splice(seen.findIndex(([, data]) => data?.instance), 1)")


def members(site: Site, room: str) -> dict[str, list[str]]:
    """Who is in a room, as each instance knows it: nginx asks them in turn."""
    found: dict[str, list[str]] = {}
    while len(found) < len(NAMES):
        with request(site.url, "GET", f"/members?room=/rooms/{room}") as response:
            told = json.loads(response.read())
            found[told["instance"]] = told["members"]
    return found


def agree(site: Site, room: str, *there: str) -> None:
    def do() -> bool:
        found = members(site, room)
        assert all(found[instance] == list(there) for instance in NAMES), found
        return True

    eventually(do)


def test_actions_publishes_and_presence_agree_on_both(
    context: BrowserContext, page_errors: PageErrors, cables: str, site: Site, room_id: str
) -> None:
    page_errors.expect(BROKEN)
    ann, bob = context.new_page(), context.new_page()
    enter_at(site, "east", ann, cables, ACTIONCABLE, room_id, member="ann")
    enter_at(site, "west", bob, cables, ANYCABLE, room_id, name="bob", member="bob")
    agree(site, room_id, "ann", "bob")
    ann.evaluate('room.perform("speak", {text: "hi"})')
    has_seen(bob, "received", {"text": "hi", "from": "ann"})
    bob.evaluate('room.perform("speak", {text: "hello"})')
    has_seen(ann, "received", {"text": "hello", "from": "bob"})
    ids = [publish(site.url, f"/rooms/{room_id}", number)[0] for number in range(1, 7)]
    assert ids == [*range(3, 9)]
    for page in (ann, bob):
        has_seen(page, "received", 6)
        assert received(page)[2:] == [*range(1, 7)]
    bob.close()
    agree(site, room_id, "ann")


def test_anycable_resumes_without_loss_on_the_other_instance(
    page: Page, page_errors: PageErrors, cables: str, site: Site, room_id: str
) -> None:
    page_errors.expect(BROKEN)
    enter_at(site, "east", page, cables, ANYCABLE, room_id, member="ann")
    publish(site.url, f"/rooms/{room_id}", 1, 2)
    has_seen(page, "received", 2)
    for number, (name, other) in enumerate((NAMES, NAMES[::-1])):
        site.networks[name].refuse()
        site.networks[name].cut()
        publish(site.servers[other].url, f"/rooms/{room_id}", 2 * number + 3, 2 * number + 4)
        has_seen(page, "received", 2 * number + 4)
        is_at(page, other)
        has_seen(page, "restored")
        page.evaluate('seen = seen.filter(([kind]) => kind !== "restored")')
        site.networks[name].refuse(False)
        agree(site, room_id, "ann")
    assert received(page) == [1, 2, 3, 4, 5, 6]
    assert "history_not_found" not in str(page.evaluate("seen"))


def test_actioncable_goes_on_at_the_other_instance(
    page: Page, page_errors: PageErrors, cables: str, site: Site, room_id: str
) -> None:
    page_errors.expect(BROKEN)
    enter_at(site, "west", page, cables, ACTIONCABLE, room_id, member="ann")
    page.evaluate("seen.length = 0")
    site.networks["west"].refuse()
    site.networks["west"].cut()
    has_seen(page, "connected")
    is_at(page, "east")
    site.networks["west"].refuse(False)
    publish(site.url, f"/rooms/{room_id}", "again")
    has_seen(page, "received", "again")
    agree(site, room_id, "ann")
