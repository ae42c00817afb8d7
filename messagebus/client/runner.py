"""The thread of a client: one connection after the other, and the program's callbacks, in order.

Everything here happens in that thread but for :meth:`Runner.changed`, :meth:`Runner.publish` and :meth:`Runner.stop`.
"""

from __future__ import annotations

import json
import logging
import ssl
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from .byte_stream import Stopped, Waiter
from .channels import Channels, Following, encode_query
from .http11 import HttpConnection, LinkEnded
from .links import ERRORS, EventSourceLink, PollLink, TransportLink, WebSocketLink
from .settings import Address, Settings
from .transport_selector import PLAIN_TIMEOUT, Attempt, TransportSelector
from .types import Callback, ClientMessage, Failure, Gap, OnGap, Position, PublishError

logger = logging.getLogger("messagebus.client")

QUERY_LIMIT = 3000
"""Characters; servers refuse request lines from 4 KB on."""
CHANGE_DELAY = 0.05
"""Seconds that changes of channels are gathered for: many subscribes in a row make one request, and no more commands
than a server takes."""
OWN_HEADERS = {"User-Agent": "messagebus-python", "X-SILENCE-LOGGER": "true"}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a client connects, and as whom."""

    address: Address
    client_id: str
    headers: dict[str, str]
    context: ssl.SSLContext | None

    @property
    def base(self) -> str:
        return f"{self.address.path}{self.client_id}/"


@dataclass(slots=True)
class Counters:
    """What has happened since the client was made."""

    requests: int = 0
    messages: int = 0
    bytes: int = 0
    sequence: int = 0
    """``__seq`` of the last poll: it must not fall while the client keeps its id."""


@dataclass(eq=False)
class Call:
    """A publish that waits for its answer."""

    command: dict[str, Any]
    done: threading.Event = field(default_factory=threading.Event)
    answer: Any = None
    error: PublishError | None = None

    def fail(self, code: str, message: str) -> None:
        self.error = PublishError(code, message)
        self.done.set()


class Runner:
    """See the module. It runs once, from :meth:`start` to :meth:`stop`."""

    def __init__(
        self,
        endpoint: Endpoint,
        settings: Settings,
        plan: TransportSelector,
        channels: Channels,
        counters: Counters,
        on_gap: Callable[[], OnGap | None],
        before: Runner | None = None,
    ) -> None:
        """``on_gap``: looked up at every use. ``before``: one that was stopped, and whose end is waited for."""
        self._endpoint = endpoint
        self._settings = settings
        self._selector = plan
        self._channels = channels
        self._counters = counters
        self._on_gap = on_gap
        self._before = before
        self._waiter = Waiter()
        self._clock = self._waiter.clock
        self._http = HttpConnection(self._waiter, endpoint.address, endpoint.context)
        self._changed = False
        self._can_publish = False
        self._calls: deque[Call] = deque()
        self._unanswered: dict[int, Call] = {}
        self._call_number = 0
        self._counted = 0  # bytes of the link in use
        self.thread = threading.Thread(target=self._run, name="messagebus-client", daemon=True)

    # --- from any thread ---

    def start(self) -> None:
        self.thread.start()

    def stop(self) -> None:
        """Have it end as soon as the callback under way returns; waits for nothing."""
        self._waiter.stop()

    @property
    def stopping(self) -> bool:
        return self._waiter.stopping

    def changed(self) -> None:
        """Channels have come or gone."""
        self._changed = True
        self._waiter.wake()

    def publish(self, channel: str, data: Any, timeout: float) -> Any:
        """What the server answers to a publish. Raises PublishError."""
        call = Call({"publish": {"channel": channel, "data": data}})
        if not self._can_publish:
            raise PublishError("unsupported", "publishing needs an open WebSocket")
        self._calls.append(call)
        self._waiter.wake()
        if not call.done.wait(timeout):
            raise PublishError("timeout", f"no answer within {timeout:g} s; it may or may not have been published")
        if call.error is not None:
            raise call.error
        return call.answer

    # --- the thread ---

    def _run(self) -> None:
        try:
            if self._before is not None:
                self._before.thread.join()
                self._before = None
            self._selector.start()
            while True:
                self._wait_for_turn()
                self._follow(self._selector.attempt())
        except Stopped:
            pass
        except BaseException:
            logger.exception("the client's thread failed; it has stopped")
            raise
        finally:
            self._fail_calls()
            self._http.close()
            self._waiter.close()
            self._selector.stop()

    def _wait_for_turn(self) -> None:
        """Until the next attempt is due, and there is something to follow."""
        while True:
            self._waiter.check()
            self._fail_calls()
            deadline: float | None = self._selector.next_at
            if not self._channels:
                deadline = None
            elif self._clock() >= self._selector.next_at:
                if (better_at := self._selector.better_at) is not None and self._clock() >= better_at:
                    self._selector.try_better()
                break
            elif self._changed and self._selector.waits_for_channels:
                self._gather()
                break
            self._waiter.wait(deadline)
        self._changed = False
        query = encode_query(self._channels.positions(), self._channels.epoch, self._channels.grants)
        self._selector.query_fits = len(query) <= QUERY_LIMIT

    def _gather(self) -> None:
        deadline = self._clock() + CHANGE_DELAY
        while self._clock() < deadline:
            self._waiter.wait(deadline)

    def _follow(self, attempt: Attempt) -> None:
        """Open a connection, and read it until it ends, other channels are wanted or a better one is due."""
        asked = self._channels.followed()
        link = self._make(attempt, asked)
        failure: Failure | None
        try:
            self._counters.requests += 1
            self._counted = 0
            link.open(attempt.since + self._first_timeout(attempt))
            if link.speaks:
                self._selector.opened(attempt)
                self._can_publish = True
                # A long list of channels has not all been asked for yet.
                if not self._follows_all(link, attempt, asked):
                    return
            self._read(link, attempt, asked)
            return
        except LinkEnded as ended:
            failure = ended.failure
        except ERRORS as error:
            failure = Failure(f"{type(error).__name__}: {error}")
        except Stopped:
            raise
        except Exception as error:
            logger.exception("following the channels failed; trying again")
            failure = Failure(f"{type(error).__name__}: {error}")
        finally:
            self._can_publish = False
            link.close()
            self._count(link)
            self._fail_calls()
        if failure is not None:
            # What a WebSocket or an EventSource is told may be a proxy's; a poll follows, which hears the server
            # itself.
            refused = failure.status in (401, 403) and attempt.transport not in ("websocket", "eventsource")
            level = logging.WARNING if refused else logging.INFO
            logger.log(level, "%s to %s: %s", attempt.transport, self._endpoint.address.authority, failure.message)
        self._selector.ended(attempt, failure)

    def _read(self, link: TransportLink, attempt: Attempt, asked: Following) -> None:
        while True:
            if self._changed:
                self._gather()
                self._changed = False
                if not self._follows_all(link, attempt, asked):
                    return
            self._send_calls(link)
            silent_at = self._silent_at(link, attempt)
            better_at = self._selector.better_at
            text = link.read(silent_at if better_at is None else min(silent_at, better_at))
            self._count(link)
            if text is not None:
                self._receive(text, attempt, asked)
            elif self._clock() >= self._silent_at(link, attempt):
                raise LinkEnded(Failure("nothing came for too long"))
            elif better_at is not None and self._clock() >= better_at:
                self._selector.try_better()
                return

    def _first_timeout(self, attempt: Attempt) -> float:
        """Seconds for the first batch, connecting included."""
        if attempt.plain:
            return PLAIN_TIMEOUT
        if attempt.transport == "long-polling":
            return self._settings.heartbeat_timeout
        return self._settings.first_chunk_timeout

    def _silent_at(self, link: TransportLink, attempt: Attempt) -> float:
        if attempt.opened or link.begun:  # bytes get through, if slowly
            return link.heard + self._settings.heartbeat_timeout
        return attempt.since + self._first_timeout(attempt)

    def _make(self, attempt: Attempt, asked: Following) -> TransportLink:
        endpoint, name = self._endpoint, attempt.transport
        positions = {one: channel.position for one, channel in asked.items() if channel}
        epoch, grants = self._channels.epoch, self._channels.grants
        given = {name.lower() for name in endpoint.headers}
        headers = {**endpoint.headers, **{own: value for own, value in OWN_HEADERS.items() if own.lower() not in given}}
        if name == "websocket":
            self._fit(asked, positions)  # the rest follows when it is open
            query = encode_query(positions, epoch, grants)
            return WebSocketLink(self._waiter, endpoint.address, endpoint.context, endpoint.base, headers, query)
        if name == "eventsource":
            return EventSourceLink(self._http, endpoint.base, headers, encode_query(positions, epoch, grants))
        stream = name == "streaming"
        if epoch is None and (stream or attempt.plain):
            # Asks for it. Not on a poll that is held for one batch: a server that knows nothing of epochs takes the key
            # for a channel with news, and would answer each at once.
            epoch = ""
        self._counters.sequence += 1
        form = encode_query(positions, epoch, grants, __seq=self._counters.sequence)
        return PollLink(self._http, endpoint.base, headers, form, plain=attempt.plain, stream=stream)

    def _fit(self, asked: Following, positions: dict[str, Position]) -> None:
        """Leave out the channels that a request line has no room for."""
        room = QUERY_LIMIT - len(encode_query({}, self._channels.epoch, self._channels.grants))
        for name, position in list(positions.items()):
            size = len(encode_query({name: position}, None)) + 1
            if size > room:
                del asked[name], positions[name]
            else:
                room -= size

    # --- channels and publishes, on an open connection ---

    def _follows_all(self, link: TransportLink, attempt: Attempt, asked: Following) -> bool:
        """Have the connection follow what is wanted now; ``False`` where it has to be given up for that."""
        added, removed = self._channels.compare(asked)
        if not added and not removed:
            return True
        # Left and followed anew: on one connection old and new messages could not be told apart.
        if not self._channels or not link.speaks or any(name in asked for name in added):
            self._selector.replace(attempt)
            return False
        self._ask(link, asked, added, removed)
        return True

    def _send_calls(self, link: TransportLink) -> None:
        while self._calls and link.speaks:
            call = self._calls.popleft()
            self._call_number += 1
            self._unanswered[self._call_number] = call
            link.send({**call.command, "id": self._call_number})

    def _ask(self, link: TransportLink, asked: Following, added: list[str], removed: list[str]) -> None:
        now = self._channels.followed()
        asked.update(dict.fromkeys(removed))
        wanted = {name: channel for name in added if (channel := now.get(name)) is not None}
        asked.update(wanted)
        if removed:
            link.send({"unsubscribe": removed})
        if wanted:
            grants = {"grants": list(self._channels.grants)} if self._channels.grants else {}
            link.send({"subscribe": {name: channel.position for name, channel in wanted.items()}, **grants})

    def _answered(self, answer: dict[str, Any]) -> None:
        number, error = answer.get("id"), answer.get("error")
        call = self._unanswered.pop(number, None) if isinstance(number, int) else None
        if isinstance(error, dict):
            code, message = str(error.get("code")), str(error.get("message"))
            if call is not None:
                call.fail(code, message)
            else:
                self._selector.last_error = message
                logger.warning("the server refused: %s %s", code, message)
        elif call is not None:
            call.answer = answer.get("ok")
            call.done.set()

    def _fail_calls(self) -> None:
        for call in self._unanswered.values():
            call.fail("disconnected", "no answer came; it may or may not have been published")
        self._unanswered.clear()
        while self._calls:
            self._calls.popleft().fail("unsupported", "publishing needs an open WebSocket")

    # --- what the server sends ---

    def _count(self, link: TransportLink) -> None:
        self._counters.bytes += link.received - self._counted
        self._counted = link.received

    def _receive(self, text: bytes, attempt: Attempt, asked: Following) -> None:
        batch = json.loads(text)
        if isinstance(batch, dict) and attempt.transport == "websocket":
            self._answered(batch)
            return
        if not isinstance(batch, list):
            raise ValueError("the answer is not a batch")
        self._selector.opened(attempt)
        for message in batch:
            # A stop in between leaves the rest for the next start: its positions have not moved yet.
            self._waiter.check()
            before = self._channels.moves
            deliveries = self._channels.accept(message, asked)
            if self._channels.moves != before:
                carried = any(isinstance(delivery.value, ClientMessage) for delivery in deliveries)
                self._selector.moved(attempt, carried=carried)
            for channel, value in deliveries:
                if isinstance(value, Gap):
                    self._guard(self._on_gap(), value, "on_gap")
                    continue
                self._counters.messages += 1
                for callback in channel.callbacks:
                    if callback in channel.callbacks:  # one that came before may have removed it
                        self._guard(callback, value, f"a callback of {value.channel}")

    def _guard(self, function: OnGap | Callback | None, value: Any, what: str) -> None:
        try:
            if function is not None:
                function(value)
        except Exception:
            logger.exception("%s failed", what)
