"""The admin page in a real browser, with two workers behind it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from playwright.sync_api import Page

from tests.chromium import PageErrors
from tests.redis_server import RedisServer
from tests.servers import Server

from .conftest import NewTab
from .tab import APP, publish

pytestmark = pytest.mark.browser

AXE = Path(__file__).resolve().parents[2] / "node_modules" / "axe-core" / "axe.min.js"
KEY = "an-admin-key-for-tests"
HOSTILE = "<img src=x onerror=\"document.title='hit'\">"


@pytest.fixture(scope="module")
def admin_server(browsers_redis: RedisServer) -> Iterator[Server]:
    env = {"MESSAGEBUS_URL": browsers_redis.url, "MESSAGEBUS_ADMIN": "1", "MESSAGEBUS_ADMIN_KEYS": KEY}
    with Server("serve", APP, env=env, workers=2) as server:
        yield server


@pytest.fixture
def admin(admin_server: Server, page: Page, page_errors: PageErrors) -> Page:
    page_errors.expect("429")
    page.goto(f"{admin_server.url}/message-bus/admin")
    live, refused = page.get_by_text("live", exact=True), page.get_by_role("alert")
    for _ in range(30):
        page.get_by_label("Admin key").fill(KEY)
        page.get_by_role("button", name="Sign in").click()
        live.or_(refused).first.wait_for()
        if live.is_visible():
            break
        page.wait_for_timeout(300)  # the test before has signed in from this address within the same second
    live.wait_for()
    return page


def test_an_admin_sees_channels_clients_and_messages_and_publishes_one(
    admin_server: Server, admin: Page, page_errors: PageErrors, new_tab: NewTab
) -> None:
    page_errors.expect("401")  # the messages may just be asked for again when the session ends
    tab = new_tab(admin_server.url, "/admin-test").open("websocket")
    publish(admin_server, "/admin-test", [HOSTILE])
    admin.get_by_label("Channels that begin with").fill("/admin-test")
    admin.get_by_role("button", name="/admin-test", exact=True).click()
    admin.locator("#messages").get_by_text("<img src=x").wait_for()
    admin.get_by_label("Test message").fill('{"n": 1}')
    admin.get_by_role("button", name="Publish").click()
    admin.get_by_text("Published as 2.").wait_for()
    tab.expect([HOSTILE, {"n": 1}])
    admin.get_by_label("Clients, users or addresses").fill(tab.client_id)
    admin.get_by_role("button", name=tab.client_id).click()
    admin.get_by_text("Waiting for the next bytes").wait_for()

    def is_shown() -> Any:
        publish(admin_server, "/admin-test", [HOSTILE])
        return admin.locator("#sent .row").count()

    for _ in range(50):
        if is_shown():
            break
        admin.wait_for_timeout(200)
    assert "<img src=x" in admin.locator("#sent").inner_text()
    assert admin.title() == "messagebus"
    admin.get_by_role("button", name="Stop").click()
    admin.get_by_role("button", name="Sign out").click()
    admin.get_by_label("Admin key").wait_for()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_has_no_faults_that_axe_finds_and_fits_a_phone(admin: Page, scheme: Literal["light", "dark"]) -> None:
    admin.emulate_media(color_scheme=scheme)
    admin.locator("#tiles strong").first.wait_for()
    admin.evaluate(AXE.read_text())  # not as a script: the page takes none but its own
    assert admin.evaluate("axe.run().then(({ violations }) => violations.map(({ id }) => id))") == []
    admin.set_viewport_size({"width": 360, "height": 740})
    assert admin.evaluate("document.documentElement.scrollWidth") <= 360


def test_a_channel_without_messages_is_opened_and_given_one_by_keys_alone(admin: Page) -> None:
    admin.get_by_label("Channels that begin with").focus()
    admin.keyboard.type("/never-before")
    admin.keyboard.press("Enter")
    admin.get_by_text("There has been no message yet.").wait_for()
    admin.keyboard.type(HOSTILE)  # into the form, which has the focus
    admin.keyboard.press("Enter")
    admin.get_by_text("Published as 1.").wait_for()
    admin.locator("#messages li").get_by_text("<img src=x").wait_for()
    assert admin.locator("#messages img").count() == 0
    assert admin.title() == "messagebus"


def test_signing_out_ends_the_other_tabs_of_the_session(
    admin_server: Server, admin: Page, page_errors: PageErrors
) -> None:
    page_errors.expect("401")
    other = admin.context.new_page()
    other.goto(f"{admin_server.url}/message-bus/admin")
    other.get_by_text("live", exact=True).wait_for()
    admin.get_by_role("button", name="Sign out").click()
    admin.get_by_label("Admin key").wait_for()
    other.get_by_label("Admin key").wait_for()


def test_the_open_page_has_no_faults_that_axe_finds(admin_server: Server, admin: Page, new_tab: NewTab) -> None:
    tab = new_tab(admin_server.url, "/admin-axe").open("websocket")
    publish(admin_server, "/admin-axe", [HOSTILE])
    admin.get_by_role("button", name="/admin-axe", exact=True).click()
    admin.get_by_role("button", name=tab.client_id).click()
    admin.locator("#messages li").first.wait_for()
    admin.evaluate(AXE.read_text())
    assert admin.evaluate("axe.run().then(({ violations }) => violations.map(({ id }) => id))") == []
