"""The client for asyncio. Its work is done by :class:`~messagebus.client.runner.Runner`."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import math
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from types import TracebackType
from typing import Any

from .async_waiting import AsyncWaiter
from .base import BaseClient, Unread
from .channels import check_listen
from .commands import Call
from .posting import may_have_been_lost, message_id_of, publish_by_request, publish_value
from .types import ClientMessage, Position, PublishError
from .waiting import clock


class AsyncClient(BaseClient):
    """:class:`Client` for asyncio: the same transports, rules and settings, in a task instead of a thread.

    Use it in one event loop only, which has to be able to watch sockets (on Windows: ``SelectorEventLoop``). Callbacks,
    ``on_gap``, ``on_refused``, ``headers`` and ``grants`` may be coroutine functions; while one runs, nothing is read.
    ``on_state_change`` is a plain function. ``async with`` starts and stops it.
    """

    _task: asyncio.Task[None] | None = None

    def _reset(self) -> None:
        super()._reset()
        self._mailboxes: set[AsyncMailbox] = set()
        self._connected = asyncio.Event()
        self._posting: tuple[asyncio.AbstractEventLoop, asyncio.Lock] | None = None

    def _unread(self) -> Sequence[Unread]:
        return list(self._mailboxes)

    def _note_connected(self, connected: bool) -> None:
        (self._connected.set if connected else self._connected.clear)()

    async def _call(self, function: Callable[[Any], object], value: Any) -> None:
        result = function(value)
        if inspect.isawaitable(result):
            await result

    # --- life ---

    def start(self) -> None:
        """Connect as soon as there is a channel; does not wait. On a started client it is the same as :meth:`retry`.
        Call it in the event loop."""
        self._started_to_listen = False
        if not self._start():
            self.retry()

    @property
    def _running(self) -> bool:
        return self._runner is not None and not self._runner.stopping and self._task is not None

    def _start(self) -> bool:
        if self._running:
            return False
        before, self._runner = self._task, self._make_runner(AsyncWaiter())
        runner = self._runner

        async def run() -> None:
            if before is not None:
                await asyncio.wait([before])
            await runner.run()

        self._task = asyncio.get_running_loop().create_task(run(), name="messagebus-client")
        return True

    async def wait_connected(self, timeout: float | None = None) -> bool:
        """Wait until the client is connected, up to ``timeout`` seconds. Returns whether it is."""
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._connected.wait(), timeout)
        return self._connected.is_set()

    async def stop(self, timeout: float = 5.0) -> None:
        """End the connection and the task. Channels and positions stay: :meth:`start` continues from there. Waits up to
        ``timeout`` seconds for a running callback, except when called from a callback. May be repeated.
        """
        runner, task = self._runner, self._task
        if runner is None or task is None:
            return
        runner.stop()
        for mailbox in list(self._mailboxes):
            mailbox.close()
        if asyncio.current_task() is not task:
            await asyncio.wait([task], timeout=timeout)

    async def __aenter__(self) -> AsyncClient:
        self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    # --- channels ---

    def listen(
        self, *channels: str, last_id: Position = -1, timeout: float | None = None, max_waiting: int = 1000
    ) -> AsyncIterator[ClientMessage]:
        """Iterate over the messages of channels as they come: ``async for message in client.listen("/chat"):``. See
        :meth:`Client.listen`; here the client follows the channels when the first message is requested. Use
        ``contextlib.aclosing`` for a loop that may be left early, so that its subscriptions end at once.

        Raises:
            InvalidChannel, InvalidPosition: A channel or a position is malformed.
        """
        check_listen(channels, last_id, max_waiting)
        return self._listen(channels, last_id, math.inf if timeout is None else timeout, max_waiting)

    async def _listen(
        self, channels: Sequence[str], last_id: Position, timeout: float, max_waiting: int
    ) -> AsyncIterator[ClientMessage]:
        mailbox = AsyncMailbox(max_waiting)
        self._mailboxes.add(mailbox)
        try:
            for channel in channels:
                self.subscribe(channel, mailbox.put, last_id)
            self._started_to_listen = self._start() or self._started_to_listen
            while (message := await mailbox.take(timeout)) is not None:
                yield message
        finally:
            mailbox.close()
            for channel in channels:
                self.unsubscribe(channel, mailbox.put)
            self._mailboxes.discard(mailbox)
            if self._started_to_listen and not self._mailboxes:
                await self.stop()

    async def publish(
        self, channel: str, data: Any, timeout: float = 10.0, *, transient: bool = False, key: str | None = None
    ) -> int | None:
        """Publish, if the server allows it. See :meth:`Client.publish`; here all are stored in the order of the calls.

        Raises:
            PublishError: Its ``code`` says why; see there.
            InvalidChannel, InvalidData: The channel is malformed, or JSON cannot express the data.
            ValueError: There is a key for a message that is kept.
        """
        deadline = clock() + timeout
        value = publish_value(channel, data, transient, key)
        posting = self._posting_now()
        if not posting.locked():  # what waits there comes first
            try:
                return message_id_of(await self._publish_open(value, timeout))
            except PublishError as error:
                if not may_have_been_lost(error, value):
                    raise
        async with posting:
            waiter = AsyncWaiter()
            try:
                return message_id_of(await publish_by_request(self._endpoint, waiter, value, deadline))
            finally:
                waiter.close()

    def _posting_now(self) -> asyncio.Lock:
        """Held by the publish that goes by a request; of the running loop."""
        loop = asyncio.get_running_loop()
        if self._posting is None or self._posting[0] is not loop:
            self._posting = loop, asyncio.Lock()
        return self._posting[1]

    async def _publish_open(self, value: dict[str, Any], timeout: float) -> Any:
        """Over an open WebSocket."""
        runner = self._runner
        if runner is None or not self._running:
            raise PublishError("unsupported", "the client is not started")
        done = asyncio.Event()
        call = Call({"publish": value}, done=done)
        runner.put(call)
        if asyncio.current_task() is self._task:
            await runner.await_within_callback(call, timeout)
        else:
            try:
                await asyncio.wait_for(done.wait(), timeout)
            except asyncio.TimeoutError:
                call.fail("timeout", f"no answer within {timeout:g} s; it may or may not have been published")
        return call.result()


class AsyncMailbox:
    """A bounded queue between a client and a loop over its messages; when it is full, the client waits."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._messages: deque[ClientMessage] = deque()
        self._taken: ClientMessage | None = None
        self._closed = False
        self._changed = asyncio.Condition()
        self._closing: set[asyncio.Task[None]] = set()

    async def put(self, message: ClientMessage) -> None:
        """Add a message, as soon as there is room; one that comes when it is closed is thrown away."""
        async with self._changed:
            await self._changed.wait_for(lambda: len(self._messages) < self._size or self._closed)
            if not self._closed:
                self._messages.append(message)
                self._changed.notify_all()

    async def take(self, timeout: float) -> ClientMessage | None:
        """The next message; ``None`` where none comes for ``timeout`` seconds, or it is empty and closed."""
        self._taken = None
        async with self._changed:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(
                    self._changed.wait_for(lambda: bool(self._messages) or self._closed),
                    None if math.isinf(timeout) else timeout,
                )
            if not self._messages:
                return None
            self._changed.notify_all()
            self._taken = self._messages.popleft()
            return self._taken

    def first_unread(self, channel: str) -> int | None:
        """See :meth:`Mailbox.first_unread`."""
        messages = [*([self._taken] if self._taken else []), *self._messages]
        return next((found for message in messages if (found := message.id_of(channel)) is not None), None)

    def close(self) -> None:
        self._closed = True
        task = asyncio.get_running_loop().create_task(self._wake())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def _wake(self) -> None:
        async with self._changed:
            self._changed.notify_all()
