"""A page with one client or the other, and the server that its messages come from."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from playwright.sync_api import Error, Page, Request

from tests import publishing
from tests.servers import Server

APP = "tests.apps.judge:app"
CLIENTS = ("npm", "ours")
MODES: dict[str, dict[str, object]] = {
    "chunked": {},
    "long-polling": {"enableChunkedEncoding": False},
    "polling": {"enableLongPolling": False},
}
"""What a page sets to be served in each of the three ways."""
POLLS = {"transports": ["streaming", "long-polling", "polling"]}
"""Our client without what the other has not."""
QUICK = {"minPollInterval": 20, "callbackInterval": 60, "backgroundCallbackInterval": 100, "maxPollInterval": 200}
BROKEN = r"ERR_|Failed to load resource"
"""What Chromium says on the console of connections that fail."""
_numbers = itertools.count(1)


def new_channel() -> str:
    """A channel that no other test has."""
    return f"/judged-{next(_numbers)}"


def publish(server: Server, channel: str, *data: object, **options: object) -> list[int]:
    """Have the server's app publish messages, one after the other; their ids."""
    return publishing.publish(server.url, channel, *data, **options)


class Listener:
    """A page in which ``client`` is used in the way of ``mode``. In the thread that runs Playwright only."""

    def __init__(self, page: Page, client: str, mode: str) -> None:
        self.page = page
        self.client = client
        self.mode = mode
        self.polls: list[Request] = []
        page.on("request", self._note)

    def _note(self, request: Request) -> None:
        if request.method == "POST":
            self.polls.append(request)

    def open(self, url: str, **settings: object) -> Listener:
        """Load the page and start the client; follow something then."""
        self.page.goto(f"{url}/judge/{self.client}")
        chosen = {**QUICK, **MODES[self.mode], **(POLLS if self.client == "ours" else {}), **settings}
        self.page.evaluate("settings => { Object.assign(MessageBus, settings); MessageBus.start(); }", chosen)
        return self

    def follow(self, channel: str, last_id: int | None = None) -> Listener:
        return self.follow_all({channel: last_id})

    def follow_all(self, last_ids: Mapping[str, int | None]) -> Listener:
        """Subscribe to several channels in a row, so that one request asks for all of them."""
        self.page.evaluate("lastIds => Object.entries(lastIds).forEach((one) => follow(...one))", dict(last_ids))
        return self

    def call(self, expression: str, argument: object = None) -> Any:
        return self.page.evaluate(expression, argument)

    # --- what it received ---

    def messages(self) -> list[dict[str, Any]]:
        messages: list[dict[str, Any]] = self.page.evaluate("received")
        return messages

    def data(self) -> list[Any]:
        return [message["data"] for message in self.messages()]

    def by_channel(self) -> dict[str, list[Any]]:
        """The data of each channel's messages, in the order in which they came."""
        found: dict[str, list[Any]] = {}
        for message in self.messages():
            found.setdefault(message["channel"], []).append(message["data"])
        return found

    def expect(self, data: Sequence[object], timeout: float = 30.0) -> None:
        """These messages have arrived since the page was loaded: no other, none twice, in this order."""
        try:
            self.wait_until("count => received.length >= count", len(data), timeout)
        finally:
            received = self.data()
            assert received == list(data), received

    def wait_for_position(self, channel: str, position: int) -> None:
        """Until the client would go on from there."""
        self.wait_until("([channel, expected]) => position(channel) === expected", [channel, position])

    def wait_until(self, function: str, argument: object = None, timeout: float = 30.0) -> None:
        """Until the JS function of the argument is true."""
        try:
            self.page.wait_for_function(function, arg=argument, polling=20, timeout=timeout * 1000)
        except Error as error:
            received = f"{self.data()[-10:]} after {len(self.polls)} polls"
            raise AssertionError(f"not within {timeout:g} s: {function} of {argument}; {received}: {error}") from None

    def wait_for_polls(self, count: int) -> None:
        """Until so many more polls have begun."""
        expected = len(self.polls) + count
        while len(self.polls) < expected:
            self.page.wait_for_event("request")
