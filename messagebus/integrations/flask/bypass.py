"""Answers requests to the bus before Flask, if no function of the app has to see them.

Flask's share of a short request is larger than the bus's own: it makes contexts, opens the session, matches the URL,
builds a response and finishes it. A bus whose settings and hooks look at no request needs none of that; but an app that
has functions around each request may rely on seeing all of them. So a request goes past Flask only where the app is as
Flask makes it: every way that Flask has of putting something around a request is looked at again for each, since
functions may be registered at any time. A release of Flask that has not been looked through is not bypassed, for it may
have one more. What an app may notice all the same is listed in docs/design.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from contextvars import copy_context
from functools import partial
from importlib.metadata import version
from operator import attrgetter
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, cast

import flask.app
import flask.globals
from flask import Flask, Request, Response, g, request, signals
from flask.ctx import RequestContext
from flask.sessions import SecureCookieSessionInterface
from werkzeug.exceptions import Forbidden
from werkzeug.routing import Rule
from werkzeug.routing.exceptions import WebsocketMismatch
from werkzeug.wrappers import Request as PlainRequest

from ...errors import BusClosed
from ...http.routes import ENDPOINTS, answer
from ...http.servable import Servable
from ...http.streaming_response import StartResponse
from ...hub.permissions import Access
from ...options import Environ, Options
from .websocket_rules import explain_mismatch

FLASK = Path(flask.app.__file__).parent
DEFAULTS = Flask.default_config
_SIGNALS = (
    signals.appcontext_pushed,
    signals.appcontext_popped,
    signals.appcontext_tearing_down,
    signals.request_started,
    signals.request_finished,
    signals.request_tearing_down,
)
LOOKED_THROUGH = ("2.3", "3.0", "3.1")
"""The releases of Flask whose hooks around a request are all handled below. A test fails with any other release, and if
one of these gains a hook."""
_LIMITS = ("MAX_CONTENT_LENGTH", "MAX_FORM_PARTS", "TRUSTED_HOSTS")
"""Settings that make Flask itself refuse requests."""
_METHODS = (
    "wsgi_app",
    "request_context",
    "full_dispatch_request",
    "preprocess_request",
    "dispatch_request",
    "make_response",
    "finalize_request",
    "process_response",
)
"""Of ``Flask``, that every request passes through; an app may have its own in their place."""
_methods = attrgetter(*_METHODS)
_ORIGINALS = _methods(Flask)
_IS_LOOKED_THROUGH = ".".join(version("flask").split(".")[:2]) in LOOKED_THROUGH


class RecordPosition:
    """Before each of the app's own views: what is published while it makes the page comes after this."""

    def __init__(self, bus: Servable, at_first: Callable[[], None]) -> None:
        """``at_first``: called before the first request, when all extensions of the app are there."""
        self._bus = bus
        self._at_first: Callable[[], None] | None = at_first

    def __call__(self) -> None:
        if self._at_first is not None:
            self._at_first()
            self._at_first = None
        if isinstance(request.routing_exception, WebsocketMismatch):
            explain_mismatch(request)
        g.messagebus_seen = self._bus.seen()


class BypassMiddleware:
    """Takes the place of ``Flask.wsgi_app``. Middleware that wraps the app later stays around it."""

    def __init__(self, app: Flask, bus: Servable, root: str, views: Mapping[str, Callable[..., Any]]) -> None:
        """``root``: what the paths of the bus begin with, the last slash included. ``views``: the bus's own, by
        endpoint; an app may put others in their place."""
        self._app = app
        self._bus = bus
        self._root = root
        self._views = list(views.items())
        self._context = partial(in_context, app)
        self._flask: Callable[[Environ, StartResponse], Iterable[bytes]] = app.wsgi_app

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        path: str = environ.get("PATH_INFO", "")
        if path.startswith(self._root):
            path = path[len(self._root) :]
            client_id, _, rest = path.partition("/")
            if client_id and rest in ENDPOINTS and self._is_untouched() and not self._looks_at_requests():
                try:
                    node = self._bus._running_node()
                except BusClosed:
                    pass  # Flask's way says so
                else:
                    return answer(node, PlainRequest(environ), path, self._context)(environ, start_response)
        return self._flask(environ, start_response)

    def _is_untouched(self) -> bool:
        views = self._app.view_functions
        return _is_plain(self._app) and all(views.get(endpoint) is view for endpoint, view in self._views)

    def _looks_at_requests(self) -> bool:
        """Whether functions that were given to the bus may need Flask's context."""
        options: Options = self._bus.options
        access: Access = self._bus._access
        return access.hooks or bool(
            access.asks_publishers
            or options.user_id_lookup
            or options.group_ids_lookup
            or options.site_id_lookup
            or options.extra_response_headers_lookup
        )


def can_be_bypassed(app: Flask) -> bool:
    """Whether requests come to an app's views through nothing but Flask's own code, whatever host they are for."""
    inner = app.wsgi_app
    if not _IS_LOOKED_THROUGH or not all(map(_is_flasks, _ORIGINALS)):
        return False
    code = getattr(getattr(inner, "__func__", None), "__code__", None)
    untouched = isinstance(inner, BypassMiddleware) or (code is not None and code.co_filename == flask.app.__file__)
    return untouched and type(app) is Flask and not app.subdomain_matching and not app.url_map.host_matching


def _is_plain(app: Flask) -> bool:
    """Whether an app has no functions of its own around its requests. Asked for each request and each action of a
    channel class."""
    before = [function for functions in app.before_request_funcs.values() for function in functions]
    config = app.config
    return (
        _IS_LOOKED_THROUGH
        and not [function for function in before if type(function) is not RecordPosition]
        and not any(app.after_request_funcs.values())
        and not any(app.teardown_request_funcs.values())
        and not any(app.url_value_preprocessors.values())
        and not [signal for signal in _SIGNALS if signal.receivers and signal.has_receivers_for(app)]
        and not [limit for limit in _LIMITS if config.get(limit) != DEFAULTS.get(limit)]
        and app.request_class is Request
        and app.response_class is Response
        and type(app.session_interface) is SecureCookieSessionInterface
        and app.__dict__.keys().isdisjoint(_METHODS[1:])
        and _methods(type(app)) == _ORIGINALS
    )


def _is_flasks(function: Callable[..., Any]) -> bool:
    """Whether Flask itself defines the function, unwrapped."""
    code = getattr(function, "__code__", None)
    return code is not None and Path(code.co_filename).parent in (FLASK, FLASK / "sansio")


class Matched(NamedTuple):
    """What the app's URLs have made of a request."""

    rule: Rule
    arguments: dict[str, Any]


def in_context(
    app: Flask, environ: Callable[[], Environ], matched: Matched | None = None
) -> AbstractContextManager[Request]:
    """A request that is over, as hooks found it: the app's functions before and after each request are called around
    them, and those that tear down, so that ``g`` has what it had and what was taken is given back.

    ``environ``: makes its environ. ``matched``: what is known of the request; it is not matched again, except among the
    app's functions.

    Raises:
        werkzeug.exceptions.HTTPException: A function before the request has answered it, with a redirect to a login for
            instance; and whatever such a function raises.
    """
    if not _is_plain(app):
        return _amid_functions(app, app.request_context(environ()))
    return _Alone(app, _Late(app, environ, matched))


class _Alone:
    """The context where nothing is around requests."""

    __slots__ = ("_app_context", "_late", "_token")

    def __init__(self, app: Flask, late: _Late) -> None:
        self._app_context = app.app_context()
        self._late = late

    def __enter__(self) -> Request:
        self._app_context.push()
        self._token = flask.globals._cv_request.set(cast(RequestContext, self._late))
        return request

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self._late.end(error)
        finally:
            flask.globals._cv_request.reset(self._token)
            self._app_context.pop(error)


class _Late:
    """What Flask's proxies find in place of a ``RequestContext``, with all that one has. The request is made when
    somebody asks for it, which few actions of channel classes do: it costs more than all else of one."""

    def __init__(self, app: Flask, environ: Callable[[], Environ], matched: Matched | None) -> None:
        self.app = app
        self._environ = environ
        self._matched = matched
        self._made: RequestContext | None = None

    def _make(self) -> RequestContext:
        if self._made is None:
            environ, matched = self._environ(), self._matched
            made = self.app.request_context(environ) if matched is None else _MatchedContext(self.app, environ, matched)
            # Pushing it opens the session. Elsewhere: this may be a copy of the context in which it ends.
            self._elsewhere = copy_context()
            self._elsewhere.run(made.push)
            self._made = made
        return self._made

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self._make(), name)

    def __enter__(self) -> Any:  # where the app pushes its context once more
        return self._make().__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._make().__exit__(kind, error, traceback)

    def end(self, error: BaseException | None) -> None:
        if self._made is not None:
            self._elsewhere.run(self._made.pop, error)


class _MatchedContext(RequestContext):
    """A request's, without the search through the app's URLs."""

    def __init__(self, app: Flask, environ: Environ, matched: Matched) -> None:
        super().__init__(app, environ)
        self._matched = matched

    def match_request(self) -> None:
        self.request.url_rule, self.request.view_args = self._matched.rule, {**self._matched.arguments}


@contextmanager
def _amid_functions(app: Flask, context: RequestContext) -> Iterator[Request]:
    with context:
        answered = app.ensure_sync(app.preprocess_request)()
        response = app.make_response("" if answered is None else answered)
        try:
            if answered is not None:
                raise Forbidden(f"the app answers {response.status}")
            yield request
        finally:
            app.process_response(response).close()
