"""A request on its way to an answer, whatever the transport: who asks, whether they may, and what they are due. No
Flask."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from http import HTTPStatus
from io import BytesIO

from werkzeug.wrappers import Request

from ..errors import BusClosed
from ..hub.joining import Read
from ..hub.node import Node, SubscriptionPlan
from ..hub.permissions import Access, read_grants
from ..hub.subscriber import Identity, Subscriber
from ..message import Message
from ..options import Environ, Options
from ..transports import Transport
from . import parsing as requests
from .parsing import HTTPRefusal, SubscribeParams
from .websocket_session import Refused

Context = Callable[[Environ], AbstractContextManager[Request]]
RETRY_SECONDS = 2


@contextmanager
def plain_context(environ: Environ) -> Iterator[Request]:
    """The request of an environ, for hooks that are called after it: in a plain WSGI application."""
    yield Request(environ)


def unavailable(message: str) -> HTTPRefusal:
    return HTTPRefusal(HTTPStatus.SERVICE_UNAVAILABLE, "unavailable", message, Retry_After=str(RETRY_SECONDS))


class RequestContext:
    """A request on its way to an answer: what the three kinds have in common."""

    def __init__(self, node: Node, request: Request, client_id: str, context: Context) -> None:
        self.node = node
        self.context = context
        self.request = request
        self.client_id = client_id
        self.options = node.options
        self.asked = SubscribeParams({}, None, None)
        self.identity = Identity(client_id)
        self.site_id: str | None = None
        self.prepared = SubscriptionPlan((), {}, 0)

    def prepare(self, asked: SubscribeParams) -> None:
        """Check what is asked for, find out who asks, and read what it takes to answer."""
        self.asked = asked
        if self.node.access.off:
            raise unavailable("the bus is off")
        asked.wants(None, None)  # malformed ones are refused before anybody is asked anything
        self.identity, self.site_id = requests.identify(self.request, self.client_id, self.options)
        for channel in self.refused(self.request, asked.positions, asked.grants):
            raise HTTPRefusal(
                HTTPStatus.FORBIDDEN, "forbidden", f"{channel}: this client may not subscribe to it", channel
            )
        self.read()

    def refused(self, request: Request, channels: Iterable[str], grants: Iterable[str]) -> list[str]:
        """Those of the channels that this client may not subscribe to."""
        return _refused(self.node.access, self.options, self.client_id, self.site_id, request, channels, grants)

    def read(self) -> None:
        """Read what it takes to tell what is due now."""
        try:
            self.prepared = _read(self.node, self.asked, self.site_id)
        except BusClosed:
            raise unavailable("the server is shutting down, come back") from None

    def reader(self) -> Read:
        """What does that, and does not keep the request: until its subscriber is taken in, a crowd may have come."""
        return partial(_read, self.node, self.asked, self.site_id)

    def epoch_teller(self, unasked: bool = False) -> Callable[[], bool]:
        """Whether the client has to be told the store's epoch, as of when this is called: it named another one, or
        none and is told ``unasked``. Keeps no request."""
        hub, known = self.node.hub, self.asked.epoch
        return lambda: (unasked or known is not None) and hub.epoch is not None and known != hub.epoch

    def due_now(self) -> list[Message]:
        """What a poll that is not held answers."""
        hub = self.node.hub
        while True:
            due = hub.due_now(self.prepared.wants, self.prepared.readings, self.identity)
            if due is not None:
                return due.batch(hub.epoch, self.epoch_teller()())
            self.read()

    def subscriber_maker(self) -> Callable[[Transport, bytes], Subscriber]:
        """Makes the subscriber of a transport and of what goes before its first bytes; keeps no request either."""
        hub, identity, sequence = self.node.hub, self.identity, self.asked.sequence
        return lambda transport, head: Subscriber(hub, transport, identity, head, sequence)

    def refused_later(self) -> Refused | None:
        """What asks the hooks again when an open WebSocket subscribes to more; ``None`` where there is nobody to
        ask."""
        if not self.node.access.hooks and not self.options.protected_channels:
            return None
        # The request is over by then: what stays of it is its text, which is all that a hook can look at.
        environ: Environ = {key: value for key, value in self.request.environ.items() if isinstance(value, str)}
        environ |= {"wsgi.input": BytesIO(), "wsgi.errors": sys.stderr, "wsgi.version": (1, 0)}
        context, grants = self.context, self.asked.grants
        # Not `self`, which holds what was read for the first answer.
        ask = partial(_refused, self.node.access, self.options, self.client_id, self.site_id)

        def refused(channels: Iterable[str], more_grants: Iterable[str]) -> list[str]:
            with context(environ) as request:
                return ask(request, channels, [*more_grants, *grants])

        return refused


def _read(node: Node, asked: SubscribeParams, site_id: str | None) -> SubscriptionPlan:
    node.wait_until_ready()
    if node.hub.ending:
        raise BusClosed("the server is shutting down, come back")
    node.catch_up()
    return node.prepare(lambda epoch: asked.wants(site_id, epoch))


def _refused(
    access: Access,
    options: Options,
    client_id: str,
    site_id: str | None,
    request: Request,
    channels: Iterable[str],
    grants: Iterable[str],
) -> list[str]:
    if not access.hooks and not options.protected_channels:
        return []
    granted = read_grants(options.secret_key, grants, client_id, site_id)
    return access.refused(request, channels, options.protected_channels, granted)
