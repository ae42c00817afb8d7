"""The logs of ``messagebus serve``: text for people, or JSON for programs that collect it."""

from __future__ import annotations

import json
import logging
import logging.handlers
import re
import time
from typing import Any

from ..hub.ended import Ended
from .response import Response

TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_VALUE = re.compile("=[^&;]*")
_NOT_PRINTABLE = re.compile(r"[^ !#-\[\]-~]")  # with the quotation mark and the backslash


def printable(text: str) -> str:
    """Escape text that came from a client, so that neither a terminal nor a log reader interprets it."""
    return _NOT_PRINTABLE.sub(lambda found: ascii(found[0])[1:-1] if found[0] not in '"\\' else "\\" + found[0], text)


def without_values(target: str) -> str:
    """A request's target with the names of its query alone: values may be tokens, grants or keys."""
    path, mark, query = target.partition("?")
    return path + mark + _VALUE.sub("=***", query)


class JSONFormatter(logging.Formatter):
    """A line of JSON for each record: ``time`` (UTC), ``level``, ``logger``, ``message``, ``exception`` where there is
    one; and of a request ``address``, ``method``, ``target``, ``protocol``, ``status``, ``bytes``, ``seconds``; of a
    held connection that has ended ``address``, ``client``, ``transport``, ``code``, ``reason``, ``messages``,
    ``bytes``, ``seconds``."""

    def format(self, record: logging.LogRecord) -> str:
        at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        said: dict[str, Any] = {
            "time": f"{at}.{int(record.msecs):03d}Z",
            "level": record.levelname,
            "logger": record.name,
        }
        request = getattr(record, "request", None)
        said |= {"message": record.getMessage()} if request is None else request
        if record.exc_info:
            said["exception"] = self.formatException(record.exc_info)
        return json.dumps(said)


def configure(form: str) -> None:
    """Log to the standard error. ``form``: ``text`` or ``json``."""
    handler = logging.StreamHandler()
    handler.setFormatter(JSONFormatter() if form == "json" else logging.Formatter(TEXT))
    logging.getLogger().addHandler(handler)
    # That an outage is over is worth a line as well as its beginning.
    logging.getLogger("messagebus").setLevel(logging.INFO)


class AccessLog:
    """Writes a line for each request: address, time, request line without the values of its query, status, bytes of the
    body, seconds. And one when a connection ends that the bus has held: address, time, client and transport, code,
    bytes, seconds, messages, reason."""

    def __init__(self, path: str | None, form: str) -> None:
        """``path``: a file, opened again where it was moved away; ``None``: the standard error. ``form``: ``text`` or
        ``json``."""
        self._logger = logging.getLogger("messagebus.serve.access")
        self._logger.propagate = False
        self._logger.setLevel(logging.INFO)
        handler = logging.StreamHandler() if path is None else logging.handlers.WatchedFileHandler(path)
        handler.setFormatter(JSONFormatter() if form == "json" else logging.Formatter("%(message)s"))
        self._logger.handlers[:] = [handler]

    def __call__(self, environ: dict[str, Any], target: bytes, response: Response, seconds: float) -> None:
        request = {
            "address": environ.get("REMOTE_ADDR") or "-",
            "method": environ["REQUEST_METHOD"],
            "target": without_values(printable(target.decode("latin-1"))),
            "protocol": environ["SERVER_PROTOCOL"],
            "status": int(response.status[:3] or 0),
            "bytes": response.sent,
            "seconds": round(seconds, 6),
        }
        self._logger.info(
            '%(address)s - - [%(when)s] "%(method)s %(target)s %(protocol)s" %(status)03d %(bytes)d %(seconds).6f',
            {**request, "when": time.strftime("%d/%b/%Y:%H:%M:%S %z")},
            extra={"request": request},
        )

    def ended(self, ended: Ended) -> None:
        """A WebSocket, an EventSource, a stream or an iframe has ended. In the bus's loop."""
        connection = {
            "address": ended.address or "-",
            "client": ended.client_id,
            "transport": ended.transport,
            "code": ended.code,
            "reason": printable(ended.reason),
            "messages": ended.messages,
            "bytes": ended.bytes,
            "seconds": round(ended.seconds, 3),
        }
        self._logger.info(
            '%(address)s - - [%(when)s] "END %(client)s %(transport)s" %(shown)s %(bytes)d %(seconds).3f %(messages)d '
            '"%(reason)s"',
            {
                **connection,
                "when": time.strftime("%d/%b/%Y:%H:%M:%S %z"),
                "shown": "-" if ended.code is None else ended.code,
            },
            extra={"request": connection},
        )
