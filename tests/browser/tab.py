"""A page of tests/apps/browser.py in a browser, and the server it came from."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from typing import Any, cast
from urllib.parse import urlencode

from playwright.sync_api import Error, Page

from tests import publishing
from tests.servers import Server

from .other_browsers import RemotePage

APP = "tests.apps.browser:app"
HELD = ("websocket", "eventsource", "streaming", "long-polling")
"""The transports on which the server says by itself that there is something new."""
TRANSPORTS = (*HELD, "polling")
QUICK = {
    "minPollInterval": 50,
    "maxPollInterval": 400,
    "callbackInterval": 200,
    "backgroundCallbackInterval": 400,
    "firstChunkTimeout": 1000,
}
"""Settings of the client under which nobody has to wait long."""
BROKEN = r"ERR_|WebSocket connection|Failed to load resource"
"""What Chromium says on the console of connections that fail."""
_numbers = itertools.count(1)


def new_channel() -> str:
    """A channel that no other test has."""
    return f"/chat-{next(_numbers)}"


def publish(server: Server, channel: str, data: Sequence[object]) -> list[int]:
    """Have the server's app publish messages, one after the other; their ids."""
    return publishing.publish(server.url, channel, *data)


class Tab:
    """A page that follows channels. To be used in the thread that runs Playwright."""

    def __init__(self, page: Page | RemotePage, url: str, *channels: str) -> None:
        self.page = cast(Page, page)  # which has less of it, and what a tab needs
        self.url = url
        self.channels = channels

    def open(
        self,
        *transports: str,
        path: str = "/page",
        settings: dict[str, object] | None = None,
        connected: bool = True,
        **query: str,
    ) -> Tab:
        """Load it. With ``transports`` (or settings) the client has these alone and is quick, without it has its
        defaults. Waits until it is connected where not told otherwise."""
        arguments = [*(("channel", channel) for channel in self.channels), *query.items()]
        if transports or settings is not None:
            chosen = {"transports": transports} if transports else {}
            arguments.append(("settings", json.dumps({**QUICK, **chosen, **(settings or {})})))
        self.page.goto(f"{self.url}{path}?{urlencode(arguments)}")
        if connected:
            self.wait_for_state("connected")
        return self

    def evaluate(self, expression: str, argument: object = None) -> Any:
        return self.page.evaluate(expression, argument)

    def wait_until(self, function: str, argument: object = None, timeout: float = 30.0) -> None:
        """Until the JS function of the argument is true."""
        try:
            # By time, not by frames: pages in the background draw none.
            self.page.wait_for_function(function, arg=argument, polling=20, timeout=timeout * 1000)
        except Error as error:
            seen = {name: self.evaluate(name) for name in ("MessageBus.diagnostics()", "gaps", "states")}
            seen["received"] = self.data()[-10:]
            raise AssertionError(f"not within {timeout:g} s: {function} of {argument}; {seen}: {error}") from None

    # --- what it received ---

    def messages(self, channel: str | None = None) -> list[dict[str, Any]]:
        """``data``, ``globalId``, ``messageId`` and ``channel`` of each, as they came."""
        messages: list[dict[str, Any]] = self.evaluate("received")
        return [message for message in messages if channel in (None, message["channel"])]

    def data(self, channel: str | None = None) -> list[Any]:
        return [message["data"] for message in self.messages(channel)]

    def wait_for_count(self, count: int, timeout: float = 30.0) -> None:
        """Until that many messages have arrived since the page was loaded."""
        self.wait_until("count => received.length >= count", count, timeout)

    def expect(self, data: Sequence[object], timeout: float = 30.0) -> None:
        """These messages arrive, and have arrived since the page was loaded: no other, none twice, in this order."""
        try:
            self.wait_for_count(len(data), timeout)
        finally:
            assert self.data() == list(data), f"on {self.transport}"

    # --- how it stands ---

    @property
    def transport(self) -> str | None:
        transport: str | None = self.evaluate("MessageBus.transport")
        return transport

    @property
    def client_id(self) -> str:
        client_id: str = self.evaluate("MessageBus.clientId")
        return client_id

    def gaps(self) -> list[dict[str, Any]]:
        gaps: list[dict[str, Any]] = self.evaluate("gaps")
        return gaps

    def states(self) -> list[str]:
        """What onStateChange was told, without repetitions in a row."""
        told: list[str] = self.evaluate("states.map(({ state }) => state)")
        return [state for state, _ in itertools.groupby(told)]

    def wait_for_state(self, state: str, timeout: float = 30.0) -> None:
        self.wait_until("state => MessageBus.state === state", state, timeout)
