"""What the workers of a bus, the processes that listen to its store, tell and ask each other.

A worker reports every few seconds that it lives, so that whoever asks knows how many answers to wait for. What is told
and asked goes through the store as announcements: live, not kept, heard by every worker.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from ..errors import BackendUnavailable, BusClosed
from ..loop.reactor import Reactor
from ..stores import Store
from ..stores.parts import Joining, cut

logger = logging.getLogger("messagebus.hub")

REPORT_SECONDS = 2.0
"""Between two reports that differ."""
RENEW_SECONDS = 10.0
"""Between two reports that are the same: a third of their lease."""
KNOWN_SECONDS = 1.0
"""How long it is taken for granted who has a report."""
ANSWER_SECONDS = 1.0
"""How long an answer is waited for."""
SILENT_SECONDS = 30.0
"""How long a worker that has not answered is not waited for: it may have died, and its report lasts so long."""
FIRST_SECONDS = 1.0
"""How long the first questions wait at most until this worker hears anything: answers before that would be lost."""
PROBE_SECONDS = 0.05
"""Between two words to itself, meanwhile."""

FORGET = "forget"
"""Told with the name of a channel whose backlog was deleted."""

Facts = dict[str, Any]


class Answer(NamedTuple):
    """What one worker has answered."""

    worker: str
    value: Any
    """As it comes out of JSON."""


class _Question:
    def __init__(self, waits_for: set[str]) -> None:
        self.waits_for = waits_for
        self.answers: list[Answer] = []
        self.is_heard = False
        """Whether it has come back to who asks: then the answers do, too."""
        self.complete = threading.Event()
        if not waits_for:
            self.complete.set()

    def answered(self, answer: Answer) -> None:
        self.answers.append(answer)
        self.waits_for.discard(answer.worker)
        if not self.waits_for:
            self.complete.set()


def tell(store: Store, kind: str, value: Any) -> None:
    """Tell every worker of a store something of a kind that they know; from any process.

    Raises:
        BackendUnavailable: The store cannot be reached; some may have heard it.
        ValueError: It is too long.
    """
    for text in cut({"tell": kind, "value": value}):
        store.announce(text)


def forget(store: Store, name: str) -> None:
    """Delete a channel's backlog, in the store and in what the workers remember of it.

    Raises:
        BackendUnavailable: The store gave no answer; it may be deleted.
    """
    store.forget(name)
    tell(store, FORGET, name)


class Workers:
    """See the module. One for each worker; its methods are safe from any thread or greenlet."""

    def __init__(self, store: Store, reactor: Reactor) -> None:
        self.id = secrets.token_hex(8)
        """This worker's name, another one in each process and after each change of the settings."""
        self._store = store
        self._reactor = reactor
        self._facts: list[Callable[[], Facts]] = [partial(_of_process, time.time())]
        self._told: dict[str, list[Callable[[Any], object]]] = {}
        self._asked: dict[str, Callable[[Any], Any]] = {}
        self._joining = Joining()
        self._questions: dict[str, _Question] = {}
        self._silent: dict[str, float] = {}
        self._hears = threading.Event()
        self._waits_until: float | None = None
        self._known_others: tuple[float, frozenset[str]] = (-KNOWN_SECONDS, frozenset())
        self._when_known: list[Callable[[], object]] = []
        self._reported = ""
        self._told_facts: Facts = {}
        """Those of the last report."""
        self._report_again_at = 0.0
        self._reporting = False
        self._stopped = False
        self._report_lock = threading.Lock()
        """Held while a report is written or withdrawn: the one must not overtake the other."""
        self.store_seconds = 0.0
        """How long the store took for the last report."""
        self.tick = 0

    # --- what this worker does; to be set before it starts ---

    def on(self, kind: str, call: Callable[[Any], object]) -> None:
        """Call ``call(value)`` in the loop for what any worker tells of this kind."""
        self._told.setdefault(kind, []).append(call)

    def on_question(self, kind: str, call: Callable[[Any], Any]) -> None:
        """Answer questions of this kind with ``call(value)``, which is called in the loop and returns what JSON
        expresses."""
        self._asked[kind] = call

    def report_also(self, facts: Callable[[], Facts]) -> None:
        """Have more in the report, as ``facts()`` tells: in the loop, or in another thread."""
        self._facts.append(facts)

    def when_known(self, call: Callable[[], object]) -> None:
        """Call ``call()`` in the loop once the first report is in the store."""
        self._when_known.append(call)

    def start(self) -> None:
        """Begin to report."""
        self._reactor.call_soon(self.on_deadline)

    def own_facts(self) -> Facts:
        """What this worker would report now. From any thread."""
        facts: Facts = {}
        for more in self._facts:
            facts |= more()
        return facts

    def stop(self) -> None:
        """Report no more. Waits for the store."""
        self._stopped = True
        try:
            with self._report_lock:
                if self._reported:
                    self._store.withdraw(self.id)
        except (BackendUnavailable, BusClosed):
            pass  # its lease ends

    def tell_soon(self, kind: str, value: Any) -> None:
        """Tell every worker something of a kind, this one as well. Does not wait, and is no promise: it is lost while
        the store is away, and may be overtaken by another one."""
        self._run(partial(self._send, {"tell": kind, "value": value}))

    # --- ask ---

    def ask(
        self, kind: str, value: Any = None, timeout: float = ANSWER_SECONDS, *, of: str | None = None
    ) -> list[Answer]:
        """What every worker answers, this one first; or the worker ``of`` alone. Blocks; not for the loop.

        Waits for all that have reported, for ``timeout`` seconds at most, and not for those that have left a question
        unanswered within the last ``SILENT_SECONDS``. A worker that has just begun waits first until it can hear them.

        Raises:
            BackendUnavailable: The store cannot be reached.
        """
        own = _Question({self.id} if of in (None, self.id) else set())
        if own.waits_for:
            self._reactor.call_soon(self._answer, kind, value, lambda found: own.answered(Answer(self.id, found)))
        others = set() if of == self.id else self._others() if of is None else self._others() & {of}
        if not others:
            own.complete.wait(timeout)
            return own.answers
        self._wait_until_it_hears()
        now = time.monotonic()
        # Replaced and never changed: several threads may ask.
        self._silent = {worker: until for worker, until in self._silent.items() if until > now}
        question = _Question(others - {*self._silent})
        name = secrets.token_hex(8)
        self._questions[name] = question
        try:
            self._announce({"ask": kind, "value": value, "question": name, "from": self.id, "to": of})
            if not question.complete.wait(timeout) and question.is_heard:
                self._silent = self._silent | dict.fromkeys(question.waits_for, now + SILENT_SECONDS)
        finally:
            del self._questions[name]
        own.complete.wait(timeout)
        return [*own.answers, *question.answers]

    def silent(self) -> list[str]:
        """The workers that have a report and have left a question unanswered lately: they may have died. Blocks.

        Raises:
            BackendUnavailable: The store cannot be reached.
        """
        return [worker for worker in self._others() if worker in self._silent]

    def reports(self) -> dict[str, Facts]:
        """What each living worker has last reported, some seconds ago at most, by its name.

        Raises:
            BackendUnavailable: The store cannot be reached.
        """
        return reports_of(self._store)

    def _wait_until_it_hears(self) -> None:
        """The feed may have just begun, and nobody is told when it brings announcements: what it brings tells it."""
        if self._hears.is_set():
            return
        if self._waits_until is None:
            self._waits_until = time.monotonic() + FIRST_SECONDS
        while time.monotonic() < self._waits_until:
            self._announce({"tell": "", "from": self.id})
            if self._hears.wait(PROBE_SECONDS):
                break

    def _others(self) -> set[str]:
        asked_at, others = self._known_others
        now = self._reactor.clock()
        if now >= asked_at + KNOWN_SECONDS:
            try:
                others = frozenset(self._store.reports()) - {self.id}
            except BackendUnavailable:
                # The reports are in one partition, and any other takes what is told: who was there last is asked.
                if self._store.partitions == 1 or not others:
                    raise
            self._known_others = now, others
        return {*others}

    def _announce(self, telling: dict[str, Any]) -> None:
        for text in cut(telling):
            self._store.announce(text)

    # --- from the feed's thread ---

    def announced(self, text: str) -> None:
        told = self._joining.add(text)
        if told is None:
            return
        if told.get("from") != self.id:
            self._hear(told)
            return
        self._hears.set()
        question = self._questions.get(str(told.get("question")))
        if question is not None:
            question.is_heard = True

    def _hear(self, told: dict[str, Any]) -> None:
        value = told.get("value")
        if "tell" in told:
            for call in self._told.get(str(told["tell"]), ()):
                self._reactor.call_soon(call, value)
        elif "ask" in told:
            if told.get("to") not in (None, self.id):
                return
            reply = partial(self._reply, str(told.get("question")))
            self._reactor.call_soon(self._answer, str(told["ask"]), value, reply)
        elif "answer" in told:
            question = self._questions.get(str(told["answer"]))
            if question is not None:
                question.answered(Answer(str(told.get("from")), value))

    # --- in the loop ---

    def _answer(self, kind: str, value: Any, reply: Callable[[Any], object]) -> None:
        call = self._asked.get(kind)
        if call is None:  # of a newer version
            reply(None)
            return
        try:
            found = call(value)
        except Exception:
            logger.exception("a question to all workers failed: %s", kind)
            found = None
        reply(found)

    def _reply(self, question: str, found: Any) -> None:
        self._run(partial(self._send, {"answer": question, "value": found, "from": self.id}))

    def _run(self, call: Callable[[], object]) -> None:
        """Let something speak with the store, where it may wait for it."""
        if self._store.shared:
            self._reactor.spawn(call)
        else:
            call()

    def _send(self, telling: dict[str, Any]) -> None:
        try:
            self._announce(telling)
        except (BackendUnavailable, BusClosed):
            pass  # who asked has the same trouble
        except ValueError:
            logger.warning("what workers tell each other is too long here, and was left out")

    def on_deadline(self) -> None:
        if self._stopped:
            return
        self._reactor.set_deadline(self, REPORT_SECONDS)
        facts = self.own_facts()
        report = json.dumps(facts, separators=(",", ":"))
        facts.pop("store_seconds", None)  # each report has another one, and on its account none is made
        now = self._reactor.clock()
        if not self._reporting and (facts != self._told_facts or now >= self._report_again_at):
            self._reporting = True
            self._told_facts = facts
            self._report_again_at = now + RENEW_SECONDS
            self._run(partial(self._report, report))

    def _report(self, report: str) -> None:
        try:
            with self._report_lock:
                if not self._stopped:
                    self._reported = report
                    began = time.perf_counter()
                    self._store.report(self.id, report)
                    self.store_seconds = time.perf_counter() - began
                    while self._when_known:
                        self._reactor.call_soon(self._when_known.pop())
        except (BackendUnavailable, BusClosed):
            self._report_again_at = 0.0
        finally:
            self._reporting = False


def reports_of(store: Store) -> dict[str, Facts]:
    """What the workers that use a store have last reported, for a process that is none of them.

    Raises:
        BackendUnavailable: The store cannot be reached.
    """
    found = {}
    for worker, report in store.reports().items():
        try:
            found[worker] = json.loads(report)
        except ValueError:
            logger.warning("the report of the worker %s cannot be read", worker)
    return found


def _of_process(since: float) -> Facts:
    return {"pid": os.getpid(), "host": socket.gethostname(), "since": round(since, 3)}
