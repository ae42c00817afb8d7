"""The public face of the Python client. Its work is done by :class:`~messagebus.client.runner.Runner`."""

from __future__ import annotations

import logging
import math
import secrets
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, overload

from ..message import check_channel, encode_data
from .channels import Channels, check_position
from .mailbox import Mailbox
from .runner import Counters, Endpoint, Runner
from .settings import Settings, check_client_id, check_headers, parse_url
from .transport_selector import TransportSelector
from .types import (
    TRANSPORTS,
    Callback,
    ClientMessage,
    ConnectionState,
    OnGap,
    OnStateChange,
    Position,
    PublishError,
    StateInfo,
    Stats,
    Transport,
)

logger = logging.getLogger("messagebus.client")


class Client:
    """Follows channels of a server from a Python program, over the best transport that gets through.

    Every method and property is safe from any thread. Callbacks, ``on_state_change`` and ``on_gap`` are called one
    after the other in the client's one thread (under gevent's monkey patching: a greenlet), which runs between
    :meth:`start` and :meth:`stop`; while one runs nothing is read, and what it raises is logged and stops nothing. A
    client that is started must be stopped, or used in ``with``. After a fork the child needs a client of its own.
    """

    def __init__(
        self,
        url: str,
        *,
        client_id: str | None = None,
        headers: Mapping[str, str] | None = None,
        ssl_context: ssl.SSLContext | None = None,
        epoch: str | None = None,
        grants: Iterable[str] = (),
        on_state_change: OnStateChange | None = None,
        on_gap: OnGap | None = None,
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
        with each request of every transport, such as ``Cookie`` or ``Authorization``. ``ssl_context``: for ``https``;
        by default certificates are verified against the system's authorities. ``grants``: see :attr:`grants`.
        ``epoch``: that of the store which the positions are of that will be given to :meth:`subscribe`, see
        :attr:`epoch`. ``on_state_change``: called with a state and a :class:`StateInfo` when the state or the
        transport changes, and at each failure. ``on_gap``: called with a :class:`Gap` for each channel on which
        messages were lost, before the messages that follow the loss.

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
        client_id = secrets.token_hex(16) if client_id is None else check_client_id(client_id)
        self._endpoint = Endpoint(address, client_id, check_headers(headers), context)
        self._settings = settings
        self._channels = Channels(epoch)
        self.grants = grants
        self._counters = Counters()
        self._selector = TransportSelector(settings, notify=self._notify)
        self._runner: Runner | None = None
        self._mailboxes: set[Mailbox] = set()
        self._lock = threading.Lock()
        self.on_state_change = on_state_change
        self.on_gap = on_gap

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
        """Tokens of the server's ``grant(...)``, for channels that take one. They are sent with every request: assign
        new ones before they expire."""
        return self._channels.grants

    @grants.setter
    def grants(self, tokens: Iterable[str]) -> None:
        self._channels.grants = tuple(tokens)

    @property
    def positions(self) -> dict[str, Position]:
        """Where each channel stands: the id of the last message that was given to callbacks, or what it began with."""
        return self._channels.positions()

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
        """Connect, once there is a channel; waits for nothing. Calling it twice does no harm."""
        with self._lock:
            before = self._runner
            if before is not None and not before.stopping and before.thread.is_alive():
                return
            self._runner = Runner(
                self._endpoint,
                self._settings,
                self._selector,
                self._channels,
                self._counters,
                lambda: self.on_gap,
                before if before is not None and before.thread.is_alive() else None,
            )
            self._runner.start()

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
        new ones; ``"@g"``: those after global id g. A further callback on a channel that is followed already joins it
        at its position; its ``last_id`` is not used. Returns the callback.

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
    ) -> Iterator[ClientMessage]:
        """Iterate over the messages of channels as they come: ``for message in Client(url).listen("/chat"):``.

        The client is started with the first message that is asked for; leaving the loop, or closing the iterator, stops
        it. A client that ran already goes on, and only these subscriptions end. ``timeout``: seconds without a message
        after which the iteration ends; ``None``: never. It also ends when the client is stopped.

        Up to ``max_waiting`` messages are read ahead. Past that the client reads no more until the loop catches up, and
        the server will close the connection in time; the client comes back to where it was, and what the server's
        backlog no longer holds by then is told to ``on_gap``.

        Raises:
            InvalidChannel, InvalidPosition: At once, not in the loop.
        """
        if not channels:
            raise TypeError("listen() needs a channel")
        for channel in channels:
            check_channel(channel)
            check_position(channel, last_id)
        if max_waiting < 1:
            raise ValueError("max_waiting: expected at least 1")
        return self._listen(channels, last_id, math.inf if timeout is None else timeout, max_waiting)

    def _listen(
        self, channels: Sequence[str], last_id: Position, timeout: float, max_waiting: int
    ) -> Iterator[ClientMessage]:
        mailbox = Mailbox(max_waiting)
        with self._lock:
            runner = self._runner
            ours = runner is None or runner.stopping or not runner.thread.is_alive()
            self._mailboxes.add(mailbox)
        try:
            for channel in channels:
                self.subscribe(channel, mailbox.put, last_id)
            if ours:
                self.start()
            while (message := mailbox.take(timeout)) is not None:
                yield message
        finally:
            mailbox.close()
            with self._lock:
                self._mailboxes.discard(mailbox)
            for channel in channels:
                self.unsubscribe(channel, mailbox.put)
            if ours:
                self.stop()

    def publish(self, channel: str, data: Any, timeout: float = 10.0) -> int | None:
        """Publish, where the server lets clients do so (its option ``client_publish``). Only over an open WebSocket.

        ``data``: any JSON value. ``timeout``: seconds to wait for the answer. Returns the message's id on its channel;
        ``None`` where the server keeps it until its store is back.

        Raises:
            PublishError: Its ``code`` says why; see there.
            InvalidChannel, InvalidData: It is not a channel, or data that JSON cannot express.
            RuntimeError: Called from a callback: the answer would come to the thread that waits for it.
        """
        check_channel(channel)
        encode_data(data, 1 << 62)
        runner = self._runner
        if runner is None:
            raise PublishError("unsupported", "the client is not started")
        if threading.current_thread() is runner.thread:
            raise RuntimeError("publish() cannot be called from a callback of the same client")
        answer = runner.publish(channel, data, timeout)
        return answer.get("message_id") if isinstance(answer, dict) else None

    def _notify(self, state: ConnectionState, info: StateInfo) -> None:
        logger.debug("%s over %s: %s", state, info.transport, info.message)
        try:
            if self.on_state_change is not None:
                self.on_state_change(state, info)
        except Exception:
            logger.exception("on_state_change failed")
