"""Who may subscribe to what, asked of the app's hooks: with a request, and later with what stays of a handshake."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from io import BytesIO
from typing import NamedTuple

from werkzeug.wrappers import Request

from ..hub.node import Node
from ..hub.permissions import read_grants
from ..hub.subscribe_request import SubscribeRequest
from ..options import Environ

HookContext = Callable[[Environ], AbstractContextManager[Request]]
"""An environ -> its request, as hooks expect to find it once the request itself is over."""


@contextmanager
def plain_context(environ: Environ) -> Iterator[Request]:
    """That of a plain WSGI application."""
    yield Request(environ)


def asks_anybody(node: Node) -> bool:
    """Whether there are channels that not everybody may subscribe to."""
    return node.access.hooks or bool(node.options.protected_channels)


def forbidden(node: Node, request: Request, subscribe: SubscribeRequest) -> list[str]:
    """Those of the channels that the client may not subscribe to. Calls the app's hooks, which may block and raise."""
    if not asks_anybody(node):
        return []
    options, params = node.options, subscribe.params
    granted = read_grants(options.secret_key, params.grants, subscribe.identity.client_id, subscribe.site_id)
    return node.access.refused(request, params.positions, options.protected_channels, granted)


class Handshake(NamedTuple):
    """What stays of a WebSocket's handshake, to ask by when its client subscribes to more."""

    environ: Environ
    """Of the request only its text, which is all that a hook can look at."""
    context: HookContext
    grants: tuple[str, ...]

    @classmethod
    def of(cls, request: Request, context: HookContext, grants: tuple[str, ...]) -> Handshake:
        environ: Environ = {key: value for key, value in request.environ.items() if isinstance(value, str)}
        environ |= {"wsgi.input": BytesIO(), "wsgi.errors": sys.stderr, "wsgi.version": (1, 0)}
        return cls(environ, context, grants)

    def forbidden(self, node: Node, subscribe: SubscribeRequest) -> list[str]:
        """As the function of that name; the grants of the handshake count as well."""
        params = subscribe.params
        subscribe = subscribe._replace(params=params._replace(grants=(*params.grants, *self.grants)))
        with self.context(self.environ) as request:
            return forbidden(node, request, subscribe)
