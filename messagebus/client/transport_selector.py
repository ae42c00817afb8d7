"""Which transport to use next, and when. No I/O, no waiting: clock and dice are arguments.

The rules are those of ``docs/states.md``, which the JavaScript client follows as well. After a transport has failed,
one plain poll, the probe, asks whether the server is there: if it is not answered, the client waits for the server; if
it is, the transport gets a strike, and after enough strikes the next transport is used.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

from ..backoff import growing
from .settings import Settings
from .types import ConnectionState, Failure, StateInfo, Transport

logger = logging.getLogger("messagebus.client")

STRIKES = 3
"""Failures in a row after which a transport is left that has opened before."""
SETTLED = 10.0
"""Seconds after which an open connection has proved its transport."""
PLAIN_TIMEOUT = 20.0
"""Seconds for a poll that is not held."""
UPGRADE_FIRST, UPGRADE_MOST = 300.0, 3600.0
"""Seconds until a better transport is tried again, doubling."""
TOO_MANY_REQUESTS = 429
LEAST_AFTER_429 = 15.0
RETRY_AFTER_MOST = 3600.0
RECONNECT_MOST = 60.0
"""Seconds: the longest waits that a server's ``Retry-After`` and ``__reconnect`` can ask for."""
BACKOFF_BASE = 5
"""The first wait after a loss is up to this many times ``min_poll_interval``."""
BACKOFF_SHARE = 15.0
"""A client that has been away for some time waits a fifteenth of that time at most."""
_TIME_MENDS = (404, 408, 425, TOO_MANY_REQUESTS)
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
    timeout: float
    """Seconds that it has until its first batch, connecting included."""
    opened_at: float | None = None
    """When the first batch came."""
    batches: int = 0
    """How many it has brought, empty ones included."""
    progress: bool = False
    """Whether a position has moved."""
    reconnect: float | None = None
    """Seconds after which the server asked to come back, when it ended this connection early."""

    @property
    def opened(self) -> bool:
        return self.opened_at is not None

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
        self._failures = 0  # since a connection settled or a poll was answered
        self._lost_at = 0.0  # when the first of them happened
        self._strikes = 0  # in a row, of the transport in use
        self._struck: tuple[Attempt, Failure] | None = None  # what the probe under way is to judge
        self._plain_time = 0.0  # that the last plain poll took
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
        self._struck = None
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
        return Attempt(name, probe, greeting, self._clock(), self._timeout(name, name == "polling" or greeting))

    def better_attempt(self) -> Attempt:
        """The best transport, to be tried beside the connection in use; told of by :meth:`took_over` or
        :meth:`kept`."""
        best = self.usable()[0]
        self._upgrade_gap = min(self._upgrade_gap * 2, UPGRADE_MOST)
        self._upgrade_at = self._clock() + self._upgrade_gap
        return Attempt(best, False, False, self._clock(), self._timeout(best, best == "polling"))

    def attempt_beside(self, attempt: Attempt) -> Attempt:
        """Another of the same transport, to be opened beside a connection that its server is about to end; told of by
        :meth:`took_over` or :meth:`kept`."""
        return Attempt(attempt.transport, False, False, self._clock(), self._timeout(attempt.transport, False))

    def took_over(self, attempt: Attempt) -> None:
        """The connection that was opened beside the one in use has spoken, and is in use now."""
        self._current = attempt.transport
        self._strikes = 0
        self.opened(attempt)

    def kept(self, failure: Failure) -> None:
        """It did not open; the one in use goes on."""
        self.last_error = failure.message

    def _timeout(self, transport: Transport, plain: bool) -> float:
        if plain:
            return PLAIN_TIMEOUT
        if transport == "long-polling":
            return self._settings.heartbeat_timeout
        # On a slow line everything is slow, and no transport is to blame.
        return max(self._settings.first_chunk_timeout, 2 * self._plain_time)

    def opened(self, attempt: Attempt) -> None:
        """The bus has spoken: the first batch is here. May be repeated."""
        if attempt.opened:
            return
        attempt.opened_at = self._clock()
        self._refused = False
        if attempt.probe:
            return
        current = self.transport = self._current
        if current == self.usable()[0]:
            self._upgrade_gap = UPGRADE_FIRST
        if self.state == "reconnecting":
            self.reconnects += 1
        self._set_state("connected")

    def replace(self, attempt: Attempt) -> None:
        """It is given up for another of its kind at once: other channels are followed now."""
        self._settle(attempt)
        self._probe_next = attempt.probe
        self.next_at = self._clock()

    def retry(self) -> None:
        """Try at once, whatever is being waited for."""
        self._refused = False
        self.next_at = self._clock()

    def ended(self, attempt: Attempt, failure: Failure | None) -> None:
        """It has ended by itself: in good order (a poll was answered) or with a failure."""
        if attempt.plain and attempt.opened:
            self._plain_time = self._clock() - attempt.since
        settled = self._settle(attempt, failure) or failure is None
        if settled:
            self._failures = 0
        if attempt.reconnect is not None:
            self._wait(min(attempt.reconnect, RECONNECT_MOST))
            return
        if failure is None:
            if attempt.probe:
                self._probed()
            else:
                self._again(attempt)
            return
        if not self._failures:
            self._lost_at = self._clock()
        self._failures += 1
        self.last_error = failure.message
        status = failure.status
        # Of these two, browsers do not tell why they failed to open; a proxy may refuse them with any status. If the
        # server itself is the one that refuses, the poll that follows hears it as well.
        by_poll = attempt.transport not in ("websocket", "eventsource")
        if status == TOO_MANY_REQUESTS or (by_poll and failure.retry_after):
            self._wait(max(self._asked(failure), LEAST_AFTER_429 if status == TOO_MANY_REQUESTS else 0.0), failure)
        elif by_poll and needs_a_person(failure):
            self._refused = True
            self._wait(self._settings.max_poll_interval, failure)
        elif settled or (attempt.opened and failure.by_server):
            self._retry(failure)
        elif attempt.transport == "polling" or len(self.usable()) < 2:
            if not self._down:
                logger.warning("no connection, trying until there is one: %s", failure.message)
            self._down = True
            self._retry(failure)
        else:
            # The transport, or the server? Only the first is a reason to use a lesser one.
            self._struck = attempt, failure
            self._set_state(self._trouble(), failure)
            self._at_once(probe=True)

    def _settle(self, attempt: Attempt, failure: Failure | None = None) -> bool:
        """Whether an attempt that is over has proved its transport."""
        settled = attempt.opened_at is not None and self._clock() - attempt.opened_at >= SETTLED
        if failure is not None and failure.silence and attempt.batches < 2:
            settled = False  # a proxy that passes the first bytes and holds back the rest looks like that
        answered = attempt.opened and attempt.transport in ("long-polling", "polling") and not attempt.greeting
        if (settled or answered) and not attempt.probe:
            self._worked.add(attempt.transport)
            self._strikes = 0
        return settled

    def _probed(self) -> None:
        """The server is there: what failed before was the transport's fault."""
        struck, self._struck = self._struck, None
        if self._down or struck is None:  # it was the server: back to what was used before
            self._down = False
            self._strikes = 0
            self._at_once()
            return
        attempt, failure = struck
        if not attempt.opened and self._plain_time > attempt.timeout:
            self._at_once()  # the line is slow; the next attempt has more time
            return
        self._strikes += 1
        current = self._current
        assert current is not None
        gentle = attempt.opened or current in self._worked or failure.status == 503
        if self._strikes < (STRIKES if gentle else 1):
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
            self._wait(self._settings.callback_interval)  # the probes take the place of polling

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

    def _retry(self, failure: Failure | None = None) -> None:
        """Come back after a random wait. Not all clients of a server that restarts shall come at once; and a client
        that was away for a moment is back in a moment."""
        settings = self._settings
        base = settings.min_poll_interval * BACKOFF_BASE
        patient = max(base * 4, (self._clock() - self._lost_at) / BACKOFF_SHARE)
        longest = min(growing(base, self._failures - 1, settings.max_poll_interval), patient)
        self._wait(longest * self._dice(), failure)

    def _wait(self, delay: float, failure: Failure | None = None) -> None:
        self.next_at = self._clock() + delay
        self._set_state(self._trouble(), failure, delay)

    def _asked(self, failure: Failure) -> float:
        """Seconds that ``Retry-After`` asks to wait (RFC 9110, section 10.2.3: a number, or a date)."""
        text = (failure.retry_after or "").strip()
        if text.isascii() and text.isdigit():
            return min(float(text[:9]), RETRY_AFTER_MOST)
        try:
            return min(max(0.0, parsedate_to_datetime(text).timestamp() - self._wall_clock()), RETRY_AFTER_MOST)
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

    # --- the state ---

    def _trouble(self) -> ConnectionState:
        return "reconnecting" if self.transport else "connecting"

    def _set_state(self, state: ConnectionState, failure: Failure | None = None, delay: float | None = None) -> None:
        self.state = state
        before, self._told = self._told, (state, self.transport)
        if self._told != before or failure is not None:
            self._notify(state, _info(self.transport, failure, delay))


def needs_a_person(failure: Failure) -> bool:
    """Whether waiting cannot mend it: the server, or something before it, does not take this client as it is."""
    status = failure.status
    return failure.code in ("redirected", "not_a_batch") or (
        status is not None and 400 <= status < 500 and status not in _TIME_MENDS
    )


def _info(transport: Transport | None, failure: Failure | None, delay: float | None) -> StateInfo:
    if failure is None:
        return StateInfo(transport, delay=delay)
    return StateInfo(
        transport, failure.message, failure.status, delay, failure.code, failure.url, not needs_a_person(failure)
    )
