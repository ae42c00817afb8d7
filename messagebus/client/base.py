"""Shared by the clients for threads and for asyncio: settings, channels, identity, reports."""

from __future__ import annotations

import inspect
import logging
import secrets
import ssl
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, overload

from .channels import Channels
from .connector import Counters, Endpoint
from .delivery import Hooks
from .runner import Runner
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
    StateInfo,
    Stats,
    Transport,
)
from .waiting import Waiter, clock

logger = logging.getLogger("messagebus.client")

Headers = Mapping[str, str] | Callable[[], Any]
Grants = Iterable[str] | Callable[[], Any]


class Unread(Protocol):
    """What knows messages that a loop has not dealt with."""

    def first_unread(self, channel: str) -> int | None: ...


class BaseClient(ABC):
    """Use :class:`messagebus.client.Client` or :class:`messagebus.client.AsyncClient`."""

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

        ``url``: the app's address, with its mount path; it may end in ``/message-bus/``. ``client_id``: 1 to 128 of
        ``A-Z a-z 0-9 _ . ~ -``; 32 random hexadecimal digits by default. ``headers``: sent with each request of every
        transport, for instance ``Cookie`` or ``Authorization``; or a function without arguments that returns them,
        which the client calls before each connection. ``ssl_context``: for ``https``; by default certificates are
        verified against the system's authorities. ``grants``: see :attr:`grants`. ``epoch``: that of the store which
        the positions are of that will be given to :meth:`subscribe`, see :attr:`epoch`. ``on_state_change``: called
        with a state and a :class:`StateInfo` when the state or the transport changes, and at each failure. ``on_gap``:
        called with a :class:`Gap` for each channel on which messages were lost, before the messages that follow the
        loss. ``on_refused``: called with a :class:`Refusal` for each channel that the server refuses; the others go on.

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
        self._ask_grants: Callable[[], Any] | None = None
        self._endpoint = Endpoint(address, client_id, self._headers_now, self._grants_now, context)
        self._settings = settings
        self._channels = Channels(epoch)
        self._runner: Runner | None = None
        self.grants = grants
        self.on_state_change = on_state_change
        self.on_gap = on_gap
        self.on_refused = on_refused
        self._reset()

    def _reset(self) -> None:
        """As new, but for channels and positions."""
        self._counters = Counters()
        self._selector = TransportSelector(self._settings, notify=self._notify, clock=clock)
        self._runner = None
        self._started_to_listen = False

    def __repr__(self) -> str:
        return f"<messagebus.{type(self).__name__} {self._endpoint.address.authority} {self._selector.state}>"

    @property
    def client_id(self) -> str:
        """The client's id on the server, for the ``client_ids`` of a publish."""
        return self._endpoint.client_id

    @property
    def epoch(self) -> str | None:
        """The epoch of the server's store; ``None`` if it is not known (yet). Save it with the positions and pass it
        back with them: then the server notices that they belong to a store that was reset."""
        return self._channels.epoch

    @property
    def grants(self) -> tuple[str, ...]:
        """Tokens of the server's ``grant(...)``, for protected channels. Assign new ones before they expire; the client
        then asks again for refused channels. Or assign a function without arguments that returns them, which the client
        calls before each connection; then this property has the last result.

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

    async def _headers_now(self) -> dict[str, str]:
        return check_headers(await _given(self._headers) if callable(self._headers) else self._headers)

    async def _grants_now(self) -> tuple[str, ...]:
        if self._ask_grants is not None:
            self._tokens = check_grants(await _given(self._ask_grants))
        return self._tokens

    @property
    def positions(self) -> dict[str, Position]:
        """The position of each channel: a checkpoint. A client that starts with these positions, and with
        :attr:`epoch`, gets every message that this client has not finished: a callback has finished when it returns, a
        loop over :meth:`listen` when it asks for the next message."""
        positions = self._channels.positions()
        mailboxes = self._unread()
        for name, position in positions.items():
            unread = [first for mailbox in mailboxes if (first := mailbox.first_unread(name)) is not None]
            if unread:
                positions[name] = min(*unread, position + 1 if isinstance(position, int) else unread[0]) - 1
        return positions

    @abstractmethod
    def _unread(self) -> Sequence[Unread]:
        """The loops that are open."""

    @property
    def stats(self) -> Stats:
        """A snapshot: state, transport, counters."""
        selector, counters = self._selector, self._counters
        return Stats(
            selector.state,
            selector.transport,
            counters.requests,
            selector.reconnects,
            counters.messages,
            counters.bytes,
            selector.last_error,
        )

    # --- life ---

    def _make_runner(self, waiter: Waiter) -> Runner:
        hooks = Hooks(lambda: self.on_gap, lambda: self.on_refused, self._call)
        return Runner(self._endpoint, self._settings, self._selector, self._channels, self._counters, hooks, waiter)

    @abstractmethod
    async def _call(self, function: Callable[[Any], object], value: Any) -> None:
        """Call a function of the program."""

    def retry(self) -> None:
        """Try at once, whatever the client is waiting for, and ask again for refused channels."""
        runner = self._runner
        if runner is not None:
            runner.retry()

    # --- channels ---

    @overload
    def subscribe(self, channel: str, *, last_id: Position = ...) -> Callable[[Callback], Callback]: ...

    @overload
    def subscribe(self, channel: str, callback: Callback, last_id: Position = ...) -> Callback: ...

    def subscribe(
        self, channel: str, callback: Callback | None = None, last_id: Position = -1
    ) -> Callback | Callable[[Callback], Callback]:
        """Call ``callback`` with every :class:`ClientMessage` of a channel, in order. Also a decorator.

        ``last_id``: the message to continue after; 0: the whole backlog; -1: new ones only; ``-k``: the last k-1 and
        new ones; ``"@g"``: those after global id g. Another callback on a followed channel gets what it asks for by a
        message id; with any other ``last_id`` it joins at the channel's position. Returns the callback.

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
        """Remove a callback from a channel, or all callbacks. ``"/room/*"`` means every channel with that prefix.
        Returns whether there was something to remove. A callback that is running in another thread finishes."""
        removed, left = self._channels.remove(channel, callback)
        if left:
            self._changed()
        return removed

    def _changed(self) -> None:
        runner = self._runner
        if runner is not None:
            runner.changed()

    def _notify(self, state: ConnectionState, info: StateInfo) -> None:
        logger.debug("%s over %s: %s", state, info.transport, info.message)
        self._note_connected(state == "connected")
        try:
            if self.on_state_change is not None:
                self.on_state_change(state, info)
        except Exception:
            logger.exception("on_state_change failed")

    @abstractmethod
    def _note_connected(self, connected: bool) -> None:
        """For those who wait for it."""


async def _given(function: Callable[[], Any]) -> Any:
    value = function()
    return await value if inspect.isawaitable(value) else value
