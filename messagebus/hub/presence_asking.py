"""Asks the other workers for whom they hold: in rooms that somebody here begins to ask for, and again where something
was not heard. See ``presence``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple

from ..errors import BackendUnavailable, BusClosed
from ..loop.reactor import Reactor
from ..presence.rules import PresenceRules
from ..presence.view import View
from .presence_stream import PRESENCE
from .workers import Answer, Workers

logger = logging.getLogger("messagebus.hub")

ASK_SECONDS = 1.0
"""How long the workers' answers are waited for."""
WAIT_SECONDS = 1.5
"""How long a request waits until it is known who is in its rooms; afterwards they are told when that is known."""
REPAIR_SECONDS = 5.0
"""Until a worker that has not answered is asked again for what was not heard of it."""
NAMES_AT_ONCE = 2000
"""Rooms of one question."""

Question = dict[str, Any]
"""``rooms``: names. ``wanted``: patterns of channels, whose rooms are asked for as well. ``of``: the workers that are
asked; ``None``: all. ``about``: another worker, of which they tell what they know."""


class _Awaited(NamedTuple):
    """A question, and how far each stream has to be heard until all that was asked for is there."""

    question: Question
    numbers: dict[str, int]
    until: float


class _Waiting(NamedTuple):
    """Somebody who waits for rooms."""

    names: list[str]
    done: Callable[[], object]
    until: float


class Asking:
    """See the module. In the reactor's loop, unless a method says otherwise."""

    def __init__(
        self,
        view: View,
        rules: PresenceRules,
        workers: Workers,
        reactor: Reactor,
        complete: Callable[[str], object],
        has_wanted: Callable[[], object],
    ) -> None:
        """``complete``: called for a room when all workers have told whom they hold there; ``has_wanted``: when they
        have of all rooms that hooks are for."""
        self._view = view
        self._rules = rules
        self._workers = workers
        self._reactor = reactor
        self._complete = complete
        self._has_wanted = has_wanted
        self._unknown: dict[str, None] = {}
        self._has_asked = False  # for the rooms that hooks are for
        self._is_asking = False
        self._repair_at = 0.0
        self._awaited: list[_Awaited] = []
        self._waiting: list[_Waiting] = []
        self.is_away = False
        """Whether the store could not be asked the last time. From any thread."""
        self.stopped = False

    def want(self, name: str) -> None:
        """Ask for a room."""
        self._unknown[name] = None
        self._ask_soon()

    def forget(self, name: str) -> None:
        """Nobody wants to know of a room any more."""
        self._unknown.pop(name, None)

    def when_known(self, names: list[str], done: Callable[[], object]) -> None:
        """Call ``done`` when these rooms are known, unless that takes too long."""
        if self._knows(names):
            done()
        else:
            self._waiting.append(_Waiting(names, done, self._reactor.clock() + WAIT_SECONDS))

    def _knows(self, names: Iterable[str]) -> bool:
        return all(room is not None and room.complete for room in map(self._view.rooms.get, names))

    def settle(self) -> None:
        """Take rooms as known whose workers were heard. After each telling, and from time to time."""
        if self._awaited:
            now = self._reactor.clock()
            awaited, self._awaited = self._awaited, []
            for each in awaited:
                numbers = each.numbers.items()
                if now < each.until and any(self._view.number_of(worker) < number for worker, number in numbers):
                    self._awaited.append(each)
                    continue
                if each.question["wanted"]:
                    self._has_wanted()
                for name in each.question["rooms"]:
                    self._complete(name)
        if self._waiting:
            now = self._reactor.clock()
            waiting, self._waiting = self._waiting, []
            for one in waiting:
                if self._knows(one.names):
                    one.done()
                elif now < one.until:
                    self._waiting.append(one)

    def proceed(self) -> None:
        """Ask for what is still to be asked for. From time to time."""
        self.settle()
        is_doubtful = self._reactor.clock() >= self._repair_at and self._view.doubtful()
        if self._unknown or is_doubtful or (self._rules.hooked and not self._has_asked):
            self._ask_soon()

    def _ask_soon(self) -> None:
        if not self._is_asking:
            self._is_asking = True
            self._reactor.call_soon(self._ask_now)

    def _ask_now(self) -> None:
        question = self._next_question()
        if question is None or self.stopped:
            self._is_asking = False
        else:
            self._reactor.spawn(partial(self._ask, question))

    def _next_question(self) -> Question | None:
        wanted = self._rules.hooked
        is_first = bool(wanted) and not self._has_asked
        if self._unknown or is_first:
            names = [*self._unknown][:NAMES_AT_ONCE]
            for name in names:
                del self._unknown[name]
            self._has_asked = self._has_asked or is_first
            return {"rooms": names, "wanted": wanted if is_first else [], "of": None}
        doubtful = self._view.doubtful()
        if not doubtful or self._reactor.clock() < self._repair_at:
            return None
        for worker in doubtful:
            self._view.doubt(worker, False)
        return {"rooms": [*self._view.rooms], "wanted": wanted, "of": doubtful}

    def _ask(self, question: Question) -> None:
        """Where it may wait."""
        answers: list[Answer] | None = None
        try:
            names = question["rooms"]
            for begin in range(0, max(1, len(names)), NAMES_AT_ONCE):
                asked = {**question, "rooms": names[begin : begin + NAMES_AT_ONCE]}
                if begin:
                    asked["wanted"] = []
                answers = self._workers.ask(PRESENCE, asked, ASK_SECONDS)
                if question["of"] is None:
                    answers += self._ask_about_silent(asked, answers)
        except (BackendUnavailable, BusClosed):
            answers = None
        except Exception:
            answers = None
            logger.exception("the other workers cannot be asked who is there")
        finally:
            self._reactor.call_soon(self._asked, question, answers)

    def _ask_about_silent(self, question: Question, answers: list[Answer]) -> list[Answer]:
        """Have one of those who have answered tell of each worker that has not."""
        found: list[Answer] = []
        for silent in self._workers.silent():
            for one in answers:
                if one.worker == self._workers.id or not isinstance(one.value, int):
                    continue
                asked = {**question, "of": [one.worker], "about": silent}
                told = [each for each in self._workers.ask(PRESENCE, asked, ASK_SECONDS) if each.value is not None]
                if told:
                    found += told
                    break
        return found

    def _asked(self, question: Question, answers: list[Answer] | None) -> None:
        self.is_away = answers is None
        numbers = {answer.worker: answer.value for answer in answers or () if isinstance(answer.value, int)}
        # Also of a worker that has begun a moment ago, and was not waited for.
        asked = self._view.workers() if question["of"] is None else question["of"]
        for worker in asked:
            if worker not in numbers:
                self._view.doubt(worker, True)
                self._repair_at = self._reactor.clock() + REPAIR_SECONDS
        if answers is None:
            if question["of"] is None:
                self._unknown |= dict.fromkeys(question["rooms"])
            self._has_asked = self._has_asked and not question["wanted"]
            self._is_asking = False  # again with the next ``proceed``
            return
        if question["of"] is None:
            self._awaited.append(_Awaited(question, numbers, self._reactor.clock() + ASK_SECONDS))
            self.settle()
        self._ask_now()
