"""What a worker remembers of its connections."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace
from typing import Any

from messagebus.hub.membership import Membership
from messagebus.hub.subscriber import Identity
from messagebus.hub.trail import POSITIONS, Trail

ASKED = {"name": "/a", "id": 1, "user_id": 5}


class FakeSubscriber:
    """What a trail looks at."""

    identity = Identity("abc", b"5", frozenset())
    address = ""
    transport = SimpleNamespace(name="websocket")

    def __init__(self, *followed: str) -> None:
        self.followed = {*followed}


def test_a_question_is_answered_while_polls_are() -> None:
    trail = Trail(1000, time.monotonic, Membership())
    done = threading.Event()

    def answer_polls() -> None:
        while not done.is_set():
            trail.answered(Identity("other", None, frozenset()), (("/a", 1),))

    thread = threading.Thread(target=answer_polls)
    thread.start()
    try:
        for _ in range(2000):
            assert trail.answer(ASKED) == {"sent_at": None, "connections": []}
    finally:
        done.set()
        thread.join()


def test_a_connection_that_follows_one_channel_after_the_other_is_remembered_within_bounds() -> None:
    trail = Trail(10, time.monotonic, Membership())
    subscriber: Any = FakeSubscriber("/a")
    for number in range(1000):
        trail.begins(subscriber, ((f"/c{number}", 0), ("/b", number)))
    trail.begins(subscriber, (("/a", 7),))
    [visit] = trail._visits
    assert len(visit.positions) <= POSITIONS
    assert trail.answer(ASKED)["connections"][0]["position"] == 7
    assert dict(visit.positions)["/b"] == 999


def test_all_channels_that_a_connection_follows_are_remembered() -> None:
    trail = Trail(10, time.monotonic, Membership())
    names = [f"/c{number}" for number in range(2 * POSITIONS)]
    subscriber: Any = FakeSubscriber(*names)
    for name in names:
        trail.begins(subscriber, ((name, 0),))
    assert [name for name, _ in trail._visits[0].positions] == names
