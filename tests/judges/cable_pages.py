"""Pages with the clients of ActionCable and AnyCable from npm, in a room of ``tests/apps/cable.py``."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlencode

from playwright.sync_api import Page

APP = "tests.apps.cable:app"
BROKEN = r"ERR_|WebSocket|history"
"""What Chromium and the clients say on the console of connections that fail."""
ACTIONCABLE = """
({id, base, query}) => {
  window.seen = []
  window.consumer ??= ActionCable.createConsumer(base.replace("http", "ws") + "/cable?" + query)
  const note = (kind) => (data) => seen.push(data === undefined ? [kind] : [kind, data])
  const handlers = {}
  for (const kind of ["connected", "disconnected", "rejected", "received"]) handlers[kind] = note(kind)
  window.room = consumer.subscriptions.create({channel: "RoomChannel", id}, handlers)
}
"""
ANYCABLE = """
({id, base, query}) => {
  window.seen = []
  window.cable = AnyCable.createCable(base.replace("http", "ws") + "/cable?" + query,
    {protocol: "actioncable-v1-ext-json", logLevel: "error", reconnectStrategy: () => 300})
  window.room = cable.subscribeTo("RoomChannel", {id})
  room.on("connect", ({restored}) => seen.push([restored ? "restored" : "connected"]))
  cable.on("disconnect", () => seen.push(["disconnected"]))
  room.on("close", (event) => seen.push(["closed", String(event)]))
  room.on("message", (data) => seen.push(["received", data]))
  room.on("presence", ({type, id}) => seen.push(["presence", type, id ?? null]))
  room.on("info", (event) => seen.push(["info", event.type]))
}
"""


def enter(page: Page, cables: str, script: str, url: str, room: str, **query: str) -> None:
    """Have a page enter a room with a client; ``query``: what the app is to know of it."""
    page.goto(f"{url}/empty")
    page.add_script_tag(content=cables)
    page.evaluate(script, {"id": room, "base": url, "query": urlencode({"name": "ann", **query})})


def has_seen(page: Page, *wanted: Any) -> None:
    page.wait_for_function("(wanted) => JSON.stringify(seen).includes(wanted)", arg=_json(wanted))


def _json(wanted: Any) -> str:
    return json.dumps(list(wanted), separators=(",", ":"))[:-1]


def received(page: Page) -> list[Any]:
    found: list[Any] = page.evaluate('seen.filter(([kind]) => kind === "received").map(([, data]) => data)')
    return found
