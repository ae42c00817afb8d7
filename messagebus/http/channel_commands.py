"""What clients ask of channel classes: ``enter``, ``perform`` and ``leave``. The classes are in ``cable``."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from .command import Caller, Command, CommandError

GUEST = "cable"
"""The node's guest that has the classes."""
ANSWER_SECONDS = 40.0
"""How long a request waits for an answer: longer than one worker waits for another."""

Answer = Callable[[dict[str, Any]], object]
Fail = Callable[[CommandError], object]


class ChannelCalls(Protocol):
    """Who carries them out."""

    def call(self, verb: str, caller: Caller, value: Any, answer: Answer, fail: Fail) -> None:
        """Never blocks. One of ``answer`` and ``fail`` is called, once, in the loop."""


class ChannelCommand(Command):
    def __init__(self, caller: Caller, value: Any, command: Mapping[str, Any]) -> None:
        calls = getattr(caller.node.guests.get(GUEST), "calls", None)
        if calls is None:
            raise CommandError("unknown_channel", "no channel class is registered")
        self._calls: ChannelCalls = calls
        self._caller = caller
        self._value = value

    def start(self, answer: Answer, fail: Fail) -> bool:
        self._calls.call(self.verb, self._caller, self._value, answer, fail)
        return True

    def perform(self) -> dict[str, Any]:
        done = threading.Event()
        found: list[dict[str, Any] | CommandError] = []

        def end(with_: dict[str, Any] | CommandError) -> None:
            found.append(with_)
            done.set()

        self.start(end, end)
        if not done.wait(ANSWER_SECONDS):
            raise CommandError("unavailable", "the channel class gave no answer", retry_after=1)
        if isinstance(found[0], CommandError):
            raise found[0]
        return found[0]


class Enter(ChannelCommand):
    verb = "enter"


class Perform(ChannelCommand):
    verb = "perform"


class Leave(ChannelCommand):
    verb = "leave"
