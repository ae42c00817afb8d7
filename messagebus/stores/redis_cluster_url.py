"""``redis+cluster://`` URLs, taken apart. Pure; what it returns holds passwords."""

from __future__ import annotations

import re
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlencode, urlsplit

from ..errors import InvalidOption
from .partitions import MAX_PARTITIONS
from .redis_connection import connection_arguments

EXPECTED = "redis+cluster://[[user]:password@]host[:6379][,host2[:6379]]/[?partitions=64]"
PORT = 6379
PARTITIONS = 64
_PLACE = re.compile(r"(?P<host>[\w.-]+|\[[0-9A-Fa-f:.]+\])(?::(?P<port>\d+))?", re.ASCII)

Place = tuple[str, int]
"""Host and port of a node."""


class ClusterUrl(NamedTuple):
    """Where to begin, and how to connect to each node."""

    places: tuple[Place, ...]
    """Nodes to ask for all others, in this order."""
    partitions: int
    connection_class: type[Any]
    arguments: dict[str, Any]
    """Of each connection, without host and port."""

    @property
    def where(self) -> str:
        """As logs may show it."""
        return f"cluster {','.join(f'{host}:{port}' for host, port in self.places)}"


def read_cluster_url(url: str, timeout: float) -> ClusterUrl:
    """``timeout``: seconds to connect to a node, and to wait for an answer.

    Raises:
        InvalidOption: The URL is malformed. The text shows none of it.
    """
    parts = urlsplit(url)
    who, _, hosts = parts.netloc.rpartition("@")
    places = tuple(_place(each) for each in hosts.split(","))
    if parts.path.strip("/") not in ("", "0"):
        raise InvalidOption("url", f"a cluster has no databases but 0; expected {EXPECTED}")
    parameters = dict(parse_qsl(parts.query, keep_blank_values=True))
    partitions = parameters.pop("partitions", str(PARTITIONS))
    if not (
        partitions.isascii() and partitions.isdigit() and len(partitions) < 9 and 1 <= int(partitions) <= MAX_PARTITIONS
    ):
        raise InvalidOption("url", f"partitions: expected a number from 1 to {MAX_PARTITIONS}")
    scheme = parts.scheme.partition("+")[0]
    query = f"?{urlencode(parameters)}" if parameters else ""
    one = f"{scheme}://{f'{who}@' if who else ''}node/0{query}"
    connection_class, arguments = connection_arguments(one, timeout)
    if arguments["db"]:
        raise InvalidOption("url", f"a cluster has no databases but 0; expected {EXPECTED}")
    del arguments["host"]
    arguments.pop("port", None)
    return ClusterUrl(places, int(partitions), connection_class, arguments)


def _place(text: str) -> Place:
    found = _PLACE.fullmatch(text)
    port = int(found["port"] or PORT) if found else 0
    if found is None or not 0 < port < 65536:
        raise InvalidOption("url", f"the host or port of a node is malformed; expected {EXPECTED}")
    return found["host"].strip("[]"), port
