"""HTTP requests to a server that has the bus: one connection, which is kept. No redirect is followed: the key would go
with it."""

from __future__ import annotations

import http.client
import json
import ssl
from typing import Any

from ..client.settings import check_headers, parse_url
from ..errors import InvalidOption
from .ending import CannotDo, Failed, NoAnswer, NotSafe, NotTaken

TIMEOUT = 30.0
"""Seconds for an answer, and to connect in."""
FAILURES = {401, 403, 409}
"""Statuses of what was understood, and not allowed."""


class Refused(Exception):
    """The server has answered with an error."""

    def __init__(self, status: int, code: str, message: str, retry_after: float | None) -> None:
        super().__init__(f"the server answers {status}" + (f" {code}: {message}" if code else ""))
        self.status = status
        self.code = code
        self.retry_after = retry_after
        """Seconds; ``None``: it does not say that it is worth trying again."""

    def as_ending(self) -> CannotDo | Failed:
        if self.code == "not_durable":
            return NotSafe(str(self))
        if self.status in FAILURES:
            return Failed(str(self))
        if self.status == 413:
            return NotTaken(str(self))
        return (NoAnswer if self.status >= 500 or self.status == 429 else CannotDo)(str(self))


class Unreachable(NoAnswer):
    """No answer came: the request may or may not have done something."""


class Requests:
    """For one thread."""

    def __init__(self, url: str, key: str | None) -> None:
        """Raises InvalidOption: the URL is malformed, or the key cannot be sent."""
        self.address = parse_url(url)
        if key is not None and not (key.isascii() and key.isprintable() and key.strip()):
            raise InvalidOption("key", "expected printable ASCII characters")
        self.headers = check_headers({} if key is None else {"Authorization": f"Bearer {key.strip()}"})
        self._connection: http.client.HTTPConnection | None = None

    def ask(self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> Any:
        """The JSON of an answer, an object or a list. ``path``: what comes after ``/message-bus/``.

        Raises:
            Refused: It is an error.
            Unreachable: There is none.
            CannotDo: It is none of the bus.
        """
        status, retry_after, content = self._request(method, path, body, headers or {})
        try:
            said = json.loads(content)
        except ValueError:
            said = None
        if status in (200, 201, 202) and isinstance(said, (dict, list)):
            return said
        if 300 <= status < 400:
            raise CannotDo(f"the server redirects ({status}): give the URL that it leads to")
        error = said.get("error") if isinstance(said, dict) else None
        if not isinstance(error, dict):
            error = {}
        if status == 404 and error.get("code") in (None, "not_found"):
            raise CannotDo(f"{self.place} has no such part (404): is the mount path missing, or an option off?")
        if status < 400:
            raise CannotDo(f"what answers at {self.place} is no bus")
        raise Refused(status, str(error.get("code", "")), str(error.get("message", ""))[:500], retry_after)

    @property
    def place(self) -> str:
        return f"{'https' if self.address.secure else 'http'}://{self.address.authority}{self.address.path}"

    def _request(
        self, method: str, path: str, body: bytes | None, headers: dict[str, str]
    ) -> tuple[int, float | None, bytes]:
        given = {"User-Agent": "messagebus", "Accept": "application/json", **self.headers, **headers}
        # A connection that was kept may have ended meanwhile; that shows before any byte of an answer, and only then is
        # the request sent again. (Whoever publishes gives it a key, so that nothing is stored twice.)
        for is_last in (self._connection is None, True):
            connection = self._connection or self._connect()
            try:
                connection.request(method, self.address.path + path, body, given)
                response = connection.getresponse()
                content = response.read()
            except (http.client.RemoteDisconnected, ConnectionError) as error:
                self.close()
                if is_last:
                    raise Unreachable(f"no answer from {self.place}: {error}") from None
            except (OSError, http.client.HTTPException) as error:
                self.close()
                raise Unreachable(f"no answer from {self.place}: {str(error) or type(error).__name__}") from None
            else:
                self._connection = connection
                if response.will_close:
                    self.close()
                return response.status, _seconds(response.headers.get("Retry-After")), content
        raise AssertionError("unreachable")

    def _connect(self) -> http.client.HTTPConnection:
        host, port = self.address.host, self.address.port
        if self.address.secure:
            return http.client.HTTPSConnection(host, port, timeout=TIMEOUT, context=ssl.create_default_context())
        return http.client.HTTPConnection(host, port, timeout=TIMEOUT)

    def close(self) -> None:
        """May be repeated; the next request connects again."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


def _seconds(header: str | None) -> float | None:
    return float(header) if header is not None and header.isascii() and header.isdigit() else None
