"""The request that opens a socket on ``/cable``: who it is, and whether it may, before the 101. No Flask."""

from __future__ import annotations

import json
from _socket import socket as RawSocket
from collections.abc import Mapping
from functools import partial
from http import HTTPStatus
from typing import Any

import msgspec
from werkzeug.wrappers import Request

from ..errors import InvalidTargets
from ..http import parsing
from ..http.addresses import check_address, client_address
from ..http.authorization import Handshake, HookContext, plain_context
from ..http.channel_commands import GUEST
from ..http.refusals import HTTPRefusal, unavailable
from ..http.routes import Answer, refuse
from ..http.upgrade import Upgrade, accept
from ..hub.node import Node
from ..hub.permissions import read_grants
from ..hub.subscriber import Identity
from ..loop.socket_writer import SocketWriter
from ..message import check_id, id_key
from ..options import Options
from .cable import Cable
from .channel import Connection
from .classes import ConnectRefused
from .encoding import EXTENDED, SUBPROTOCOLS
from .recovery import owner_of
from .session import CableSession

USER = "user_id"
"""What of the ``connect`` hook's result takes the place of ``user_id_lookup``'s."""


def cable_of(node: Node) -> Cable | None:
    """``None``: no channel class is registered."""
    found = node.guests.get(GUEST)
    return found if isinstance(found, Cable) else None


def serve_cable(node: Node, request: Request, context: HookContext = plain_context) -> Answer:
    """Handle a request to ``/cable``. Only exceptions of the user's lookups and of the ``connect`` hook propagate."""
    try:
        return _serve(node, request, context)
    except HTTPRefusal as refusal:
        if refusal.limit is not None:
            node.hub.refused.count(refusal.limit)
        return refuse(request, node.options, refusal)


def _serve(node: Node, request: Request, context: HookContext) -> Answer:
    cable, options = cable_of(node), node.options
    if cable is None:
        raise HTTPRefusal(HTTPStatus.NOT_FOUND, "not_found", "no channel class is registered")
    headers, subprotocol = accept(request, options, SUBPROTOCOLS)
    if subprotocol is None:
        raise HTTPRefusal(
            HTTPStatus.BAD_REQUEST,
            "bad_handshake",
            f"Sec-WebSocket-Protocol: expected {' or '.join(SUBPROTOCOLS)}",
            "Sec-WebSocket-Protocol",
        )
    if node.access.off:
        raise unavailable("the bus is off")
    if node.hub.is_shutting_down:
        raise unavailable("the server is shutting down, come back")
    client_id = parsing.new_client_id()
    identity, site_id = parsing.identify(request, client_id, options)
    try:
        identifiers = cable.classes.identify(request)
    except ConnectRefused as refused:
        raise HTTPRefusal(HTTPStatus.FORBIDDEN, "forbidden", str(refused)) from None
    identity = identify(identity, identifiers)
    address = client_address(request.environ, options.trusted_proxies)
    check_address(node, client_id, address, False)
    if node.hub.is_full():
        raise unavailable("max_active_clients are connected; come back", "max_active_clients")
    connection = make_connection(identity, site_id, address, identifiers, _grants(request, options), options)
    handshake = Handshake.of(request, context, ())
    owner, had = None, []
    if subprotocol == EXTENDED:
        owner = owner_of(identity, site_id, identifiers)
        had = cable.recovery.find(request.args.get("sid", ""), owner)[: options.max_channels]
    adopt = partial(_adopt, cable, identity, connection, handshake, owner, had)
    return Answer(HTTPStatus.SWITCHING_PROTOCOLS, headers, streaming=Upgrade(node, adopt))


def make_connection(
    identity: Identity,
    site_id: str | None,
    address: str,
    identifiers: Mapping[str, Any],
    grants: tuple[str, ...],
    options: Options,
) -> Connection:
    is_granted = read_grants(
        options.secret_key,
        grants[: options.max_channels],
        identity.client_id,
        site_id,
        options.secret_key_fallbacks,
    )
    user_id = identifiers.get(USER, None if identity.user_id is None else json.loads(identity.user_id))
    return Connection(identity.client_id, user_id, site_id, address, identifiers, is_granted)


def identify(identity: Identity, identifiers: Mapping[str, Any]) -> Identity:
    """A client as the ``connect`` hook identifies it."""
    if USER not in identifiers:
        return identity
    return msgspec.structs.replace(identity, user_id=_user_key(identifiers[USER]))


def _user_key(user_id: Any) -> bytes | None:
    try:
        return None if user_id is None else id_key(check_id(USER, user_id))
    except InvalidTargets as error:
        raise TypeError(f"the connect hook returned no id for {USER}: {error}") from None


def _grants(request: Request, options: Options) -> tuple[str, ...]:
    tokens = request.args.get("__grants", "").split(",")
    return tuple(token for token in dict.fromkeys(tokens) if token)


def _adopt(
    cable: Cable,
    identity: Identity,
    connection: Connection,
    handshake: Handshake,
    owner: str | None,
    had: list[str],
    sock: RawSocket,
    head: bytes,
    early: bytes,
) -> None:
    node = cable.node
    session = CableSession(cable, identity, connection, handshake, head, owner)
    session.writer = SocketWriter(sock, node.reactor, session, node.options.max_outbox, node.hub.outboxes, True)
    session.begin(had)
    if early:
        session.on_data(early)
