"""Passes calls of clients on to the worker where their subscription is.

The call is offered; the other worker takes it, and carries it out when it hears that this one still waits for it. So a
call that this worker has given up, and that its client makes anew elsewhere, is not carried out late as well.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from ..errors import MessageBusError
from ..http.command import CommandError
from ..http.refusals import RETRY_SECONDS
from ..hub.node import Node
from ..hub.workers import tell

TAKEN_SECONDS = 2.0
"""How long a worker may take to say that it has the call; after that it is taken for dead."""
ANSWER_SECONDS = 30.0
"""And how long for the answer."""
CALL, GO, ANSWER = "cable-call", "cable-go", "cable-answer"
"""What workers tell each other."""

Answer = Callable[[dict[str, Any]], object]
Fail = Callable[[CommandError], object]


class Call(NamedTuple):
    """A command for a subscription."""

    verb: str
    client_id: str
    user_id: str | None
    """As JSON."""
    value: Any


class _Pending:
    """A call that waits for its answer."""

    def __init__(self, forwarding: Forwarding, worker: str, answer: Answer, fail: Fail) -> None:
        self._forwarding = forwarding
        self.worker = worker
        """That is to carry it out."""
        self.number = secrets.token_hex(8)
        self.answer = answer
        self.fail = fail
        self.is_taken = False
        self.tick = 0

    def on_deadline(self) -> None:
        self._forwarding.pending.pop(self.number, None)
        if self.is_taken:
            reason = "the worker of this subscription gave no answer"
            self.fail(CommandError("unavailable", reason, retry_after=RETRY_SECONDS))
        else:
            self.fail(_gone())


class _Offer:
    """A call of another worker's that this one has taken, and that is carried out on its word."""

    def __init__(self, forwarding: Forwarding, told: dict[str, Any]) -> None:
        self._forwarding = forwarding
        self.told = told
        self.tick = 0

    @property
    def key(self) -> tuple[str, str]:
        return self.told["from"], self.told["number"]

    def on_deadline(self) -> None:
        self._forwarding.offers.pop(self.key, None)


def _gone() -> CommandError:
    return CommandError("gone", "the worker of this subscription has ended: enter again")


def _told(error: CommandError) -> dict[str, Any]:
    return {"error": [error.code, str(error), error.field, error.retry_after]}


class Forwarding:
    """See the module. In the reactor's loop only."""

    def __init__(self, node: Node, carry_out: Callable[[Call, Answer, Fail], object]) -> None:
        self._node = node
        self._carry_out = carry_out
        self.pending: dict[str, _Pending] = {}
        self.offers: dict[tuple[str, str], _Offer] = {}
        node.workers.on(CALL, self._called)
        node.workers.on(GO, self._told_to_go)
        node.workers.on(ANSWER, self._answered)

    def send(self, worker: str, call: Call, answer: Answer, fail: Fail) -> None:
        """Have another worker carry a call out. One of the two is called, once."""
        pending = _Pending(self, worker, answer, fail)
        self.pending[pending.number] = pending
        self._node.reactor.set_deadline(pending, TAKEN_SECONDS)
        told = {"to": worker, "from": self._node.workers.id, "number": pending.number, "call": [*call]}
        self._node.command_jobs.start(partial(self._tell, CALL, told, pending))

    def _tell(self, kind: str, told: dict[str, Any], pending: _Pending | None = None) -> None:
        """In a job: the store may take its time."""
        error: CommandError | None = None
        try:
            if kind == CALL and told["to"] not in self._node.workers.reports():
                error = _gone()
            else:
                tell(self._node.store, kind, told)
        except ValueError:
            error = CommandError("too_large", "the call or its answer is too long to be passed on")
        except MessageBusError:
            error = CommandError("unavailable", "the store gave no answer", retry_after=RETRY_SECONDS)
        if error is None:
            return
        if pending is not None:
            self._node.reactor.call_soon(self._failed, pending, error)
        elif error.code == "too_large":
            self._tell(ANSWER, {**told, "answer": _told(error)})

    def _failed(self, pending: _Pending, error: CommandError) -> None:
        if self.pending.pop(pending.number, None) is not None:
            self._node.reactor.clear_deadline(pending)
            pending.fail(error)

    def _called(self, told: dict[str, Any]) -> None:
        if told.get("to") != self._node.workers.id:
            return
        offer = _Offer(self, told)
        self.offers[offer.key] = offer
        self._node.reactor.set_deadline(offer, ANSWER_SECONDS)
        self._reply(told, {"taken": True})

    def _reply(self, told: dict[str, Any], said: dict[str, Any]) -> None:
        answer = {"to": told["from"], "number": told["number"], "answer": said}
        self._node.command_jobs.start(partial(self._tell, ANSWER, answer))

    def _told_to_go(self, go: dict[str, Any]) -> None:
        offer = self.offers.pop((str(go.get("from")), str(go.get("number"))), None)
        if offer is None or go.get("to") != self._node.workers.id:
            return
        self._node.reactor.clear_deadline(offer)
        told = offer.told
        reply = partial(self._reply, told)
        self._carry_out(
            Call(*told["call"]),
            lambda found: reply({"ok": found}),
            lambda error: reply(_told(error)),
        )

    def _answered(self, told: dict[str, Any]) -> None:
        pending = self.pending.get(str(told.get("number")))
        if pending is None or told.get("to") != self._node.workers.id:
            return
        said = told["answer"]
        if "taken" in said:
            pending.is_taken = True
            self._node.reactor.set_deadline(pending, ANSWER_SECONDS)
            go = {"to": pending.worker, "from": self._node.workers.id, "number": pending.number}
            self._node.command_jobs.start(partial(self._tell, GO, go, pending))
            return
        del self.pending[pending.number]
        self._node.reactor.clear_deadline(pending)
        if "ok" in said:
            pending.answer(said["ok"])
        else:
            code, message, field, retry_after = said["error"]
            pending.fail(CommandError(code, message, field=field, retry_after=retry_after))
