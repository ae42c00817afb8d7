"""Who listens to a channel, over all workers: how many, and when it was last asked for."""

from __future__ import annotations

from _thread import allocate_lock
from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

from ..loop.reactor import Reactor
from .membership import Membership, count
from .request_times import RequestTimes
from .windows import Windows
from .workers import Workers

ANSWER_SECONDS = 0.5
"""How long the other workers' answers are waited for; who has not answered is not counted."""
FRESH_SECONDS = 1.0
"""How long what the others have said is good for. Of its own subscribers a worker always knows."""
ASKED_AT_ONCE = 100
"""Names of one question: of the longest ones, so many fit into what workers tell each other."""
MAX_CHANNELS = 10_000
"""Channels of which it is remembered what the others said."""


class Audience(NamedTuple):
    """The listeners of a channel."""

    subscribers: int
    asked_for: float | None
    """Seconds since a client last asked for the channel; ``None``: not within the workers' memory."""


class Audiences:
    """Of any channel. Its methods are safe from any thread or greenlet."""

    def __init__(
        self,
        workers: Workers,
        membership: Membership,
        windows: Windows,
        request_times: RequestTimes,
        reactor: Reactor,
    ) -> None:
        self._workers = workers
        self._membership = membership
        self._windows = windows
        self._request_times = request_times
        self._clock = reactor.clock
        self._others: OrderedDict[str, tuple[float, Audience]] = OrderedDict()
        self._lock = allocate_lock()  # native: held while the answers are noted
        workers.on_question("audience", lambda names: [self._own(str(name)) for name in names])

    def of(self, names: Sequence[str]) -> list[Audience]:
        """The audience of each name. Blocks while the other workers answer.

        Raises:
            BackendUnavailable: The store cannot be reached.
        """
        unknown = [name for name in names if self._fresh(name) is None]
        if unknown:
            self._ask(unknown)
        return [_sum(self._own(name), self._fresh(name) or Audience(0, None)) for name in names]

    def own(self, names: Sequence[str]) -> list[Audience]:
        """The same of this worker alone, which asks nobody."""
        return [self._own(name) for name in names]

    def _own(self, name: str) -> Audience:
        asked_for = self._request_times.ago(name, self._clock())
        names = (name, *self._windows.patterns_of(name))
        return Audience(sum([count(dict(self._membership.followers(each) or {})) for each in names]), asked_for)

    def _fresh(self, name: str) -> Audience | None:
        known = self._others.get(name)
        return known[1] if known is not None and self._clock() - known[0] < FRESH_SECONDS else None

    def _ask(self, names: Sequence[str]) -> None:
        for begin in range(0, len(names), ASKED_AT_ONCE):
            self._ask_some(names[begin : begin + ASKED_AT_ONCE])

    def _ask_some(self, names: Sequence[str]) -> None:
        found = dict.fromkeys(names, Audience(0, None))
        for worker, value in self._workers.ask("audience", names, ANSWER_SECONDS):
            if worker != self._workers.id and isinstance(value, list):
                for name, theirs in zip(names, value, strict=False):
                    found[name] = _sum(found[name], Audience(*theirs))
        now = self._clock()
        with self._lock:
            for name, audience in found.items():
                self._others[name] = now, audience
                self._others.move_to_end(name)
            while len(self._others) > MAX_CHANNELS:
                self._others.popitem(last=False)


def _sum(one: Audience, other: Audience) -> Audience:
    ago = [asked_for for asked_for in (one.asked_for, other.asked_for) if asked_for is not None]
    return Audience(one.subscribers + other.subscribers, min(ago, default=None))
