"""Asks the app's hooks who may subscribe: with the request, and later with a snapshot of a WebSocket's handshake."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from io import BytesIO
from typing import NamedTuple

from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Request

from ..channel_rules import strictest
from ..errors import BackendUnavailable
from ..hub.node import Node
from ..hub.permissions import read_grants
from ..hub.subscribe_request import ChannelRefusal, SubscribeRequest
from ..options import Environ
from .refusals import RETRY_SECONDS
from .requested_channels import ChannelRefused, Refusals

HookContext = Callable[[Environ], AbstractContextManager[Request]]
"""An environ -> its request, as hooks expect to find it once the request itself is over."""


@contextmanager
def plain_context(environ: Environ) -> Iterator[Request]:
    """That of a plain WSGI application."""
    yield Request(environ)


def asks_anybody(node: Node) -> bool:
    """Whether any channel needs permission."""
    options = node.options
    return node.access.hooks or bool(options.protected_channels or options.channels)


def authorize(node: Node, request: Request, subscribe: SubscribeRequest) -> SubscribeRequest:
    """Remove the channels that this client may not subscribe to. Calls the app's hooks, which may block and raise.

    Raises:
        ChannelRefused: A channel is refused, and the client does not accept refusals of single channels.
    """
    if not asks_anybody(node):
        return subscribe
    options, params, client_id = node.options, subscribe.params, subscribe.identity.client_id
    grants = list(dict.fromkeys(params.grants))
    granted = read_grants(
        options.secret_key,
        grants[: options.max_channels],
        client_id,
        subscribe.site_id,
        options.secret_key_fallbacks,
    )
    refusals = Refusals(params.takes_refusals)
    for channel in params.positions:
        who = strictest(options.channels, channel)
        if who == "nobody":
            refusals.add(channel, ChannelRefusal("forbidden", f"{channel}: no client may subscribe to it"))
            continue
        if who == "signed-in" and subscribe.identity.user_id is None and not granted(channel):
            refusals.add(channel, ChannelRefusal("forbidden", f"{channel}: it is for users who are signed in"))
            continue
        protected = options.protected_channels if who != "granted" else (channel,)
        try:
            if node.access.may_subscribe(request, channel, protected, granted):
                continue
        except Exception as error:
            if not params.takes_refusals:
                raise
            refusals.add(channel, _failed(node, channel, error))
        else:
            reason = f"{channel}: this client may not subscribe to it"
            if len(grants) > options.max_channels:
                reason += f"; of {len(grants)} grants, the first {options.max_channels} were read (max_channels)"
            refusals.add(channel, ChannelRefusal("forbidden", reason))
    return subscribe._replace(params=params.refuse(refusals.found))


def _failed(node: Node, channel: str, error: Exception) -> ChannelRefusal:
    """The refusal for a hook that has raised."""
    if isinstance(error, HTTPException) and error.code is not None and error.code < 500:
        return ChannelRefusal("forbidden", f"{channel}: {error.description or error.name}")
    if isinstance(error, BackendUnavailable):
        return ChannelRefusal("unavailable", f"{channel}: the store gave no answer", True, RETRY_SECONDS)
    node.report(error, f"the authorize hook of {channel!r}")
    return ChannelRefusal("internal", f"{channel}: {type(error).__name__}", True)


class Handshake(NamedTuple):
    """The parts of a WebSocket's handshake that later subscriptions need."""

    environ: Environ
    """Keeps only the request's text, which is all that a hook can look at."""
    context: HookContext
    grants: tuple[str, ...]

    @classmethod
    def of(cls, request: Request, context: HookContext, grants: tuple[str, ...]) -> Handshake:
        environ: Environ = {key: value for key, value in request.environ.items() if isinstance(value, str)}
        environ |= {"wsgi.input": BytesIO(), "wsgi.errors": sys.stderr, "wsgi.version": (1, 0)}
        return cls(environ, context, grants)

    def authorize(self, node: Node, subscribe: SubscribeRequest) -> SubscribeRequest:
        """Like the function of that name; the grants of the handshake count as well."""
        params = subscribe.params
        subscribe = subscribe._replace(params=params._replace(grants=(*params.grants, *self.grants)))
        try:
            with self.context(self.environ) as request:
                return authorize(node, request, subscribe)
        except ChannelRefused:
            raise
        except Exception as error:  # of the app's own functions around the hooks
            if not params.takes_refusals:
                raise
            return subscribe._replace(
                params=params.refuse({channel: _failed(node, channel, error) for channel in params.positions})
            )
