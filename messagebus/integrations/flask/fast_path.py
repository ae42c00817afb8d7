"""Requests to the bus that no function of the app's has to see, answered before Flask.

Flask's share of a short request is larger than the bus's own: it makes contexts, opens the session, matches the URL,
builds a response and finishes it. A bus whose settings and hooks look at no request needs none of that; but an app that
has functions around each request may rely on seeing all of them. So a request goes past Flask only where the app is as
Flask makes it. This is looked up anew for each, since functions may be registered at any time. What an app may notice
all the same is listed in docs/design.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial

import flask.app
from flask import Flask, Request, Response, g, request, signals
from flask.sessions import SecureCookieSessionInterface
from werkzeug.wrappers import Request as PlainRequest

from ...errors import BusClosed
from ...http.held_response import StartResponse
from ...http.routes import ENDPOINTS, answer
from ...http.servable import Servable
from ...hub.permissions import Access
from ...options import Environ, Options

_SIGNALS = (
    signals.appcontext_pushed,
    signals.appcontext_popped,
    signals.appcontext_tearing_down,
    signals.request_started,
    signals.request_finished,
    signals.request_tearing_down,
)
_METHODS = (
    "request_context",
    "full_dispatch_request",
    "preprocess_request",
    "dispatch_request",
    "make_response",
    "finalize_request",
    "process_response",
)
"""Of ``Flask``, that every request passes through; an app may have its own in their place."""


class RecordPosition:
    """Before each of the app's own views: what is published while it makes the page comes after this."""

    def __init__(self, bus: Servable) -> None:
        self._bus = bus

    def __call__(self) -> None:
        g.messagebus_seen = self._bus.seen()


class FastPath:
    """In the place of ``Flask.wsgi_app``. Middleware that the app is wrapped in afterwards stays around it."""

    def __init__(self, app: Flask, bus: Servable, root: str) -> None:
        """``root``: what the paths of the bus begin with, the last slash included."""
        self._app = app
        self._bus = bus
        self._root = root
        self._context = partial(in_context, app)
        self._flask: Callable[[Environ, StartResponse], Iterable[bytes]] = app.wsgi_app

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        path: str = environ.get("PATH_INFO", "")
        if path.startswith(self._root):
            path = path[len(self._root) :]
            client_id, _, rest = path.partition("/")
            if client_id and rest in ENDPOINTS and _is_plain(self._app) and not self._looks_at_requests():
                try:
                    node = self._bus._running_node()
                except BusClosed:
                    pass  # Flask's way says so
                else:
                    return answer(node, PlainRequest(environ), path, self._context)(environ, start_response)
        return self._flask(environ, start_response)

    def _looks_at_requests(self) -> bool:
        """Whether functions that the bus was given may want Flask's context."""
        options: Options = self._bus.options
        access: Access = self._bus._access
        return access.hooks or bool(
            options.user_id_lookup
            or options.group_ids_lookup
            or options.site_id_lookup
            or options.extra_response_headers_lookup
        )


def can_be_shortened(app: Flask) -> bool:
    """Whether requests come to an app's views through nothing but Flask's own code, whatever host they are for."""
    inner = app.wsgi_app
    code = getattr(getattr(inner, "__func__", None), "__code__", None)
    untouched = isinstance(inner, FastPath) or (code is not None and code.co_filename == flask.app.__file__)
    return untouched and type(app) is Flask and not app.subdomain_matching and not app.url_map.host_matching


def _is_plain(app: Flask) -> bool:
    """Whether an app has nothing of its own around its requests."""
    before = [function for functions in app.before_request_funcs.values() for function in functions]
    return (
        all(type(function) is RecordPosition for function in before)
        and not any(app.after_request_funcs.values())
        and not any(app.teardown_request_funcs.values())
        and not any(app.url_value_preprocessors.values())
        and not any(signal.has_receivers_for(app) for signal in _SIGNALS)
        and not app.config.get("TRUSTED_HOSTS")
        and app.request_class is Request
        and app.response_class is Response
        and type(app.session_interface) is SecureCookieSessionInterface
        and not any(method in app.__dict__ for method in _METHODS)
    )


@contextmanager
def in_context(app: Flask, environ: Environ) -> Iterator[Request]:
    """A request that is over, as hooks expect to find it."""
    with app.request_context(environ):
        yield request
