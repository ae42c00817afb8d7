"""From a request that asks for a socket of the application's own to the answer: the handshake, or a refusal."""

from __future__ import annotations

import re
import secrets
from _socket import socket as RawSocket
from collections.abc import Sequence
from http import HTTPStatus

from werkzeug.wrappers import Request

from ..http.addresses import check_address, client_address
from ..http.parsing import identify
from ..http.refusals import HTTPRefusal, unavailable
from ..http.routes import Answer, refuse
from ..http.upgrade import Upgrade, accept
from ..hub.node import Node
from .handlers import Functions
from .session import SocketSession


def open_socket(
    node: Node,
    request: Request,
    functions: Functions,
    allowed_origins: Sequence[str | re.Pattern[str]] | None,
    subprotocols: Sequence[str],
) -> Answer:
    """The answer that makes a request a socket of these functions, or refuses it. ``allowed_origins``: in place of the
    option's."""
    try:
        return _open(node, request, functions, allowed_origins, subprotocols)
    except HTTPRefusal as refusal:
        if refusal.limit is not None:
            node.hub.refused.count(refusal.limit)
        return refuse(request, node.options, refusal)


def _open(
    node: Node,
    request: Request,
    functions: Functions,
    allowed_origins: Sequence[str | re.Pattern[str]] | None,
    subprotocols: Sequence[str],
) -> Answer:
    options, hub = node.options, node.hub
    began = node.reactor.clock()
    headers, subprotocol = accept(request, options, subprotocols, allowed_origins)
    if node.access.off:
        raise unavailable("the bus is off")
    if hub.is_shutting_down:
        raise unavailable("the server is shutting down, come back")
    # Nobody tells the bus which page it is of: a client id of its own.
    client_id = secrets.token_hex(16)
    identity, site_id = identify(request, client_id, options)
    address = client_address(request.environ, options.trusted_proxies)
    check_address(node, client_id, address, False)
    if hub.is_full():
        raise unavailable("max_active_clients are connected, come back", "max_active_clients")
    if functions.talk is not None and node.talks.is_full():
        raise unavailable("max_talks are under way, come back", "max_talks")

    def adopt(sock: RawSocket, head: bytes, early: bytes) -> None:
        SocketSession(node, functions, identity, address, site_id, subprotocol, head, began).begin(sock, early)

    return Answer(HTTPStatus.SWITCHING_PROTOCOLS, headers, streaming=Upgrade(node, adopt))
