"""Calls the program's functions when members come and go: one after the other, outside of the loop."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable

from ..loop.jobs import Jobs
from ..loop.reactor import Reactor
from ..presence.member import Member
from ..presence.rules import PresenceRules, channel_of

logger = logging.getLogger("messagebus.hub")

MAX_WAITING = 10_000
"""Calls that may wait for a slow function; further ones are dropped, and logged."""


class HookRunner:
    """See the module. ``add`` in the reactor's loop only."""

    def __init__(self, rules: PresenceRules, reactor: Reactor, report: Callable[[Exception, str], object]) -> None:
        self._rules = rules
        self._reactor = reactor
        self._report = report
        self._jobs = Jobs(1, "messagebus-presence")
        self._waiting: deque[tuple[str, Member, bool]] = deque()
        self._is_running = False
        self._dropped = 0

    def add(self, room: str, member: Member, joined: bool) -> None:
        """Somebody has come into a room, or gone."""
        if not self._rules.hooks(room, joined):
            return
        if len(self._waiting) >= MAX_WAITING:
            self._dropped += 1
            if self._dropped == 1:
                logger.error("on_join and on_leave functions are too slow: calls are dropped")
            return
        self._waiting.append((room, member, joined))
        if not self._is_running:
            self._begin()

    def _begin(self) -> None:
        try:
            self._jobs.start(self._run)
            self._is_running = True
        except RuntimeError:
            logger.exception("on_join and on_leave functions wait, until somebody else joins or leaves")

    def stop(self) -> None:
        """Call nothing more, after the present one. From any thread."""
        self._waiting.clear()
        self._jobs.stop()

    def _run(self) -> None:
        """In one thread or greenlet at a time, so that calls keep their order."""
        try:
            while self._waiting:
                try:
                    room, member, joined = self._waiting.popleft()
                except IndexError:  # stopped in between
                    return
                for hook in self._rules.hooks(room, joined):
                    try:
                        hook(channel_of(room), member)
                    except Exception as error:
                        what = "on_join" if joined else "on_leave"
                        self._report(error, f"the {what} function of {channel_of(room)}, member {member.id!r:.100}")
        finally:
            self._reactor.call_soon(self._ran)

    def _ran(self) -> None:
        self._is_running = False
        if self._waiting:
            self._begin()
        else:
            self._dropped = 0
