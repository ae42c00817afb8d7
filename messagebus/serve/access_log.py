"""The access log of ``messagebus serve``, and how text that comes from strangers gets into any log."""

from __future__ import annotations

import logging
import logging.handlers
import re
import time
from typing import Any

from .response import Response

_NOT_PRINTABLE = re.compile(r"[^ !#-\[\]-~]")  # with the quotation mark and the backslash


def printable(text: str) -> str:
    """Text that came from a client: a terminal or a program that reads the log takes nothing in it for its own."""
    return _NOT_PRINTABLE.sub(lambda found: ascii(found[0])[1:-1] if found[0] not in '"\\' else "\\" + found[0], text)


class AccessLog:
    """Writes a line for each request: address, time, request line, status, bytes of the body, seconds."""

    def __init__(self, path: str | None) -> None:
        """``path``: a file, opened anew where it was moved away; ``None``: the standard error."""
        self._logger = logging.getLogger("messagebus.serve.access")
        self._logger.propagate = False
        self._logger.setLevel(logging.INFO)
        handler = logging.StreamHandler() if path is None else logging.handlers.WatchedFileHandler(path)
        handler.setFormatter(logging.Formatter("%(message)s"))
        self._logger.handlers[:] = [handler]

    def __call__(self, environ: dict[str, Any], target: bytes, response: Response, seconds: float) -> None:
        self._logger.info(
            '%s - - [%s] "%s %s %s" %s %d %.6f',
            environ.get("REMOTE_ADDR") or "-",
            time.strftime("%d/%b/%Y:%H:%M:%S %z"),
            environ["REQUEST_METHOD"],
            printable(target.decode("latin-1")),
            environ["SERVER_PROTOCOL"],
            response.status[:3] or "-",
            response.sent,
            seconds,
        )
