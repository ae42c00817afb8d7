"""Runs a started client: one connection after the other, and the program's callbacks, in order.

It runs in the client's thread, or in a task of the event loop; :meth:`Runner.stop`, :meth:`Runner.changed`,
:meth:`Runner.retry` and :meth:`Runner.put` may be called from elsewhere.
"""

from __future__ import annotations

import json
import logging
from collections import deque
from typing import Any

from ..message import STATUS_CHANNEL
from ..wire import MOVING_KEY, RECONNECT_KEY
from .channels import REFUSED_CHANNEL, Channels, Delivery, Following
from .commands import Call, Commands
from .connector import Connector, Counters, Endpoint
from .delivery import Deliverer, Hooks
from .http11 import LinkEnded
from .links import ERRORS, TransportLink
from .moving import Move
from .open_link import OpenLink
from .settings import Settings
from .transport_selector import Attempt, TransportSelector, needs_a_person
from .types import Failure, PublishError, Refusal
from .waiting import Stopped, Waiter

logger = logging.getLogger("messagebus.client")

CHANGE_DELAY = 0.05
"""Seconds that changes of channels are gathered for: many subscribes in a row make one request, and no more commands
than a server takes."""
MAX_EARLY = 1000
"""Batches that may wait while a callback publishes."""


class Runner:
    """See the module. It runs once, from :meth:`start` to :meth:`stop`."""

    def __init__(
        self,
        endpoint: Endpoint,
        settings: Settings,
        selector: TransportSelector,
        channels: Channels,
        counters: Counters,
        hooks: Hooks,
        waiter: Waiter,
    ) -> None:
        self._settings = settings
        self._selector = selector
        self._channels = channels
        self._counters = counters
        self._waiter = waiter
        self._clock = self._waiter.clock
        self._connector = Connector(endpoint, channels, counters, waiter)
        self._deliverer = Deliverer(channels, counters, hooks)
        self._http = self._connector.new_http()
        self._open: OpenLink | None = None
        self._changed = False
        self._retry = False
        self._ask_at: float | None = None  # when a channel that was refused is asked for again
        self._commands = Commands()
        self._early: deque[bytes] = deque()  # what came while a callback published
        self._broken: Exception | None = None  # why the connection ended meanwhile

    # --- from any thread ---

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

    def retry(self) -> None:
        """Try at once, and ask again for refused channels."""
        self._retry = True
        self.changed()

    def put(self, call: Call) -> None:
        """Send a command. Raises PublishError if no connection can carry it."""
        current = self._open
        if self.stopping or current is None or not current.link.speaks or not current.attempt.opened:
            raise PublishError("unsupported", "publishing needs an open WebSocket")
        self._commands.put(call)
        self._waiter.wake()

    # --- the thread, or the task ---

    async def run(self) -> None:
        """Run until stopped. To be called once."""
        try:
            self._selector.start()
            while True:
                await self._wait_for_turn()
                better_at = self._selector.better_at
                better = await self._try_better() if better_at is not None and self._clock() >= better_at else None
                await self._follow(better or self._selector.attempt())
        except Stopped:
            pass
        except Exception:
            logger.exception("the client failed; it has stopped")
            raise
        finally:
            self._waiter.stopping = True
            self._commands.fail_all()
            self._http.close()
            self._waiter.close()
            self._selector.stop()

    async def _wait_for_turn(self) -> None:
        """Until the next attempt is due, and there is something to follow."""
        while True:
            self._waiter.check()
            self._commands.fail_all()
            self._take_retry()
            now = self._clock()
            deadline: float | None = self._selector.next_at
            if not self._channels.followed(now):
                deadline = self._channels.next_ask(now)
            elif now >= self._selector.next_at:
                break
            elif self._changed and self._selector.waits_for_channels:
                await self._gather()
                break
            await self._waiter.wait(deadline)
        self._changed = False

    def _take_retry(self) -> None:
        if self._retry:
            self._retry = False
            self._channels.ask_again()
            self._selector.retry()

    async def _gather(self) -> None:
        deadline = self._clock() + CHANGE_DELAY
        while self._clock() < deadline:
            await self._waiter.wait(deadline)

    async def _follow(self, begin: OpenLink | Attempt) -> None:
        """Open a connection unless it is open, and read it until it ends or other channels are wanted. A better one may
        take its place meanwhile."""
        attempt = begin.attempt if isinstance(begin, OpenLink) else begin
        failure: Failure | None
        try:
            better: OpenLink | None = begin if isinstance(begin, OpenLink) else await self._connect(begin)
            while better is not None:
                attempt = better.attempt
                # A long list of channels has not all been asked for yet.
                if better.link.speaks and not await self._follows_all(better):
                    return
                better = await self._read(better)
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
            self._close()
        if failure is not None:
            # What a WebSocket or an EventSource is told may be a proxy's; a poll follows, which hears the server
            # itself.
            refused = needs_a_person(failure) and attempt.transport not in ("websocket", "eventsource")
            level = logging.WARNING if refused else logging.INFO
            logger.log(
                level, "%s to %s: %s", attempt.transport, self._connector.endpoint.address.authority, failure.message
            )
        self._selector.ended(attempt, failure)

    async def _connect(self, attempt: Attempt) -> OpenLink:
        await self._connector.renew_credentials()
        asked = self._channels.followed(self._clock())
        self._selector.query_fits = self._connector.fits_query(asked)
        link = self._connector.link(attempt, asked, self._http)
        current = self._open = OpenLink(link, attempt, Move(self._clock), asked)
        self._early.clear()
        self._broken = None
        await link.open(attempt.since + attempt.timeout)
        return current

    def _close(self) -> None:
        current, self._open = self._open, None
        if current is not None:
            current.link.close()
            self._counters.bytes += current.take_bytes()
        self._commands.fail_all()

    async def _read(self, current: OpenLink) -> OpenLink | None:
        """Read until other channels are wanted (``None``), or another connection has taken its place."""
        link = current.link
        while True:
            self._take_retry()
            if self._changed or (self._ask_at is not None and self._clock() >= self._ask_at):
                await self._gather()
                self._changed = False
                if not await self._follows_all(current):
                    return None
                self._ask_at = self._channels.next_ask(self._clock())
            is_leaving = current.is_leaving(self._clock())
            if is_leaving and self._commands.all_answered:
                if (moved := await self._move(current)) is not None:
                    return moved
                continue
            if not is_leaving:  # otherwise they are for the next connection
                await self._commands.send_waiting(link)
            better_at, silence = self._selector.better_at, self._settings.heartbeat_timeout
            others = (better_at, current.move.at_after(self._clock()), self._ask_at)
            deadlines = [current.silent_at(silence), *(at for at in others if at is not None)]
            text = await self._next_text(link, min(deadlines))
            self._counters.bytes += current.take_bytes()
            now = self._clock()
            if text is not None:
                await self._receive(text, current)
            elif now >= current.silent_at(silence):
                raise LinkEnded(Failure("nothing came for too long", silence=True))
            elif better_at is not None and now >= better_at and (better := await self._try_better()) is not None:
                return better

    async def _next_text(self, link: TransportLink, deadline: float) -> bytes | None:
        if self._early:
            return self._early.popleft()
        if self._broken is not None:
            raise self._broken
        return await link.read(deadline)

    async def _try_better(self) -> OpenLink | None:
        """Try the best transport beside the one in use."""
        return await self._open_beside(self._selector.better_attempt())

    async def _move(self, current: OpenLink) -> OpenLink | None:
        """The server is about to end: open a connection beside the one to it, which may lead elsewhere."""
        moved = await self._open_beside(self._selector.attempt_beside(current.attempt))
        if moved is None:
            current.move.failed()
        return moved

    async def _open_beside(self, attempt: Attempt) -> OpenLink | None:
        """Open a connection beside the one in use, which waits meanwhile; the change has happened where one is
        returned. It asks for what has not been delivered, so that what the other has yet to bring comes on it."""
        asked = self._channels.followed(self._clock())
        try:
            link, http, text = await self._connector.open_beside(attempt, asked)
        except (LinkEnded, *ERRORS) as error:
            failure = error.failure if isinstance(error, LinkEnded) else None
            self._selector.kept(failure or Failure(f"{type(error).__name__}: {error}"))
            return None
        if self._open is not None:
            self._open.link.close()
            self._counters.bytes += self._open.take_bytes()
        if link.speaks:
            self._commands.fail_sent()
        else:
            self._commands.fail_all()
        self._http.close()
        self._http = http
        self._broken = None
        taken = self._open = OpenLink(link, attempt, Move(self._clock), asked)
        self._selector.took_over(attempt)
        self._early.append(text)
        return taken

    # --- channels and publishes, on an open connection ---

    async def _follows_all(self, current: OpenLink) -> bool:
        """Have the connection follow what is wanted now; ``False`` where it has to be given up for that."""
        now = self._clock()
        asked = current.asked_in_all
        added, removed = self._channels.compare(asked, now)
        if not added and not removed:
            return True
        wanted = self._channels.followed(now)
        if not wanted or not current.link.speaks:
            self._selector.replace(current.attempt)
            return False
        # Those that were left and are followed again as well: they are other subscriptions.
        removed += [name for name in added if asked.get(name)]
        for name in removed:
            current.asked.pop(name, None)
            current.awaited.pop(name, None)
        if removed:
            await current.link.send({"unsubscribe": removed})
        new: Following = {name: wanted[name] for name in added if name in wanted}
        if new:
            await self._connector.renew_credentials()  # grants may have been renewed since the connection began
            current.awaited.update(new)
            grants = {"grants": list(self._connector.grants)} if self._connector.grants else {}
            positions = {name: channel.position for name, channel in new.items() if channel}
            await self._commands.send(current.link, Call({"subscribe": positions, **grants}, new))
        return True

    async def await_within_callback(self, call: Call, timeout: float) -> None:
        """For a callback that waits for an answer: read on until it is there. Batches that come before it wait until
        the callback has returned."""
        deadline = self._clock() + timeout
        link = self._open.link if self._open is not None else None
        try:
            if link is None:
                raise LinkEnded(None)
            await self._commands.send_waiting(link)
            while not call.done.is_set() and self._clock() < deadline and len(self._early) < MAX_EARLY:
                text = await link.read(deadline)
                if text is not None and not await self._take_answer(text):
                    self._early.append(text)
        except (LinkEnded, Stopped, *ERRORS) as error:
            self._broken = error  # for the loop that called the callback
            call.fail("disconnected", "no answer came; it may or may not have been published")
        if not call.done.is_set():
            call.fail("timeout", f"no answer within {timeout:g} s; it may or may not have been published")

    async def _take_answer(self, text: bytes) -> bool:
        """Whether it was an answer to a command, and not a batch."""
        if not text.startswith(b"{"):
            return False
        await self._answered(json.loads(text))
        return True

    async def _answered(self, answer: dict[str, Any]) -> None:
        call, error = self._commands.answered(answer), answer.get("error")
        if isinstance(error, dict) and (call is None or call.channels):
            self._selector.last_error = str(error.get("message"))
            logger.warning("the server refused: %s %s", error.get("code"), error.get("message"))
        current = self._open
        if call is None or not call.channels or current is None:
            return
        for name, channel in call.channels.items():
            if current.awaited.get(name) is channel:
                current.asked[name] = current.awaited.pop(name)
        if isinstance(error, dict):  # a server that knows no refusals of single channels
            retry = error.get("code") in ("unavailable", "internal")
            refusals = {name: {**error, "retry": retry} for name in call.channels}
        else:
            refusals = call.answer.get("refused", {}) if isinstance(call.answer, dict) else {}
        await self._tell(self._channels.refuse(refusals, current.asked, self._clock()))

    # --- what the server sends ---

    async def _receive(self, text: bytes, current: OpenLink) -> None:
        attempt = current.attempt
        if attempt.transport == "websocket" and await self._take_answer(text):
            return
        batch = json.loads(text)
        if not isinstance(batch, list):
            raise ValueError("the answer is not a batch")
        self._selector.opened(attempt)
        attempt.batches += 1
        for message in batch:
            # A stop in between leaves the rest for the next start: its positions have not moved yet.
            self._waiter.check()
            before = self._channels.moves
            if isinstance(message, dict) and message.get("channel") == REFUSED_CHANNEL:
                await self._tell(self._channels.refuse(message["data"], current.asked, self._clock()))
                continue
            await self._tell(self._channels.accept(message, current.asked))
            if isinstance(message["data"], dict) and message["channel"] == STATUS_CHANNEL:
                wait = message["data"].get(RECONNECT_KEY)
                if isinstance(wait, (int, float)) and wait >= 0:
                    attempt.reconnect = wait / 1000
                current.move.told(message["data"].get(MOVING_KEY))
            attempt.progress = attempt.progress or self._channels.moves != before
        if self._channels.join_waiting():
            self._changed = True

    async def _tell(self, deliveries: list[Delivery]) -> None:
        if any(isinstance(value, Refusal) for _, value in deliveries):
            self._ask_at = self._channels.next_ask(self._clock())
        await self._deliverer.deliver(deliveries)
