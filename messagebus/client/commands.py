"""Commands on an open WebSocket: publishes that wait for their answers, and subscribes."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Protocol

from .channels import Following
from .links import TransportLink
from .types import PublishError


class Done(Protocol):
    """An event: a thread's, or an event loop's."""

    def set(self) -> None: ...
    def is_set(self) -> bool: ...


@dataclass(eq=False)
class Call:
    """A command that waits for its answer."""

    command: dict[str, Any]
    channels: Following = field(default_factory=dict)
    """Those that it subscribes to; none where it is a publish."""
    done: Done = field(default_factory=threading.Event)
    answer: Any = None
    error: PublishError | None = None

    def fail(self, code: str, message: str, field: str | None = None, retry_after: float | None = None) -> None:
        self.error = PublishError(code, message, field, retry_after)
        self.done.set()

    def result(self) -> Any:
        """What the server answered. Raises PublishError."""
        if self.error is not None:
            raise self.error
        return self.answer


class Commands:
    """The commands of one client: those to be sent, and those whose answer is not here. :meth:`put` is safe from any
    thread, the rest is for the client's."""

    def __init__(self) -> None:
        self._waiting: deque[Call] = deque()
        self._unanswered: dict[int, Call] = {}
        self._number = 0

    def put(self, call: Call) -> None:
        self._waiting.append(call)

    async def send_waiting(self, link: TransportLink) -> None:
        while self._waiting and link.speaks:
            await self.send(link, self._waiting.popleft())

    async def send(self, link: TransportLink, call: Call) -> None:
        self._number += 1
        self._unanswered[self._number] = call
        await link.send({**call.command, "id": self._number})

    def answered(self, answer: dict[str, Any]) -> Call | None:
        """Give an answer to its call, and return that; ``None`` where it has none."""
        number, error = answer.get("id"), answer.get("error")
        call = self._unanswered.pop(number, None) if isinstance(number, int) else None
        if call is None:
            return None
        if isinstance(error, dict):
            call.fail(str(error.get("code")), str(error.get("message")), error.get("field"), error.get("retry_after"))
        else:
            call.answer = answer.get("ok")
            call.done.set()
        return call

    @property
    def all_answered(self) -> bool:
        """Whether none that was sent waits for its answer."""
        return not self._unanswered

    def fail_sent(self) -> None:
        """The connection is over, and the next one carries those that were not sent."""
        for call in self._unanswered.values():
            call.fail("disconnected", "no answer came; it may or may not have been published")
        self._unanswered.clear()

    def fail_all(self) -> None:
        """The connection is over."""
        self.fail_sent()
        while self._waiting:
            self._waiting.popleft().fail("unsupported", "publishing needs an open WebSocket")
