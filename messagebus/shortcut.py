"""Requests to the bus that no function of the app's has to see, answered before Flask.

Flask's share of a short request is larger than the bus's own: it makes contexts, opens the session, matches the URL,
builds a response and finishes it. A bus whose settings and hooks look at no request needs none of that; but an app that
has functions around each request may rely on seeing all of them. So a request goes past Flask only where nothing of the
app's would have been called. This is looked up anew for each, since functions may be registered at any time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from flask import Flask, Request, request, signals
from werkzeug.wrappers import Request as PlainRequest

from .access import Access
from .endpoint import ENDPOINTS, answer
from .errors import BusClosed
from .holding import StartResponse
from .options import Environ, Options

if TYPE_CHECKING:
    from .bus import Bus

_SIGNALS = (signals.request_started, signals.request_finished, signals.request_tearing_down)
_OWN = 1
"""Functions that the bus itself has registered to run before each request: it notes the position, for pages."""


class Shortcut:
    """In the place of ``Flask.wsgi_app``. Middleware that the app is wrapped in afterwards stays around it."""

    def __init__(self, app: Flask, bus: Bus, root: str) -> None:
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
            if path.partition("/")[2] in ENDPOINTS and self._nobody_is_asked():
                try:
                    runtime = self._bus._running()
                except BusClosed:
                    pass  # Flask's way says so
                else:
                    return answer(runtime, PlainRequest(environ), path, self._context)(environ, start_response)
        return self._flask(environ, start_response)

    def _nobody_is_asked(self) -> bool:
        """Whether no function of the app's would be called around a request to the bus, or within it."""
        app = self._app
        return (
            sum(map(len, app.before_request_funcs.values())) == _OWN
            and not any(app.after_request_funcs.values())
            and not any(app.teardown_request_funcs.values())
            and not any(app.url_value_preprocessors.values())
            and not any(signal.has_receivers_for(app) for signal in _SIGNALS)
            and not app.config.get("TRUSTED_HOSTS")
            and not _looks_at_requests(self._bus.options, self._bus._access)
        )


def can_be_shortened(app: Flask) -> bool:
    """Whether requests come to an app's views through nothing but Flask's own code."""
    inner = app.wsgi_app
    untouched = isinstance(inner, Shortcut) or getattr(inner, "__func__", None) is Flask.wsgi_app
    return untouched and type(app) is Flask and not app.url_map.host_matching


@contextmanager
def in_context(app: Flask, environ: Environ) -> Iterator[Request]:
    """A request that is over, as hooks expect to find it."""
    with app.request_context(environ):
        yield request


def _looks_at_requests(options: Options, access: Access) -> bool:
    lookups = (
        options.user_id_lookup,
        options.group_ids_lookup,
        options.site_id_lookup,
        options.extra_response_headers_lookup,
    )
    return access.hooks or any(lookups)
