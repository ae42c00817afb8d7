"""Between the feed and the loop, and between requests and a store that is away."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

import pytest

from messagebus.errors import BackendUnavailable
from messagebus.hub.callbacks import Callbacks
from messagebus.hub.history import Cursor
from messagebus.hub.node import MAX_PENDING, Node
from messagebus.hub.permissions import Access
from messagebus.message import Message
from messagebus.options import Options
from messagebus.publishing.publisher import Publisher
from messagebus.stores import StoreState

from .eventually import eventually
from .planning import request_for

SLOW_LOOP = """
if GEVENT:
    from gevent import monkey
    monkey.patch_all()
import threading, time
from messagebus.hub.callbacks import Callbacks
from messagebus.hub.node import MAX_PENDING, Node
from messagebus.hub.permissions import Access
from messagebus.message import Message
from messagebus.options import Options
from messagebus.publishing.publisher import Publisher
from messagebus.stores import StoreState

node = Node(Publisher(Options()), Callbacks(), Access())
node.store.shared = True
node.reactor.start()
node.started(StoreState(0, "epoch"))
pending = most = 0
dispatch = node.hub.dispatch
seen = []

def slow(messages):
    if not GEVENT:  # in whose loop nothing may sleep; there the feed does not let it have its turn by itself
        time.sleep(0.001)
    seen.append(messages[0].global_id)
    dispatch(messages)

node.hub.dispatch = slow
highest = 0

def feed():
    global highest
    for number in range(1, 1001):
        node.received([Message(number, number, "/a", b"1")])
        highest = max(highest, len(node.reactor._calls))

thread = threading.Thread(target=feed)
thread.start()
thread.join(30)
assert not thread.is_alive()
deadline = time.monotonic() + 30
while len(seen) < 1000 and time.monotonic() < deadline:
    time.sleep(0.01)
assert seen == list(range(1, 1001)), len(seen)
assert MAX_PENDING / 2 < highest <= MAX_PENDING + 2, highest
"""


@pytest.mark.parametrize("gevent", [False, True], ids=["threads", "gevent"])
def test_a_feed_that_is_faster_than_the_loop_waits_for_it(gevent: bool) -> None:
    program = SLOW_LOOP.replace("GEVENT", str(gevent))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def node() -> Node:
    return Node(Publisher(Options(store_timeout=60.0)), Callbacks(), Access())


def test_a_feed_does_not_wait_for_a_loop_that_has_ended(node: Node) -> None:
    node.store.shared = True
    node.reactor.stop()

    def feed() -> None:
        for number in range(MAX_PENDING + 10):
            node.received([Message(number + 1, number + 1, "/a", b"1")])

    thread = threading.Thread(target=feed)
    thread.start()
    thread.join(30)
    assert not thread.is_alive()
    node.after_fork()


def plan(node: Node) -> float:
    """Seconds until a request is told that the store is away."""
    began = time.monotonic()
    with pytest.raises(BackendUnavailable):
        node.plan(request_for(Cursor("/a", "/a", 0)))
    return time.monotonic() - began


def test_requests_are_refused_at_once_when_the_feed_has_said_that_the_store_is_away(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("messagebus.hub.planner.PATIENCE", 60.0)
    waits: list[float] = []
    thread = threading.Thread(target=lambda: waits.append(plan(node)))
    thread.start()
    time.sleep(0.2)
    node.healthy(False)
    thread.join()
    assert waits[0] < 30
    assert plan(node) < 30
    node.after_fork()


def test_a_feed_that_says_nothing_is_waited_for_two_seconds_at_most(node: Node) -> None:
    assert 1.0 < plan(node) < 30
    node.after_fork()


def test_what_is_known_is_served_while_the_store_is_away(node: Node) -> None:
    node.started(StoreState(0, "epoch"))
    node.store.shared = True
    node.hub.windows.enter("/a")
    node.hub.dispatch([Message(1, 1, "/a", b"1"), Message(2, 2, "/a", b"1")])
    node.seen[0] = 2
    node.healthy(False)

    def refuse(*_: object) -> None:
        raise BackendUnavailable("away")

    node.store.backlogs = refuse  # type: ignore[method-assign, assignment]
    eventually(lambda: node.hub.windows.find("/a") is not None)
    time.sleep(1.1)  # what is known may have expired in the meantime, and nobody can say
    found = node.plan(request_for(Cursor("/a", "/a", 1)))
    assert not found.pages
    assert plan_of(node, "/b") is None
    node.after_fork()


def plan_of(node: Node, channel: str) -> object:
    try:
        return node.plan(request_for(Cursor(channel, channel, 0)))
    except BackendUnavailable:
        return None
