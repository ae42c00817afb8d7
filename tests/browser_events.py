"""EventSource as a browser has it, without any client of ours."""

from __future__ import annotations

import contextlib
import http.client
from collections.abc import Mapping
from urllib.parse import urlencode, urlsplit


class Browser:
    """An EventSource of a page that knows nothing of positions: it comes back with the same URL and the last id."""

    def __init__(self, url: str, positions: Mapping[str, int], **query: str) -> None:
        self._host = urlsplit(url).netloc
        self._path = f"/message-bus/any/sse?{urlencode({**positions, **query})}"
        self.last_id = ""
        self.connections = 0

    def events(self, count: int) -> list[tuple[str, str]]:
        """Connect, and read so many events, each with the id after it; then cut the line."""
        self.connections += 1
        connection = http.client.HTTPConnection(self._host, timeout=30)
        with contextlib.closing(connection):
            connection.request("GET", self._path, headers={"Last-Event-ID": self.last_id} if self.last_id else {})
            answer = connection.getresponse()
            assert answer.status == 200, answer.read()
            found: list[tuple[str, str]] = []
            lines: list[str] = []
            while len(found) < count:
                line = answer.readline().decode().rstrip("\n")
                if line:
                    lines.append(line)
                    continue
                ids = [each[4:] for each in lines if each.startswith("id: ")]
                self.last_id = ids[-1] if ids else self.last_id
                text = "\n".join(each[6:] for each in lines if each.startswith("data: "))
                if text:
                    found.append((text, self.last_id))
                lines = []
            return found
