"""Counts subscribers by the address that they come from. An IPv6 address counts as its network of 64 bits, which is
what one customer of a provider has. No HTTP."""

from __future__ import annotations

import ipaddress
from functools import lru_cache


class Addresses:
    """Holds no more addresses than there are subscribers. In the reactor's loop only, but for ``count``."""

    def __init__(self) -> None:
        self._held: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._held)

    def add(self, address: str) -> None:
        if address:
            source = source_of(address)
            self._held[source] = self._held.get(source, 0) + 1

    def remove(self, address: str) -> None:
        if address:
            source = source_of(address)
            left = self._held[source] - 1
            if left:
                self._held[source] = left
            else:
                del self._held[source]

    def count(self, address: str) -> int:
        """The number of subscribers from where an address belongs to. From any thread."""
        return self._held.get(source_of(address), 0)


@lru_cache(maxsize=4096)
def source_of(address: str) -> str:
    """What an address is counted as; one that is none counts as the text that it is."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((parsed, 64), strict=False))


@lru_cache(maxsize=4096)
def is_private(address: str) -> bool:
    """Whether a proxy may be behind an address: one of a private network, none at all (a Unix socket), or a text."""
    try:
        return not address or ipaddress.ip_address(address.partition("%")[0]).is_private
    except ValueError:
        return True
