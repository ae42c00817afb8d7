"""The functions that a program has called when members come and go."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from messagebus.hub.presence_hooks import HookRunner
from messagebus.loop.reactor import Reactor
from messagebus.presence.member import Member
from messagebus.presence.rules import PresenceRules

from .eventually import eventually


@pytest.fixture
def reactor() -> Iterator[Reactor]:
    reactor = Reactor()
    reactor.start()
    yield reactor
    reactor.stop()


def test_calls_that_no_thread_could_be_had_for_are_made_with_the_next_one(
    reactor: Reactor, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[Any] = []
    monkeypatch.setattr(
        PresenceRules, "hooks", lambda self, room, joined: [lambda channel, member: called.append(member.id)]
    )
    runner = HookRunner(PresenceRules(), reactor, lambda error, where: called.append(error))

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    refused = threading.Event()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        reactor.call_soon(runner.add, "/room", Member("1"), True)
        reactor.call_soon(refused.set)
        assert refused.wait(30)
    assert called == []
    reactor.call_soon(runner.add, "/room", Member("2"), True)
    eventually(lambda: called == ["1", "2"])
    runner.stop()
