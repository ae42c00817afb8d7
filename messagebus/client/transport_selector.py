"""Which transport to use next, and when. No I/O, no waiting: clock and dice are arguments.

The rules are those of the JavaScript client. A transport that fails to open, or stays silent, is followed by one plain
poll: where that is answered too little, the server is gone and all wait for it; where it is, the transport is to blame
and the next one is used.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

from .settings import Settings
from .types import ConnectionState, Failure, StateInfo, Transport

logger = logging.getLogger("messagebus.client")

STRIKES = 3
"""Failures to open again, after which a transport that had worked is left."""
SETTLED = 5.0
"""Seconds after which a connection has proved itself."""
PLAIN_TIMEOUT = 20.0
"""Seconds for a poll that is not held."""
UPGRADE_FIRST, UPGRADE_MOST = 300.0, 3600.0
"""Seconds until a better transport is tried again, doubling."""
TOO_MANY_REQUESTS = 429
LEAST_AFTER_429 = 15.0
_COME_AGAIN = (404, 408, 425)
"""A proxy may answer 404 during a deployment; the others ask to come again."""


@dataclass(slots=True)
class Attempt:
    """One connection or request, and what has become of it."""

    transport: Transport
    probe: bool
    """Whether it only asks if the server is there."""
    greeting: bool
    """A held poll is silent while all is well, so the first is not held: then we know."""
    since: float
    opened: bool = False
    progress: bool = False
    """Whether a position has moved."""
    carried: bool = False
    """Whether it has brought a message."""

    @property
    def plain(self) -> bool:
        """Whether it is a poll that is not held."""
        return self.transport == "polling" or self.greeting


class TransportSelector:
    """See the module. Used by one thread at a time; it outlives connections, and remembers what worked."""

    def __init__(
        self,
        settings: Settings,
        *,
        notify: Callable[[ConnectionState, StateInfo], None] = lambda state, info: None,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        dice: Callable[[], float] = random.random,
    ) -> None:
        """``clock``, ``wall_clock``: seconds. ``dice``: numbers from 0 to 1."""
        self._settings = settings
        self._notify = notify
        self._clock = clock
        self._wall_clock = wall_clock
        self._dice = dice
        self.state: ConnectionState = "stopped"
        self.transport: Transport | None = None
        """The last that opened."""
        self.next_at = 0.0
        """When the next attempt is due, by ``clock``."""
        self.query_fits = True
        """Whether all channels fit into the line of an EventSource request."""
        self.last_error: str | None = None
        self.reconnects = 0
        self._current: Transport | None = None
        self._told: tuple[ConnectionState, Transport | None] = ("stopped", None)
        self._worked: set[Transport] = set()
        self._failures = 0  # in a row, of any kind
        self._strikes = 0  # in a row, of this transport to open
        self._down = self._refused = self._probe_next = False
        self._held_requests = 0
        self._upgrade_at, self._upgrade_gap = 0.0, UPGRADE_FIRST

    def start(self) -> None:
        """What follows may begin at once."""
        now = self._clock()
        self.next_at = now
        self._upgrade_at = now + self._upgrade_gap
        self._set_state("connecting")

    def stop(self) -> None:
        """Forget what goes on, but not what worked."""
        self._down = self._refused = self._probe_next = False
        self._failures = self._strikes = 0
        self.transport = None
        self._set_state("stopped")

    def usable(self) -> list[Transport]:
        """The transports of the settings that can be used now; never empty."""
        settings = self._settings
        barred: set[Transport] = set()
        if not self.query_fits:
            barred.add("eventsource")
        if not (settings.enable_long_polling and settings.enable_chunked_encoding):
            barred.add("streaming")
        if not settings.enable_long_polling:
            barred.add("long-polling")
        return [name for name in settings.transports if name not in barred] or ["polling"]

    # --- attempts ---

    def attempt(self) -> Attempt:
        """What to open now."""
        usable = self.usable()
        current = self._current
        if current is None or current not in usable:
            current = self._current = usable[0]
        probe = self._probe_next or (self._down and current != "polling" and len(usable) > 1)
        self._probe_next = False
        name: Transport = "polling" if probe else current
        greeting = name == "long-polling" and self.state != "connected"
        return Attempt(name, probe, greeting, self._clock())

    def opened(self, attempt: Attempt) -> None:
        """It works: the handshake was answered, or the first batch is here. May be repeated."""
        if attempt.opened:
            return
        attempt.opened = True
        self._refused = False
        if attempt.probe:
            return
        current = self.transport = self._current
        if current == self.usable()[0]:
            self._upgrade_gap = UPGRADE_FIRST
        if current is not None and not attempt.greeting:
            self._worked.add(current)
        if self.state == "reconnecting":
            self.reconnects += 1
        self._set_state("connected")

    def moved(self, attempt: Attempt, *, carried: bool) -> None:
        """It has moved a position, with a message or without one."""
        attempt.progress = True
        if carried:
            attempt.carried = True
            self._failures = 0

    def replace(self, attempt: Attempt) -> None:
        """It is given up for another of its kind at once: other channels are followed now."""
        self._probe_next = attempt.probe
        self.next_at = self._clock()

    def ended(self, attempt: Attempt, failure: Failure | None) -> None:
        """It has ended by itself: in good order (a poll was answered) or with a problem."""
        settled = attempt.carried or self._clock() - attempt.since >= SETTLED
        proved = attempt.opened and settled
        if failure is None or proved:
            self._failures = 0
            if not attempt.probe and not attempt.greeting:
                self._strikes = 0
        if failure is None:
            if attempt.probe:
                self._probed()
            else:
                self._again(attempt)
            return
        self._failures += 1
        self.last_error = failure.message
        status = failure.status
        # Of these two, browsers do not tell why they failed to open; a proxy may refuse them with any status. If the
        # server itself is the one that refuses, the poll that follows hears it as well.
        by_poll = attempt.transport not in ("websocket", "eventsource")
        if status == TOO_MANY_REQUESTS or (by_poll and failure.retry_after):
            self._retry(failure, max(self._asked(failure), LEAST_AFTER_429 if status == TOO_MANY_REQUESTS else 0.0))
        elif by_poll and status is not None and 400 <= status < 500 and status not in _COME_AGAIN:
            self._refused = True
            self._retry(failure, self._settings.max_poll_interval)
        elif proved:
            self._retry(failure)
        elif attempt.transport == "polling" or len(self.usable()) < 2:
            if not self._down:
                logger.warning("no connection, trying until there is one: %s", failure.message)
            self._down = True
            self._retry(failure)
        else:
            # The transport, or the server? Only the first is a reason to use a lesser one.
            self._strikes += 1
            self._set_state(self._trouble(), failure)
            self._at_once(probe=True)

    def _probed(self) -> None:
        if self._down:  # it was the server: back to what was used before
            self._down = False
            self._strikes = 0
            self._at_once()
            return
        current = self._current
        assert current is not None
        if self._strikes < (STRIKES if current in self._worked else 1):
            self._failures = self._strikes
            self._retry()
            return
        self._worked.discard(current)
        self._strikes = 0
        self._upgrade_at = self._clock() + self._upgrade_gap
        usable = self.usable()
        after = usable.index(current) + 1 if current in usable else 0
        if after < len(usable):
            self._current = usable[after]
            self._at_once()
        else:
            self._current = usable[0]
            self._retry(at_least=self._settings.callback_interval)  # the probes take the place of polling

    def _again(self, attempt: Attempt) -> None:
        """After a poll: soon if it brought something or was held, else at the interval."""
        now = self._clock()
        elapsed = now - attempt.since
        if attempt.transport == "long-polling" and not attempt.plain:
            self._held_requests += 1
            if self._held_requests >= self._settings.retry_chunked_after_requests:
                self._held_requests = 0
                if "streaming" in self.usable():
                    self._current = "streaming"
        held = not attempt.plain and elapsed > 1.0  # a server that holds as many as it can answers at once
        soon = attempt.progress or held or attempt.greeting
        wait = 0.0 if soon else self._settings.callback_interval - elapsed
        self.next_at = now + max(wait, self._settings.min_poll_interval)

    def _at_once(self, *, probe: bool = False) -> None:
        self._probe_next = probe
        self.next_at = self._clock()

    def _retry(self, failure: Failure | None = None, at_least: float = 0.0) -> None:
        settings = self._settings
        grown = settings.min_poll_interval * 2 ** min(self._failures, 30)
        # Jitter: not all clients of a server that restarts shall come at once.
        delay = max(min(grown, settings.max_poll_interval) * (0.5 + self._dice() / 2), at_least)
        self.next_at = self._clock() + delay
        self._set_state(self._trouble(), failure, delay)

    def _asked(self, failure: Failure) -> float:
        """Seconds that ``Retry-After`` asks to wait (RFC 9110, section 10.2.3: a number, or a date)."""
        text = (failure.retry_after or "").strip()
        if text.isascii() and text.isdigit():
            return float(text[:9])
        try:
            return max(0.0, parsedate_to_datetime(text).timestamp() - self._wall_clock())
        except (ValueError, TypeError, OverflowError):
            return 0.0

    @property
    def waits_for_channels(self) -> bool:
        """Whether other channels are a reason to come at once, where no connection is open; a backoff goes on."""
        return not self._failures or self._refused

    # --- better transports ---

    @property
    def better_at(self) -> float | None:
        """When to leave a connection that works for a better transport; ``None`` where there is none."""
        is_lesser = self.state == "connected" and self.transport == self._current != self.usable()[0]
        return self._upgrade_at if is_lesser else None

    def try_better(self) -> None:
        """Begin with the best one again."""
        now = self._clock()
        self._upgrade_gap = min(self._upgrade_gap * 2, UPGRADE_MOST)
        self._upgrade_at = now + self._upgrade_gap
        self._strikes = 0
        self._current = self.usable()[0]
        self.next_at = now

    # --- the state ---

    def _trouble(self) -> ConnectionState:
        return "reconnecting" if self.transport else "connecting"

    def _set_state(self, state: ConnectionState, failure: Failure | None = None, delay: float | None = None) -> None:
        self.state = state
        before, self._told = self._told, (state, self.transport)
        if self._told != before or failure is not None:
            message, status = (failure.message, failure.status) if failure else (None, None)
            self._notify(state, StateInfo(self.transport, message, status, delay))
