"""A client's settings: default, unit and check of each; and where its server is. Times are in seconds."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from urllib.parse import quote, urlsplit

from ..errors import InvalidOption
from ..wire import CLIENT_ID, ROOT
from .types import TRANSPORTS, Transport

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", re.ASCII)
_HEADER_VALUE = re.compile(r"[\x21-\x7e\x80-\xff]([\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?|")
_NOT_YOURS = {"host", "connection", "upgrade", "content-length", "content-type", "transfer-encoding", "dont-chunk"}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of the JavaScript client that also apply without a page."""

    transports: tuple[Transport, ...] = TRANSPORTS
    """Transports to use, the preferred first. The next one is taken where one fails to open or stays silent; better
    ones are tried again after 5 minutes, then after 10, 20, 40, 60. One that had worked is given up after three
    failures in a row, and only while the server answers polls. Where none of the list can be used, polling is."""
    callback_interval: float = 15.0
    """Seconds between two polls that brought nothing and were not held."""
    min_poll_interval: float = 0.1
    """Minimum seconds between two polls. The first delay after a failure is up to five times as long."""
    max_poll_interval: float = 180.0
    """Maximum delay after failures, in seconds; also the delay after a request that the server refused."""
    enable_long_polling: bool = True
    """``False`` rules out streaming and long-polling."""
    enable_chunked_encoding: bool = True
    """``False`` rules out streaming."""
    first_chunk_timeout: float = 3.0
    """Seconds that a WebSocket, an EventSource or a stream may stay silent at its beginning, connecting included; or
    twice the time of the last plain poll, if that is longer."""
    retry_chunked_after_requests: int = 30
    """Number of held polls after which streaming is tried again."""
    heartbeat_timeout: float = 40.0
    """Seconds of silence after which a connection counts as broken. Keep it above the server's ``heartbeat_interval``
    (25 s)."""

    def __post_init__(self) -> None:
        if not self.transports or not set(self.transports) <= set(TRANSPORTS):
            raise InvalidOption("transports", f"expected some of {', '.join(TRANSPORTS)}, not {self.transports!r}")
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type == "bool" and not isinstance(value, bool):
                raise InvalidOption(field.name, f"expected True or False, not {value!r}")
            if field.type not in ("float", "int"):
                continue
            kinds = (int, float) if field.type == "float" else (int,)
            if isinstance(value, bool) or not isinstance(value, kinds) or not value > 0:
                raise InvalidOption(field.name, f"expected a number above 0, not {value!r}")


@dataclass(frozen=True, slots=True)
class Address:
    """The address of a server."""

    secure: bool
    host: str
    """A name or an address, without brackets, in ASCII."""
    port: int
    path: str
    """Ends in ``/message-bus/``; percent-encoded."""

    @property
    def authority(self) -> str:
        """As in the ``Host`` header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.secure else 80) else f"{host}:{self.port}"


def parse_url(url: object) -> Address:
    """Parse the app's address: ``http://host:8000``, with its mount path, with or without ``/message-bus/``.

    Raises:
        InvalidOption: The URL is malformed. (It is a ``ValueError``.)
    """
    if not isinstance(url, str):
        raise InvalidOption("url", f"expected a string, not {type(url).__name__}")
    try:
        parts = urlsplit(url)
        port = parts.port
        host = (parts.hostname or "").encode("ascii" if parts.netloc.isascii() else "idna").decode()
    except ValueError as error:
        # Without the URL itself, which may have a password in it.
        raise InvalidOption("url", f"not a URL: {type(error).__name__}") from None
    if parts.scheme not in ("http", "https") or not host:
        raise InvalidOption("url", "expected http:// or https:// and a host, such as http://localhost:8000")
    if parts.username is not None or parts.password is not None:
        raise InvalidOption("url", "user and password go into the Authorization header; see headers")
    if parts.query or parts.fragment:
        raise InvalidOption("url", "expected the address of the app, without '?' and '#'")
    if re.search(r"[\x00-\x20\x7f]", url) or port == 0:
        raise InvalidOption("url", "blanks, control characters and port 0 are not allowed")
    path = parts.path.rstrip("/")
    if not path.endswith(ROOT.rstrip("/")):
        path += ROOT.rstrip("/")
    secure = parts.scheme == "https"
    return Address(secure, host, port or (443 if secure else 80), quote(path, safe="/%:@!$&'()*+,;=~-._") + "/")


def check_client_id(client_id: object) -> str:
    """Raises InvalidOption where a server would not accept it."""
    if not isinstance(client_id, str) or not CLIENT_ID.fullmatch(client_id):
        raise InvalidOption("client_id", "expected 1 to 128 letters, digits, or any of _ . ~ -")
    return client_id


def check_grants(grants: object) -> tuple[str, ...]:
    """Raises InvalidOption where they are not a list of tokens. Tokens do not show in the error: they are secrets."""
    if isinstance(grants, (str, bytes)) or not isinstance(grants, Iterable):
        raise InvalidOption("grants", f"expected a list of tokens, not {type(grants).__name__}: [token]")
    tokens = tuple(grants)
    if not all(isinstance(token, str) and token and "," not in token for token in tokens):
        raise InvalidOption("grants", "expected a list of tokens, as the server's grant(...) makes them")
    return tokens


def check_headers(headers: Mapping[str, str] | None) -> dict[str, str]:
    """Raises InvalidOption where one could not be sent, or is the client's own. Values do not show in the error: they
    may be secrets."""
    checked = {}
    given: Iterable[tuple[object, object]] = (headers or {}).items()
    for name, value in given:
        if not isinstance(name, str) or not _HEADER_NAME.fullmatch(name):
            raise InvalidOption("headers", f"{name!r} is not the name of a header")
        if name.lower() in _NOT_YOURS or name.lower().startswith("sec-websocket-"):
            raise InvalidOption("headers", f"{name} is set by the client itself")
        if not isinstance(value, str) or not _HEADER_VALUE.fullmatch(value):
            raise InvalidOption("headers", f"the value of {name} is not a string that a header can have")
        checked[name] = value
    return checked
