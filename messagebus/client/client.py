"""The client for programs of threads. Its work is done by :class:`~messagebus.client.runner.Runner`."""

from __future__ import annotations

import inspect
import math
import secrets
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Any

from .. import forks
from .base import BaseClient, Unread
from .channels import check_listen
from .commands import Call
from .listening import Listening
from .mailbox import Mailbox
from .posting import may_have_been_lost, message_id_of, publish_by_request, publish_value
from .runner import Runner
from .types import Position, PublishError
from .waiting import BlockingWaiter, clock, run_blocking


class Client(BaseClient):
    """Follows channels of a server from a Python program, over the best transport that gets through.

    Every method and property is safe from any thread. The client has one thread between :meth:`start` and :meth:`stop`
    (under gevent's monkey patching: a greenlet), which calls callbacks, ``on_state_change`` and ``on_gap`` one after
    the other. While one runs, nothing is read; its exceptions are logged and stop nothing. A started client must be
    stopped, or used in ``with``. In a forked child it is stopped, whatever it is in the parent, and goes by another
    ``client_id`` unless it was given one; the child may start it.
    """

    _thread: threading.Thread | None = None

    def _reset(self) -> None:
        super()._reset()
        self._thread = None
        self._mailboxes: set[Mailbox] = set()
        self._lock = threading.Lock()
        self._posting = threading.Lock()
        """Held by the publish that goes by a request."""
        self._connected = threading.Event()
        forks.register(self)

    def _after_fork(self) -> None:
        """In a forked child: the connection and the thread are the parent's. Closes nothing, sends nothing."""
        if not self._has_own_id:
            self._endpoint = replace(self._endpoint, client_id=secrets.token_hex(16))
        self._channels.after_fork()
        self._reset()

    def _unread(self) -> Sequence[Unread]:
        with self._lock:
            return list(self._mailboxes)

    def _note_connected(self, connected: bool) -> None:
        (self._connected.set if connected else self._connected.clear)()

    async def _call(self, function: Callable[[Any], object], value: Any) -> None:
        result = function(value)
        if inspect.iscoroutine(result):
            result.close()
            raise TypeError("it is a coroutine function; AsyncClient takes those")

    # --- life ---

    def start(self) -> None:
        """Connect as soon as there is a channel; does not wait. On a started client it is the same as :meth:`retry`."""
        with self._lock:
            self._started_to_listen = False
            if self._start():
                return
        self.retry()

    @property
    def _running(self) -> bool:
        runner, thread = self._runner, self._thread
        return runner is not None and not runner.stopping and thread is not None and thread.is_alive()

    def _start(self) -> bool:
        """Whether it was not started before."""
        if self._running:
            return False
        self._runner = self._make_runner(BlockingWaiter())
        self._thread = threading.Thread(
            target=_run, args=(self._runner, self._thread), name="messagebus-client", daemon=True
        )
        self._thread.start()
        return True

    def wait_connected(self, timeout: float | None = None) -> bool:
        """Wait until the client is connected, up to ``timeout`` seconds (``None``: without limit). Returns whether it
        is."""
        return self._connected.wait(timeout)

    def stop(self, timeout: float = 5.0) -> None:
        """End the connection and the thread. Channels and positions stay: :meth:`start` continues from there. Waits up
        to ``timeout`` seconds for a running callback, except when called from a callback. May be repeated.
        """
        with self._lock:
            runner, thread = self._runner, self._thread
            mailboxes = list(self._mailboxes)
        if runner is None or thread is None:
            return
        runner.stop()
        for mailbox in mailboxes:
            mailbox.close()  # the thread may be waiting for room in it
        if threading.current_thread() is not thread:
            thread.join(timeout)

    def __enter__(self) -> Client:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    # --- channels ---

    def listen(
        self, *channels: str, last_id: Position = -1, timeout: float | None = None, max_waiting: int = 1000
    ) -> Listening:
        """Iterate over the messages of channels as they come: ``for message in Client(url).listen("/chat"):``.

        The client follows the channels from now on, and is started. Leaving the loop, or closing the returned iterator,
        ends these subscriptions. The client stops with its last loop, unless :meth:`start` was called. ``timeout``:
        seconds without a message after which the iteration ends; ``None``: never. It also ends when the client is
        stopped.

        Up to ``max_waiting`` messages are read ahead. Past that the client reads no more until the loop catches up, and
        the server will close the connection in time; the client comes back to where it was, and what the server's
        backlog no longer holds by then is told to ``on_gap``.

        Raises:
            InvalidChannel, InvalidPosition: A channel or a position is malformed.
        """
        check_listen(channels, last_id, max_waiting)
        mailbox = Mailbox(max_waiting)
        with self._lock:
            self._mailboxes.add(mailbox)
        for channel in channels:
            self.subscribe(channel, mailbox.put, last_id)
        with self._lock:
            self._started_to_listen = self._start() or self._started_to_listen
        return Listening(mailbox, math.inf if timeout is None else timeout, partial(self._leave, mailbox, channels))

    def _leave(self, mailbox: Mailbox, channels: Sequence[str]) -> None:
        """A loop has ended."""
        for channel in channels:
            self.unsubscribe(channel, mailbox.put)
        with self._lock:
            self._mailboxes.discard(mailbox)
            last = self._started_to_listen and not self._mailboxes
        if last:
            self.stop()

    def publish(
        self, channel: str, data: Any, timeout: float = 10.0, *, transient: bool = False, key: str | None = None
    ) -> int | None:
        """Publish, if the server allows it: over an open WebSocket, else by a request. The client need not be started.

        ``data``: any JSON value. ``timeout``: seconds to wait for the answer. Returns the message's id on its channel;
        ``None`` if the server keeps the message until its store is back. In a callback it waits as well; messages that
        come meanwhile reach the callbacks afterwards. Where the answer is lost it is sent again, and stored once. What
        one thread publishes is stored in its order.

        ``transient``: for those who are connected now, and not kept; sent once, and without an id. ``key``: of a
        transient message; of those of this client with the same key a slow reader is given the newest.

        Raises:
            PublishError: Its ``code`` says why; see there.
            InvalidChannel, InvalidData: It is not a channel, or data that JSON cannot express.
            ValueError: There is a key for a message that is kept.
        """
        deadline = clock() + timeout
        value = publish_value(channel, data, transient, key)
        if not self._posting.locked():  # what waits there comes first
            try:
                return message_id_of(self._publish_open(value, timeout))
            except PublishError as error:
                if not may_have_been_lost(error, value):
                    raise
        if not self._posting.acquire(timeout=max(0.0, min(deadline - clock(), threading.TIMEOUT_MAX))):
            raise PublishError("timeout", f"not sent within {timeout:g} s: others took too long")
        waiter = BlockingWaiter()
        try:
            return message_id_of(run_blocking(publish_by_request(self._endpoint, waiter, value, deadline)))
        finally:
            waiter.close()
            self._posting.release()

    def _publish_open(self, value: dict[str, Any], timeout: float) -> Any:
        """Over an open WebSocket."""
        runner = self._runner
        if runner is None or not self._running:
            raise PublishError("unsupported", "the client is not started")
        done = threading.Event()
        call = Call({"publish": value}, done=done)
        runner.put(call)
        if threading.current_thread() is self._thread:
            run_blocking(runner.await_within_callback(call, timeout))
        elif not done.wait(timeout):
            call.fail("timeout", f"no answer within {timeout:g} s; it may or may not have been published")
        return call.result()


def _run(runner: Runner, before: threading.Thread | None) -> None:
    """``before``: a thread that was stopped, and whose end is waited for."""
    if before is not None:
        before.join()
    run_blocking(runner.run())
