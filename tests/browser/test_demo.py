"""The chat in a real browser, as two people would use it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from messagebus import Bus
from tests.chromium import PageErrors
from tests.clients import request
from tests.eventually import eventually
from tests.fixtures_servers import ServeApp
from tests.servers import Server

pytestmark = pytest.mark.browser

LABELS = {
    "websocket": "WebSocket",
    "eventsource": "EventSource",
    "streaming": "Streaming",
    "long-polling": "Long-polling",
    "polling": "Polling",
}
BROKEN = r"ERR_|WebSocket connection"
AXE = Path(__file__).resolve().parents[2] / "node_modules" / "axe-core" / "axe.min.js"
AUTHOR = "0123456789abcdef" * 2

Visit = Callable[..., Page]


@pytest.fixture
def serve_chat(serve_app: ServeApp) -> Callable[..., Server]:
    def serve(url: str = "memory://") -> Server:
        return serve_app("serve", "demo.app:app", env={"MESSAGEBUS_URL": url}, ready="/r/lobby")

    return serve


@pytest.fixture
def visit(browser: Browser, page_errors: PageErrors) -> Iterator[Visit]:
    """``visit(server, room, ...)``: somebody with a browser of their own opens a room."""
    with contextlib.ExitStack() as stack:

        def open_room(server: Server, room: str = "lobby", *, connected: bool = True, **profile: Any) -> Page:
            context = browser.new_context(**profile)
            stack.callback(context.close)
            context.set_default_timeout(30_000)
            page_errors.watch(context)
            page = context.new_page()
            page.goto(f"{server.url}/r/{room}")
            if connected:
                expect_state(page, "connected")
            return page

        yield open_room
    assert not page_errors.unexpected(), "the page had errors that the test does not expect"


def expect_state(page: Page, state: str) -> None:
    expect(page.locator(f"#pill[data-state={state}]")).to_be_visible()


def force(page: Page, transport: str) -> None:
    page.click("#pill")
    page.locator(f"#transports input[value={transport}]").check()
    page.keyboard.press("Escape")


def say(page: Page, text: str) -> None:
    page.fill("#text", text)
    page.press("#text", "Enter")


def texts(page: Page) -> list[str]:
    return page.locator(".message .text").all_inner_texts()


def expect_texts(page: Page, *expected: str) -> None:
    def shows() -> bool:
        assert texts(page) == list(expected)
        return True

    eventually(shows, interval=0.05)


def publish(url: str, count: int, room: str = "lobby") -> None:
    """What another program says in a room."""
    bus = Bus(url=url)
    for number in range(1, count + 1):
        said = {"author": AUTHOR, "key": f"{number:032x}", "name": "Ada", "text": f"number {number}", "at": number}
        bus.publish(f"/chat/{room}", said)
    bus.close()


@pytest.mark.parametrize("transport", LABELS)
def test_two_people_chat_over_each_transport(serve_chat: Callable[..., Server], visit: Visit, transport: str) -> None:
    server = serve_chat()
    ada, grace = visit(server), visit(server)
    for page in (ada, grace):
        force(page, transport)
        expect(page.locator("#via")).to_have_text(LABELS[transport])
    say(ada, "hello")
    expect_texts(grace, "hello")
    say(grace, "hello, Ada")
    say(grace, "how are you?")
    for page in (ada, grace):
        expect_texts(page, "hello", "hello, Ada", "how are you?")
        expect(page.locator(".message .local")).to_have_text(["#1", "#2", "#3"])
    expect(ada.locator(".own .text")).to_have_text(["hello"])


def test_a_message_is_sent_when_the_one_before_it_has_arrived(serve_chat: Callable[..., Server], visit: Visit) -> None:
    page = visit(serve_chat())
    held: list[Route] = []
    page.route("**/messages", lambda route: held.append(route))
    say(page, "first")
    say(page, "second")
    expect(page.locator(".message.pending")).to_have_count(2)
    page.evaluate("() => new Promise(requestAnimationFrame)")
    [first] = held
    first.continue_()
    expect_texts(page, "first", "second")
    eventually(lambda: bool(texts(page)) and len(held) == 2)
    held[1].continue_()
    expect(page.locator(".message .local")).to_have_text(["#1", "#2"])


def test_automatic_takes_the_best_transport_again(serve_chat: Callable[..., Server], visit: Visit) -> None:
    page = visit(serve_chat())
    force(page, "polling")
    expect(page.locator("#via")).to_have_text("Polling")
    force(page, "automatic")
    expect(page.locator("#via")).to_have_text("WebSocket")
    page.reload()
    expect(page.locator("#via")).to_have_text("WebSocket")


def test_earlier_messages_are_loaded_fifty_at_a_time(
    serve_chat: Callable[..., Server], visit: Visit, redis_url: str
) -> None:
    publish(redis_url, 120)
    page = visit(serve_chat(redis_url))
    button = page.get_by_role("button", name="Load 50 earlier")
    assert texts(page) == [f"number {n}" for n in range(71, 121)]
    button.click()
    expect_texts(page, *(f"number {n}" for n in range(21, 121)))
    button.click()
    expect_texts(page, *(f"number {n}" for n in range(1, 121)))
    expect(button).to_be_hidden()
    expect(page.get_by_text("This is where #lobby begins")).to_be_visible()


def test_what_was_said_while_the_server_was_down_is_caught_up(
    serve_chat: Callable[..., Server], visit: Visit, redis_url: str, page_errors: PageErrors
) -> None:
    page_errors.expect(BROKEN)
    server = serve_chat(redis_url)
    page = visit(server)
    say(page, "before")
    expect(page.locator(".own .local")).to_have_text(["#1"])
    server.kill()
    expect_state(page, "reconnecting")
    say(page, "into the void")
    expect(page.get_by_text("Not sent")).to_be_visible()
    publish(redis_url, 2)
    server.start()
    expect_state(page, "connected")
    expect_texts(page, "before", "number 1", "number 2", "into the void")
    expect(page.get_by_text("Caught up: 2 messages")).to_be_visible()
    expect(page.locator(".own .local")).to_have_text(["#1", "#4"])  # it was sent again by itself


def test_the_page_reports_a_store_that_was_reset(
    serve_chat: Callable[..., Server], visit: Visit, page_errors: PageErrors
) -> None:
    page_errors.expect(BROKEN)
    server = serve_chat()
    page = visit(server)
    say(page, "old one")
    expect(page.locator(".own .local")).to_have_text(["#1"])
    server.kill()
    expect_state(page, "reconnecting")
    server.start()
    expect_state(page, "connected")
    say(page, "new one")
    expect(page.get_by_text("store was reset")).to_be_visible()
    expect(page.locator(".message.old .text")).to_have_text(["old one"])
    expect(page.locator(".message:not(.old) .text")).to_have_text(["new one"])


def test_the_keyboard_is_enough(serve_chat: Callable[..., Server], visit: Visit) -> None:
    page = visit(serve_chat())
    page.keyboard.type("two")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("lines")
    page.keyboard.press("Enter")
    expect_texts(page, "two\nlines")
    page.locator("body").press("Escape")
    expect(page.locator("#text")).to_be_focused()
    page.locator("#pill").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Connection")).to_be_visible()
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    expect(page.locator("#via")).to_have_text("EventSource")
    page.keyboard.press("Escape")
    expect(page.get_by_role("heading", name="Connection")).to_be_hidden()
    expect(page.locator("#pill")).to_be_focused()


def test_a_narrow_phone_does_not_scroll_sideways(serve_chat: Callable[..., Server], visit: Visit) -> None:
    page = visit(serve_chat(), "r" * 40, viewport={"width": 360, "height": 640}, has_touch=True, is_mobile=True)
    page.fill("#nickname", "N" * 40)
    say(page, "w" * 500)
    expect(page.locator(".own .local")).to_have_text(["#1"])
    for opener in (None, ".menu", "#pill"):
        if opener:
            page.click(opener)
        overflowing = page.evaluate(
            """() => [...document.querySelectorAll("body *")]
                .filter(e => e.checkVisibility() && !e.matches(".skip") && e.getBoundingClientRect().right > innerWidth)
                .map(e => e.outerHTML.slice(0, 80))"""
        )
        assert overflowing == []
        assert page.evaluate("document.documentElement.scrollWidth") == 360
        page.keyboard.press("Escape")


def test_a_message_that_a_program_posts_without_an_author_arrives(
    serve_chat: Callable[..., Server], visit: Visit
) -> None:
    server = serve_chat()
    page = visit(server)
    body = json.dumps({"name": "curl", "text": "hello"})
    with request(server.url, "POST", "/r/lobby/messages", body, {"Content-Type": "application/json"}) as response:
        assert response.status == 201
    expect_texts(page, "hello")
    expect(page.get_by_text("This is where #lobby begins")).to_be_visible()


def test_addresses_in_a_message_are_links(serve_chat: Callable[..., Server], visit: Visit) -> None:
    page = visit(serve_chat())
    say(page, "see https://example.com/a?b=1, and javascript:alert(1)")
    link = page.locator(".text a")
    expect(link).to_have_attribute("href", "https://example.com/a?b=1")
    expect(link).to_have_count(1)
    expect_texts(page, "see https://example.com/a?b=1, and javascript:alert(1)")
    page.reload()
    expect(link).to_have_count(1)


def test_the_page_says_what_survives_a_restart(serve_chat: Callable[..., Server], visit: Visit, redis_url: str) -> None:
    expect(visit(serve_chat()).get_by_text("in its own memory")).to_be_visible()
    expect(visit(serve_chat(redis_url)).get_by_text("stop the server and start it again")).to_be_visible()


def test_what_is_clicked_is_large_enough(serve_chat: Callable[..., Server], visit: Visit) -> None:
    page = visit(serve_chat(), viewport={"width": 390, "height": 844})
    say(page, "hello")
    expect(page.locator(".own .local")).to_have_text(["#1"])
    for opener in (None, ".menu", "#pill"):
        if opener:
            page.click(opener)
        small = page.evaluate(
            """() => [...document.querySelectorAll("a, button, input, textarea, summary")]
                .filter(e => e.checkVisibility() && !e.matches(".skip, .text a"))
                .filter(e => { const box = e.getBoundingClientRect(); return box.width < 24 || box.height < 24; })
                .map(e => e.outerHTML.slice(0, 80))"""
        )
        assert small == []
        page.keyboard.press("Escape")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_keeps_people_out(serve_chat: Callable[..., Server], visit: Visit, scheme: str, width: int) -> None:
    page = visit(serve_chat(), viewport={"width": width, "height": 800}, color_scheme=scheme, bypass_csp=True)
    say(page, "one")
    say(page, "two, see https://example.com/")
    expect(page.locator(".own .local")).to_have_text(["#1", "#2"])
    page.add_script_tag(content=AXE.read_text())
    for opener in (None, "#pill"):
        if opener:
            page.click(opener)
        found = page.evaluate("axe.run()")["violations"]
        assert [(one["id"], [node["html"][:80] for node in one["nodes"]]) for one in found] == []


def test_markup_in_a_message_is_shown_as_text(serve_chat: Callable[..., Server], visit: Visit) -> None:
    server = serve_chat()
    ada, grace = visit(server), visit(server)
    evil = "<img src=x onerror=\"document.title='caught'\"><b>bold</b>"
    ada.fill("#nickname", "<i>Ada</i>")
    say(ada, evil)
    expect_texts(grace, evil)
    expect(grace.locator(".message .name")).to_have_text("<i>Ada</i>")
    grace.reload()
    expect_texts(grace, evil)
    expect(grace.locator(".message .name")).to_have_text("<i>Ada</i>")
    expect(grace.locator(".message :is(img, b, i)")).to_have_count(0)


def test_a_hidden_page_counts_what_is_unread_in_its_title(serve_chat: Callable[..., Server], visit: Visit) -> None:
    server = serve_chat()
    ada, grace = visit(server), visit(server)
    grace.evaluate("Object.defineProperty(document, 'hidden', { value: true, configurable: true })")
    say(ada, "one")
    say(ada, "two")
    expect(grace).to_have_title("(2) #lobby · messagebus chat")
    grace.evaluate("delete document.hidden; document.dispatchEvent(new Event('visibilitychange'))")
    expect(grace).to_have_title("#lobby · messagebus chat")


def test_who_only_watches_sees_the_newest_of_many_messages(
    serve_chat: Callable[..., Server], visit: Visit, redis_url: str
) -> None:
    page = visit(serve_chat(redis_url), viewport={"width": 390, "height": 700})
    with contextlib.closing(Bus(url=redis_url)) as bus:
        for number in range(1, 41):
            bus.publish("/chat/lobby", f"number {number}")
            # As fast as a page shows them, so that each one finds it moving.
            expect(page.locator(".message")).to_have_count(number)
    expect(page.get_by_text("number 40")).to_be_in_viewport()
    expect(page.locator("#newer")).to_be_hidden()


def test_somebody_who_reads_earlier_messages_is_not_moved_by_new_ones(
    serve_chat: Callable[..., Server], visit: Visit, redis_url: str
) -> None:
    publish(redis_url, 50)
    page = visit(serve_chat(redis_url))
    scroller = page.locator("#scroller")
    page.wait_for_function("MessageBus.state === 'connected'")
    # The page hears of scrolling with the next frame, long before a person could have sent anything.
    scroller.evaluate(
        """element => new Promise(done => {
            element.scrollTop = 0;
            requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done)));
        })"""
    )
    with contextlib.closing(Bus(url=redis_url)) as bus:
        bus.publish("/chat/lobby", "from a program")
    button = page.get_by_role("button", name="1 new message")
    expect(button).to_be_visible()
    assert scroller.evaluate("element => element.scrollTop") == 0
    button.click()
    expect(button).to_be_hidden()
    expect(page.get_by_text("from a program")).to_be_in_viewport()
