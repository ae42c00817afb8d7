"""The demo's pages that go both ways, as two people would use them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.chromium import PageErrors
from tests.servers import Server

from .test_admin import AXE

pytestmark = pytest.mark.browser

SignIn = Callable[..., Page]


@pytest.fixture(scope="module")
def demo() -> Iterator[Server]:
    with Server("serve", "demo.app:app", env={"MESSAGEBUS_URL": "memory://"}, ready="/r/lobby") as server:
        yield server


@pytest.fixture
def sign_in(demo: Server, browser: Browser) -> Iterator[SignIn]:
    errors, contexts = PageErrors(), []

    def person(name: str, **options: Any) -> Page:
        context = browser.new_context(**options)
        contexts.append(context)
        errors.watch(context)
        page = context.new_page()
        page.goto(f"{demo.url}/together/")
        page.get_by_label("Name").fill(name)
        page.get_by_role("button", name="Sign in").click()
        page.get_by_text(f"{name} (you)").wait_for()
        return page

    yield person
    for context in contexts:
        context.close()
    assert not errors.unexpected()


def test_two_people_see_each_other_type_talk_and_whisper(sign_in: SignIn) -> None:
    ada, bob, eve = sign_in("Ada"), sign_in("Bob"), sign_in("Eve")
    ada.get_by_label("Message", exact=True).press_sequentially("hello")
    expect(bob.locator("#typing")).to_have_text("Ada is typing")
    ada.keyboard.press("Enter")
    expect(bob.locator("#log")).to_contain_text("Adahello")
    expect(bob.locator("#typing")).to_be_empty()
    ada.get_by_role("button", name="Bob").click()
    ada.get_by_label("Message", exact=True).fill("for Bob")
    ada.keyboard.press("Enter")
    expect(bob.locator(".whisper")).to_contain_text("for Bob")
    expect(ada.locator(".whisper.own")).to_contain_text("for Bob")
    bob.get_by_role("button", name="Sign out").click()
    expect(eve.locator("#log")).to_contain_text("Bob left")
    expect(eve.locator("#log")).not_to_contain_text("for Bob")
    assert bob.get_by_label("Name").is_visible()


def test_whose_name_has_the_focus_keeps_it_when_somebody_comes(sign_in: SignIn) -> None:
    ada, _ = sign_in("Ada"), sign_in("Bob")
    bobs = ada.get_by_role("button", name="Bob")
    bobs.focus()
    sign_in("Eve")
    ada.get_by_role("button", name="Eve").wait_for()
    expect(bobs).to_be_focused()


def test_cursors_move_on_the_other_board(demo: Server, sign_in: SignIn) -> None:
    ada, bob = sign_in("Ada"), sign_in("Bob", viewport={"width": 390, "height": 800})
    for page in (ada, bob):
        page.goto(f"{demo.url}/together/board")
    expect(ada.locator("#transport")).to_have_text("websocket")
    expect(bob.locator("#transport")).to_have_text("websocket")
    ada.locator("#board").focus()
    for _ in range(5):
        ada.keyboard.press("ArrowRight")
    expect(bob.locator(".cursor", has_text="Ada")).to_be_visible()
    expect(ada.locator("#trip")).to_contain_text("ms")


def test_a_socket_of_ones_own_answers(demo: Server, sign_in: SignIn) -> None:
    ada = sign_in("Ada")
    ada.goto(f"{demo.url}/together/echo")
    expect(ada.locator("#state")).to_have_text("open")
    ada.get_by_label("Text").fill("<i>ping</i>")
    ada.keyboard.press("Enter")
    expect(ada.locator("#log")).to_contain_text("Ada said: <i>ping</i>")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_keeps_people_out(demo: Server, sign_in: SignIn, scheme: str) -> None:
    page = sign_in("Ada", color_scheme=scheme, viewport={"width": 390, "height": 800})
    for place in ("room", "board", "echo"):
        page.goto(f"{demo.url}/together/{place}")
        page.evaluate(AXE.read_text())
        assert page.evaluate("axe.run().then(({ violations }) => violations.map(({ id }) => id))") == []
        assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_who_has_not_signed_in_is_asked_to(demo: Server, page: Page) -> None:
    page.goto(f"{demo.url}/together/board")
    assert page.get_by_label("Name").is_visible()
