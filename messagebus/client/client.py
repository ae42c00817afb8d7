"""The public face of the Python client. Its work is done by :class:`~messagebus.client.runner.Runner`."""

from __future__ import annotations

import logging
import math
import os
import secrets
import ssl
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Any, overload

from ..message import check_channel, encode_data
from .byte_stream import clock
from .channels import Channels, check_position
from .listening import Listening
from .mailbox import Mailbox
from .runner import Counters, Endpoint, Hooks, Runner
from .settings import Settings, check_client_id, check_grants, check_headers, parse_url
from .transport_selector import TransportSelector
from .types import (
    TRANSPORTS,
    Callback,
    ConnectionState,
    OnGap,
    OnRefused,
    OnStateChange,
    Position,
    PublishError,
    StateInfo,
    Stats,
    Transport,
)

logger = logging.getLogger("messagebus.client")

Headers = Mapping[str, str] | Callable[[], Mapping[str, str]]
Grants = Iterable[str] | Callable[[], Iterable[str]]
_clients: weakref.WeakSet[Client] = weakref.WeakSet()


class Client:
    """Follows channels of a server from a Python program, over the best transport that gets through.

    Every method and property is safe from any thread. Callbacks, ``on_state_change`` and ``on_gap`` are called one
    after the other in the client's one thread (under gevent's monkey patching: a greenlet), which runs between
    :meth:`start` and :meth:`stop`; while one runs nothing is read, and what it raises is logged and stops nothing. A
    client that is started must be stopped, or used in ``with``. In a forked child it is stopped, whatever it is in the
    parent, and goes by another ``client_id`` unless it was given one; the child may start it.
    """

    def __init__(
        self,
        url: str,
        *,
        client_id: str | None = None,
        headers: Headers | None = None,
        ssl_context: ssl.SSLContext | None = None,
        epoch: str | None = None,
        grants: Grants = (),
        on_state_change: OnStateChange | None = None,
        on_gap: OnGap | None = None,
        on_refused: OnRefused | None = None,
        transports: Sequence[Transport] = TRANSPORTS,
        callback_interval: float = Settings.callback_interval,
        min_poll_interval: float = Settings.min_poll_interval,
        max_poll_interval: float = Settings.max_poll_interval,
        enable_long_polling: bool = Settings.enable_long_polling,
        enable_chunked_encoding: bool = Settings.enable_chunked_encoding,
        first_chunk_timeout: float = Settings.first_chunk_timeout,
        retry_chunked_after_requests: int = Settings.retry_chunked_after_requests,
        heartbeat_timeout: float = Settings.heartbeat_timeout,
    ) -> None:
        """Connects only with :meth:`start`. For the settings from ``transports`` on see :class:`Settings`.

        ``url``: the app's address, with its mount path where it has one; ``/message-bus/`` at its end is as good.
        ``client_id``: 1 to 128 of ``A-Z a-z 0-9 _ . ~ -``; 32 random hexadecimal digits by default. ``headers``: sent
        with each request of every transport, such as ``Cookie`` or ``Authorization``; or a function without arguments
        that returns them, called in the client's thread before each connection. ``ssl_context``: for ``https``;
        by default certificates are verified against the system's authorities. ``grants``: see :attr:`grants`.
        ``epoch``: that of the store which the positions are of that will be given to :meth:`subscribe`, see
        :attr:`epoch`. ``on_state_change``: called with a state and a :class:`StateInfo` when the state or the
        transport changes, and at each failure. ``on_gap``: called with a :class:`Gap` for each channel on which
        messages were lost, before the messages that follow the loss. ``on_refused``: called with a :class:`Refusal` for
        each channel that the server refuses; the others go on.

        Raises:
            InvalidOption: A ``ValueError``: the URL or a setting is not as it has to be.
        """
        settings = Settings(
            transports=tuple(transports),
            callback_interval=callback_interval,
            min_poll_interval=min_poll_interval,
            max_poll_interval=max_poll_interval,
            enable_long_polling=enable_long_polling,
            enable_chunked_encoding=enable_chunked_encoding,
            first_chunk_timeout=first_chunk_timeout,
            retry_chunked_after_requests=retry_chunked_after_requests,
            heartbeat_timeout=heartbeat_timeout,
        )
        address = parse_url(url)
        context = (ssl_context or ssl.create_default_context()) if address.secure else None
        self._has_own_id = client_id is not None
        client_id = secrets.token_hex(16) if client_id is None else check_client_id(client_id)
        self._headers: Headers | dict[str, str] = headers if callable(headers) else check_headers(headers)
        self._tokens: tuple[str, ...] = ()
        self._ask_grants: Callable[[], Iterable[str]] | None = None
        self._endpoint = Endpoint(address, client_id, self._headers_now, self._grants_now, context)
        self._settings = settings
        self._channels = Channels(epoch)
        self._runner: Runner | None = None
        self._connected = threading.Event()
        self.grants = grants
        self.on_state_change = on_state_change
        self.on_gap = on_gap
        self.on_refused = on_refused
        self._begin()
        _clients.add(self)

    def _begin(self) -> None:
        """As new, but for channels and positions."""
        self._counters = Counters()
        self._selector = TransportSelector(self._settings, notify=self._notify, clock=clock)
        self._runner = None
        self._mailboxes: set[Mailbox] = set()
        self._started_to_listen = False
        self._lock = threading.Lock()
        self._connected.clear()

    def _after_fork(self) -> None:
        """In a forked child: the connection and the thread are the parent's. Closes nothing, sends nothing."""
        if not self._has_own_id:
            self._endpoint = replace(self._endpoint, client_id=secrets.token_hex(16))
        self._connected = threading.Event()
        self._channels.after_fork()
        self._begin()

    def __repr__(self) -> str:
        return f"<messagebus.Client {self._endpoint.address.authority} {self._selector.state}>"

    @property
    def client_id(self) -> str:
        """What the server knows this client by; the ``client_ids`` of a publish name it."""
        return self._endpoint.client_id

    @property
    def epoch(self) -> str | None:
        """The random name that the server's store has had since its beginning; ``None`` where it is not known (yet).
        Kept beside positions and given back with them, it lets the server notice that they are of another store."""
        return self._channels.epoch

    @property
    def grants(self) -> tuple[str, ...]:
        """Tokens of the server's ``grant(...)``, for channels that take one. Assign new ones before they expire, and
        channels that were refused are asked for again; or assign a function without arguments that returns them, called
        in the client's thread before each connection. Then these are the ones that it returned last.

        Raises:
            InvalidOption: They are not a list of tokens.
        """
        return self._tokens

    @grants.setter
    def grants(self, grants: Grants) -> None:
        self._ask_grants = grants if callable(grants) else None
        if not callable(grants):
            self._tokens = check_grants(grants)
        self.retry()

    def _headers_now(self) -> dict[str, str]:
        return check_headers(self._headers() if callable(self._headers) else self._headers)

    def _grants_now(self) -> tuple[str, ...]:
        if self._ask_grants is not None:
            self._tokens = check_grants(self._ask_grants())
        return self._tokens

    @property
    def positions(self) -> dict[str, Position]:
        """Where each channel stands: a checkpoint. A client that begins with these positions, and with :attr:`epoch`,
        gets every message that this one's callbacks have not returned from, and that no loop over :meth:`listen` has
        dealt with: a loop has dealt with a message when it asks for the next."""
        positions = self._channels.positions()
        with self._lock:
            mailboxes = list(self._mailboxes)
        for name, position in positions.items():
            unread = [first for mailbox in mailboxes if (first := mailbox.first_unread(name)) is not None]
            if unread:
                positions[name] = min(*unread, position + 1 if isinstance(position, int) else unread[0]) - 1
        return positions

    @property
    def stats(self) -> Stats:
        """What goes on, and has happened so far."""
        plan, counters = self._selector, self._counters
        return Stats(
            plan.state,
            plan.transport,
            counters.requests,
            plan.reconnects,
            counters.messages,
            counters.bytes,
            plan.last_error,
        )

    # --- life ---

    def start(self) -> None:
        """Connect, once there is a channel; waits for nothing. On a client that is started it does what :meth:`retry`
        does."""
        with self._lock:
            self._started_to_listen = False
            if self._start():
                return
        self.retry()

    def _start(self) -> bool:
        """Whether it was not started before."""
        before = self._runner
        if before is not None and before.running:
            return False
        self._runner = Runner(
            self._endpoint,
            self._settings,
            self._selector,
            self._channels,
            self._counters,
            Hooks(lambda: self.on_gap, lambda: self.on_refused),
            before if before is not None and before.thread.is_alive() else None,
        )
        self._runner.start()
        return True

    def retry(self) -> None:
        """Try at once, whatever the client is waiting for, and ask again for channels that were refused."""
        runner = self._runner
        if runner is not None:
            runner.retry()

    def wait_connected(self, timeout: float | None = None) -> bool:
        """Wait until the client is connected, up to ``timeout`` seconds (``None``: for as long as it takes). Returns
        whether it is."""
        return self._connected.wait(timeout)

    def stop(self, timeout: float = 5.0) -> None:
        """End the connection and the thread. Channels and positions stay: :meth:`start` goes on where this left off.

        Waits up to ``timeout`` seconds, which only a callback that is still running can take; not where it is called
        from a callback. May be repeated.
        """
        with self._lock:
            runner = self._runner
            mailboxes = list(self._mailboxes)
        if runner is None:
            return
        runner.stop()
        for mailbox in mailboxes:
            mailbox.close()  # the thread may be waiting for room in it
        if threading.current_thread() is not runner.thread:
            runner.thread.join(timeout)

    def __enter__(self) -> Client:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    # --- channels ---

    @overload
    def subscribe(self, channel: str, *, last_id: Position = ...) -> Callable[[Callback], Callback]: ...

    @overload
    def subscribe(self, channel: str, callback: Callback, last_id: Position = ...) -> Callback: ...

    def subscribe(
        self, channel: str, callback: Callback | None = None, last_id: Position = -1
    ) -> Callback | Callable[[Callback], Callback]:
        """Have ``callback`` called with every :class:`ClientMessage` of a channel, in order; also as a decorator.

        ``last_id``: the message to continue after; 0: the whole backlog; -1: new ones only; ``-k``: the last k-1 and
        new ones; ``"@g"``: those after global id g. A further callback on a channel that is followed already gets
        what it asks for by a message's id; with any other ``last_id`` it joins where the channel stands. Returns the
        callback.

        Raises:
            InvalidChannel, InvalidPosition: It is not one.
        """
        if callback is None:
            return lambda function: self.subscribe(channel, function, last_id)
        if not callable(callback):
            raise TypeError(f"expected a function, not {callback!r}")
        if self._channels.add(channel, callback, last_id):
            self._changed()
        return callback

    def unsubscribe(self, channel: str, callback: Callback | None = None) -> bool:
        """Remove a callback from a channel, or all callbacks. ``"/room/*"`` stands for every channel that begins so.

        Returns whether there was something to remove. A callback that is running in another thread runs to its end."""
        removed, left = self._channels.remove(channel, callback)
        if left:
            self._changed()
        return removed

    def _changed(self) -> None:
        runner = self._runner
        if runner is not None:
            runner.changed()

    def listen(
        self, *channels: str, last_id: Position = -1, timeout: float | None = None, max_waiting: int = 1000
    ) -> Listening:
        """Iterate over the messages of channels as they come: ``for message in Client(url).listen("/chat"):``.

        The channels are followed from now on, and the client is started. Leaving the loop, or closing what this
        returns, ends these subscriptions; with the last of its loops the client stops, unless :meth:`start` was called.
        ``timeout``: seconds without a message after which the iteration ends; ``None``: never. It also ends when the
        client is stopped.

        Up to ``max_waiting`` messages are read ahead. Past that the client reads no more until the loop catches up, and
        the server will close the connection in time; the client comes back to where it was, and what the server's
        backlog no longer holds by then is told to ``on_gap``.

        Raises:
            InvalidChannel, InvalidPosition: They are not ones.
        """
        if not channels:
            raise TypeError("listen() needs a channel")
        for channel in channels:
            check_channel(channel)
            check_position(channel, last_id)
        if max_waiting < 1:
            raise ValueError("max_waiting: expected at least 1")
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

    def publish(self, channel: str, data: Any, timeout: float = 10.0) -> int | None:
        """Publish, where the server lets clients do so (its option ``client_publish``). Only over an open WebSocket.

        ``data``: any JSON value. ``timeout``: seconds to wait for the answer. Returns the message's id on its channel;
        ``None`` where the server keeps it until its store is back. It may be called from a callback, and waits there as
        well: what comes meanwhile is given to the callbacks afterwards.

        Raises:
            PublishError: Its ``code`` says why; see there.
            InvalidChannel, InvalidData: It is not a channel, or data that JSON cannot express.
        """
        check_channel(channel)
        encode_data(data, 1 << 62)
        runner = self._runner
        if runner is None or not runner.running:
            raise PublishError("unsupported", "the client is not started")
        answer = runner.publish(channel, data, timeout)
        return answer.get("message_id") if isinstance(answer, dict) else None

    def _notify(self, state: ConnectionState, info: StateInfo) -> None:
        logger.debug("%s over %s: %s", state, info.transport, info.message)
        (self._connected.set if state == "connected" else self._connected.clear)()
        try:
            if self.on_state_change is not None:
                self.on_state_change(state, info)
        except Exception:
            logger.exception("on_state_change failed")


def _after_fork() -> None:
    for client in list(_clients):
        client._after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
