"""The address that a request comes from: the connection's, or the one that a trusted proxy has written down."""

from __future__ import annotations

import ipaddress
from http import HTTPStatus

from ..hub.addresses import is_private
from ..hub.node import Node
from ..options import Environ, Options
from .refusals import HTTPRefusal

FULL_SECONDS = 10
"""Seconds after which a client is told to come back where its address has too many."""


def client_address(environ: Environ, trusted_proxies: int) -> str:
    """The client's address; empty on a Unix socket. ``trusted_proxies``: how many proxies there are, each of which adds
    the address of who has asked it to the end of ``X-Forwarded-For``. What stands before those, anybody may write.

    Where the header has fewer addresses, or that one is none, the request came around the proxies, and the connection's
    own address counts."""
    peer = str(environ.get("REMOTE_ADDR") or "")
    if not trusted_proxies:
        return peer
    forwarded = str(environ.get("HTTP_X_FORWARDED_FOR", "")).rsplit(",", trusted_proxies)
    if len(forwarded) < trusted_proxies:
        return peer
    address = forwarded[-trusted_proxies].strip()
    if address.startswith("["):
        address = address[1:].partition("]")[0]  # [2001:db8::1]:443
    elif address.count(":") == 1:
        address = address.partition(":")[0]  # 192.0.2.1:443
    try:
        return str(ipaddress.ip_address(address))
    except ValueError:
        return peer


def is_clients(options: Options, address: str) -> bool:
    """Whether an address is a client's own, as far as that can be told: a proxy may be behind a private one, with all
    its clients."""
    return bool(options.trusted_proxies and address) or not is_private(address)


def check_address(node: Node, client_id: str, address: str, replaces: bool) -> None:
    """Refuse one more subscriber of an address that has as many as it may. ``replaces``: it takes the place of
    another one of its client, where there is one."""
    options = node.options
    limit = options.max_clients_per_address
    if not limit or node.hub.membership.addresses.count(address) < limit:
        return
    if not is_clients(options, address):
        return
    if replaces and any(other.sequence is not None for other in node.hub.membership.of_client(client_id)):
        return
    message = f"{address} has as many clients as max_clients_per_address allows: {limit}"
    if not options.trusted_proxies:
        message += "; if that is a proxy, set trusted_proxies"
    raise HTTPRefusal(
        HTTPStatus.TOO_MANY_REQUESTS,
        "too_many_clients",
        message,
        "max_clients_per_address",
        limit="max_clients_per_address",
        Retry_After=str(FULL_SECONDS),
    )
