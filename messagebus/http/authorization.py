"""Asks the app's hooks who may subscribe: with the request, and later with a snapshot of a WebSocket's handshake."""

from __future__ import annotations

import marshal
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from io import BytesIO
from typing import NamedTuple

from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Request

from ..channel_rules import strictest
from ..errors import BackendUnavailable
from ..hub.node import Node
from ..hub.permissions import read_grants
from ..hub.subscribe_request import ChannelRefusal, SubscribeRequest, Verdict
from ..names import is_presence, of_channel
from ..options import Environ
from ..presence.member import Member, check_member
from .parsing import identify
from .refusals import RETRY_SECONDS
from .requested_channels import ChannelRefused, Refusals

HookContext = Callable[[Callable[[], Environ]], AbstractContextManager[Request]]
"""What makes an environ -> its request, as hooks expect to find it once the request itself is over."""


@contextmanager
def plain_context(environ: Callable[[], Environ]) -> Iterator[Request]:
    """That of a plain WSGI application."""
    yield Request(environ())


def asks_anybody(node: Node) -> bool:
    """Whether any channel needs permission, or has members."""
    options = node.options
    return node.access.hooks or bool(options.protected_channels or options.channels or node.access.presence)


def authorize(node: Node, request: Request, subscribe: SubscribeRequest) -> SubscribeRequest:
    """Remove the channels that this client may not subscribe to, and note who it is in the rooms of the others. Whoever
    may subscribe to a channel may see who is there. Calls the app's hooks, which may block and raise.

    Raises:
        ChannelRefused: A channel is refused, and the client does not accept refusals of single channels.
    """
    if not asks_anybody(node):
        return refuse_presence(node, subscribe)
    subscribe = _ask(node, request, refuse_presence(node, subscribe))
    return with_members(node, request, subscribe) if node.access.presence else subscribe


def refuse_presence(node: Node, subscribe: SubscribeRequest) -> SubscribeRequest:
    """Remove the presence of channels that have no members.

    Raises:
        ChannelRefused: As in ``authorize``.
    """
    refusals = Refusals(subscribe.params.takes_refusals)
    for channel in subscribe.params.positions:
        if is_presence(channel) and node.access.presence.find(of_channel(channel)) is None:
            reason = f"{channel}: no rule of the server says who is a member of {of_channel(channel)}"
            refusals.add(channel, ChannelRefusal("forbidden", reason))
    return subscribe._replace(params=subscribe.params.refuse(refusals.found)) if refusals.found else subscribe


def _ask(node: Node, request: Request, subscribe: SubscribeRequest) -> SubscribeRequest:
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
        asked = of_channel(channel)
        named = channel if asked == channel else f"{channel}: {asked}"
        who = strictest(options.channels, asked)
        if who == "nobody":
            refusals.add(channel, ChannelRefusal("forbidden", f"{named}: no client may subscribe to it"))
            continue
        if who == "signed-in" and subscribe.identity.user_id is None and not granted(asked):
            refusals.add(channel, ChannelRefusal("forbidden", f"{named}: it is for users who are signed in"))
            continue
        protected = options.protected_channels if who != "granted" else (asked,)
        try:
            if node.access.may_subscribe(request, asked, protected, granted):
                continue
        except Exception as error:
            if not params.takes_refusals:
                raise
            refusals.add(channel, _failed(node, channel, error))
        else:
            reason = f"{named}: this client may not subscribe to it"
            if len(grants) > options.max_channels:
                reason += f"; of {len(grants)} grants, the first {options.max_channels} were read (max_channels)"
            refusals.add(channel, ChannelRefusal("forbidden", reason))
    params = params.refuse(refusals.found)
    ends = {channel: granted.until(of_channel(channel)) for channel in params.positions} if grants else {}
    return subscribe._replace(
        params=params, until={channel: until for channel, until in ends.items() if until is not None}
    )


def with_members(node: Node, request: Request, subscribe: SubscribeRequest) -> SubscribeRequest:
    """Note who a client is in the rooms of its channels. Calls the app's rules, which may block and raise."""
    params = subscribe.params
    refusals = Refusals(params.takes_refusals)
    members: dict[str, Member] = {}
    for channel in params.positions:
        rule = None if is_presence(channel) or channel.endswith("*") else node.access.presence.find(channel)
        if rule is None:
            continue
        try:
            found = rule(request, channel)
            if found is not None:
                members[channel] = check_member(found, f"the member rule of {channel}")
        except Exception as error:
            if not params.takes_refusals:
                raise
            refusals.add(channel, _failed(node, channel, error, "member rule"))
    return subscribe._replace(params=params.refuse(refusals.found)._replace(members=members))


def _failed(node: Node, channel: str, error: Exception, what: str = "authorize hook") -> ChannelRefusal:
    """The refusal for a hook that has raised."""
    if isinstance(error, HTTPException) and error.code is not None and error.code < 500:
        return ChannelRefusal("forbidden", f"{channel}: {error.description or error.name}")
    if isinstance(error, BackendUnavailable):
        return ChannelRefusal("unavailable", f"{channel}: the store gave no answer", True, RETRY_SECONDS)
    node.report(error, f"the {what} of {channel!r}")
    return ChannelRefusal("internal", f"{channel}: {type(error).__name__}", True)


class Handshake(NamedTuple):
    """The parts of a WebSocket's handshake that later subscriptions need."""

    text: bytes
    """That of the environ, which is all that a hook can look at. As bytes it is a fifth of the memory, of each open
    connection."""
    context: HookContext
    grants: tuple[str, ...]

    @classmethod
    def of(cls, request: Request, context: HookContext, grants: tuple[str, ...]) -> Handshake:
        environ: Environ = {key: value for key, value in request.environ.items() if isinstance(value, str)}
        # Text of any kind, also what is no UTF-8; it stays in this process.
        return cls(marshal.dumps(environ), context, grants)

    def entered(self) -> AbstractContextManager[Request]:
        """The request, in the context in which hooks expect it."""
        return self.context(self._make_environ)

    def _make_environ(self) -> Environ:
        environ: Environ = marshal.loads(self.text)
        environ["wsgi.input"] = BytesIO()
        environ["wsgi.errors"] = sys.stderr
        environ["wsgi.version"] = (1, 0)
        return environ

    def authorize(self, node: Node, subscribe: SubscribeRequest) -> SubscribeRequest:
        """Like the function of that name; the grants of the handshake count as well."""
        params = subscribe.params
        subscribe = subscribe._replace(params=params._replace(grants=(*params.grants, *self.grants)))
        try:
            with self.entered() as request:
                return self.with_ask(node, authorize(node, request, subscribe))
        except ChannelRefused:
            raise
        except Exception as error:  # of the app's own functions around the hooks
            if not params.takes_refusals:
                raise
            return subscribe._replace(
                params=params.refuse({channel: _failed(node, channel, error) for channel in params.positions})
            )

    def with_ask(self, node: Node, subscribe: SubscribeRequest) -> SubscribeRequest:
        """The request, and how it is asked again, if anything of it may be over before the connection is."""
        may_end = bool(subscribe.until) or bool(node.options.recheck_interval)
        return subscribe._replace(ask=partial(self.ask_again, node)) if may_end else subscribe

    def ask_again(self, node: Node, subscribe: SubscribeRequest) -> Verdict:
        """Who the client is by now, and which of its channels it may still have. Blocks."""
        client_id = subscribe.identity.client_id
        try:
            with self.entered() as request:
                if identify(request, client_id, node.options) != (subscribe.identity, subscribe.site_id):
                    return Verdict({}, {}, False)
                asked = authorize(node, request, subscribe)
                return Verdict(asked.params.refused, asked.until)
        except Exception as error:  # of the lookups, and of the app's own functions around the hooks
            return Verdict({channel: _failed(node, channel, error) for channel in subscribe.params.positions}, {})
