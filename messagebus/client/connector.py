"""Makes the client's connections: asks the program for its headers and grants, and names what is to be followed."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from .channels import REFUSALS_KEY, Channels, Following, encode_query
from .http11 import HttpConnection, LinkEnded
from .links import EventSourceLink, PollLink, TransportLink, WebSocketLink
from .settings import Address
from .transport_selector import Attempt
from .types import Failure
from .waiting import Waiter

logger = logging.getLogger("messagebus.client")

QUERY_LIMIT = 3000
"""Characters; servers refuse request lines from 4 KB on."""
OWN_HEADERS = {"User-Agent": "messagebus-python", "X-SILENCE-LOGGER": "true"}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The server's address, and the client's credentials."""

    address: Address
    client_id: str
    headers: Callable[[], Awaitable[dict[str, str]]]
    """Asked before each connection."""
    grants: Callable[[], Awaitable[tuple[str, ...]]]
    """Asked before each connection."""
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


class Connector:
    """Makes a link for an attempt. For one thread, or one loop."""

    def __init__(self, endpoint: Endpoint, channels: Channels, counters: Counters, waiter: Waiter) -> None:
        self.endpoint = endpoint
        self.grants: tuple[str, ...] = ()
        """As the program gave them last."""
        self._channels = channels
        self._counters = counters
        self._waiter = waiter
        self._headers: dict[str, str] = {}

    def new_http(self) -> HttpConnection:
        """For polls and EventSource; several links may use it, one after the other."""
        return HttpConnection(self._waiter, self.endpoint.address, self.endpoint.context)

    async def renew_credentials(self) -> None:
        """Ask the program for headers and grants.

        Raises:
            LinkEnded: One of its functions failed.
        """
        try:
            self._headers, self.grants = await self.endpoint.headers(), await self.endpoint.grants()
        except Exception as error:
            logger.exception("the program's headers or grants function failed")
            raise LinkEnded(Failure(f"headers or grants: {type(error).__name__}: {error}")) from None

    def fits_query(self, asked: Following) -> bool:
        """Whether what is asked for fits into a URL."""
        return len(encode_query(_positions(asked), self._channels.epoch, self.grants)) <= QUERY_LIMIT

    def link(self, attempt: Attempt, asked: Following, http: HttpConnection) -> TransportLink:
        """A link that is not open yet; it counts as a request. Where a WebSocket's URL has no room for what is asked
        for, ``asked`` is emptied: it has to be sent in commands, when the link is open."""
        self._counters.requests += 1
        endpoint, name = self.endpoint, attempt.transport
        positions = _positions(asked)
        epoch, grants = self._channels.epoch, self.grants
        given = {header.lower() for header in self._headers}
        own = {header: value for header, value in OWN_HEADERS.items() if header.lower() not in given}
        headers = {**self._headers, **own}
        knows = {REFUSALS_KEY: "t"}
        if name == "websocket":
            if len(encode_query(positions, epoch, grants, **knows)) > QUERY_LIMIT:
                asked.clear()  # they follow in commands when it is open
                positions, grants = {}, ()
            query = encode_query(positions, epoch, grants, **knows)
            return WebSocketLink(self._waiter, endpoint.address, endpoint.context, endpoint.base, headers, query)
        if name == "eventsource":
            return EventSourceLink(http, endpoint.base, headers, encode_query(positions, epoch, grants, **knows))
        stream = name == "streaming"
        if epoch is None and (stream or attempt.plain):
            # Asks for it. Not on a poll that is held for one batch: a server that knows nothing of epochs takes the key
            # for a channel with news, and would answer each at once.
            epoch = ""
        self._counters.sequence += 1
        form = encode_query(positions, epoch, grants, __seq=self._counters.sequence, **knows)
        return PollLink(http, endpoint.base, headers, form, plain=attempt.plain, stream=stream)

    async def open_beside(self, attempt: Attempt, asked: Following) -> tuple[TransportLink, HttpConnection, bytes]:
        """Open a link on a connection of its own, beside the one in use; returns them when the first text has come,
        with that text.

        Raises:
            LinkEnded: The link ended, or nothing came within the attempt's timeout; or one of ``ERRORS``.
        """
        http = self.new_http()
        link: TransportLink | None = None
        try:
            await self.renew_credentials()
            link = self.link(attempt, asked, http)
            deadline = attempt.since + attempt.timeout
            await link.open(deadline)
            while (text := await link.read(deadline)) is None:
                if self._waiter.clock() >= deadline:
                    raise LinkEnded(Failure("nothing came for too long"))
        except BaseException:
            if link is not None:
                link.close()
            http.close()
            raise
        return link, http, text


def _positions(asked: Following) -> dict[str, int | str]:
    return {name: channel.position for name, channel in asked.items() if channel}
