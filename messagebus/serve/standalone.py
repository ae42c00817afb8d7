"""An app with nothing but the bus, for ``messagebus serve`` without an app."""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any

from flask import Flask, Response
from werkzeug.exceptions import HTTPException

from ..bus import Bus
from ..http.refusals import HTTPRefusal
from .limits import RareWarning

logger = logging.getLogger("messagebus.serve")


def make_app(
    bus: Bus, *, anonymous_publish: bool, allowed_hosts: Iterable[str] = (), hosts_are_checked: bool = True
) -> Callable[..., Iterable[bytes]]:
    """A Flask app with nothing but the bus, as a WSGI app that knows its own names.

    ``anonymous_publish``: anybody who reaches it may publish. ``allowed_hosts``: see :class:`HostCheck`;
    ``hosts_are_checked``: no request comes in but by a proxy, whose matter that is."""
    bus.configure(http_publishing=True, statistics=True, admin=True)
    if anonymous_publish:
        bus.configure(anonymous_publish=True)
    app = Flask(__name__)
    app.register_blueprint(bus.blueprint)

    @app.errorhandler(HTTPException)
    def fail(error: HTTPException) -> Response:
        status = HTTPStatus(error.code or 500)
        code = {408: "timeout", 413: "too_large"}.get(status, "not_found" if status == 404 else "malformed")
        return refuse(HTTPRefusal(status, code, error.description or status.phrase))

    @app.errorhandler(HTTPRefusal)
    def refuse(refusal: HTTPRefusal) -> Response:
        return Response(refusal.body(), refusal.status, refusal.headers)

    return HostCheck(app, allowed_hosts) if hosts_are_checked else app


class HostCheck:
    """Middleware that refuses requests for another host than the server's.

    A page whose own name leads to this server for a moment (DNS rebinding) could otherwise read everything here, as of
    its own origin. Allowed are names that no such page can have: addresses, names without a dot (of the loopback
    interface, of a container), ``*.localhost``; and the given ones: ``bus.example.org``, ``*.example.org``, ``*``."""

    def __init__(self, app: Callable[..., Iterable[bytes]], allowed: Iterable[str]) -> None:
        self._app = app
        allowed = [host.lower().rstrip(".") for host in allowed]
        self._names = {*allowed}
        self._domains = (".localhost", *(host[1:] for host in allowed if host.startswith("*.")))
        self._warn = RareWarning(logger)

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        host = environ.get("HTTP_HOST")
        # Browsers always say one.
        if host is None or self.allows(host):
            return self._app(environ, start_response)
        self._warn("a request for the host %.100r was refused; --allowed-host takes names of this server", host)
        refusal = HTTPRefusal(HTTPStatus.FORBIDDEN, "forbidden_host", "this server does not go by that name", "Host")
        body = refusal.body()
        start_response("403 Forbidden", [*refusal.headers, ("Content-Length", str(len(body)))])
        return [body]

    def allows(self, host: str) -> bool:
        """``host``: as in the ``Host`` header, with a port or without."""
        name = host.lower()
        name = name[1:].partition("]")[0] if name.startswith("[") else name.partition(":")[0].rstrip(".")
        if name in self._names or "*" in self._names or name.endswith(self._domains):
            return True
        if name and "." not in name and ":" not in name:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True
