"""The bus in a Flask app: its routes, its settings, and ``{{ message_bus([...]) }}`` in templates."""

from __future__ import annotations

import json
import weakref
from collections.abc import Callable, Iterable, Mapping
from functools import cache, partial
from typing import Any, cast

from flask import Blueprint, Flask, Response, current_app, g, has_app_context, request, url_for
from flask.blueprints import BlueprintSetupState
from markupsafe import Markup
from werkzeug.wrappers import Response as WerkzeugResponse
from werkzeug.wsgi import ClosingIterator

from ...cable.handshake import serve_cable
from ...errors import BusClosed, InvalidChannel
from ...http import static_files
from ...http.refusals import unavailable
from ...http.routes import Answer, answer, refuse
from ...http.servable import Servable
from ...hub.seen import Seen
from ...names import check_channel, store_name
from ...options import Environ, Options
from ...wire import ROOT
from . import neighbours
from .bypass import BypassMiddleware, Matched, RecordPosition, can_be_bypassed, in_context

CLIENT_KNOWS, GRACE = 25.0, 15.0
"""The heartbeat interval that the JavaScript client assumes by default, and the margin that it adds, in seconds."""
# All methods, so that the endpoint answers which one it takes.
METHODS = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"]


def make_blueprint(bus: Servable) -> Blueprint:
    """Make the blueprint of a bus. It may be registered with several apps, and under a prefix."""
    blueprint = Blueprint("messagebus", __name__)

    @blueprint.record
    def set_up(state: BlueprintSetupState) -> None:
        app = cast(Flask, state.app)
        bus.configure_app(app.config, partial(_dumps, weakref.ref(app)))
        _register(state, bus, partial(neighbours.tell, app, serve))
        # For handshakes alone: the app may have a page of its own there.
        state.add_url_rule(bus.options.cable_path, "serve_cable", cable, websocket=True)
        prefix = (state.url_prefix or "").rstrip("/")
        if can_be_bypassed(app) and state.subdomain is None and "<" not in prefix:
            name = f"{state.name_prefix}.{state.name}".lstrip(".")
            views = {f"{name}.serve": serve, f"{name}.serve_websocket": serve}
            app.wsgi_app = BypassMiddleware(app, bus, f"{prefix}{ROOT}", views)  # type: ignore[method-assign]

    # A channel's name begins with a slash, which may follow that of the path.
    @blueprint.route(f"{ROOT}<path:path>", methods=METHODS, provide_automatic_options=False, merge_slashes=False)
    def serve(path: str) -> WerkzeugResponse:
        try:
            node = bus._running_node()
        except BusClosed:  # the server is shutting down, and the client had kept its connection
            return to_flask(refuse(request, bus.options, unavailable("the server is shutting down, come back")))
        answered = answer(node, request, path, partial(in_context, this_app()))
        return to_flask(answered) if isinstance(answered, Answer) else answered

    def cable() -> WerkzeugResponse:
        try:
            node = bus._running_node()
        except BusClosed:
            return to_flask(refuse(request, bus.options, unavailable("the server is shutting down, come back")))
        matched = Matched(request.url_rule, request.view_args or {}) if request.url_rule is not None else None
        return to_flask(serve_cable(node, request, partial(in_context, this_app(), matched=matched)))

    # Werkzeug's routing keeps requests that ask for an upgrade apart: they match no other rule.
    blueprint.add_url_rule(f"{ROOT}<path:path>", "serve_websocket", serve, websocket=True)
    return blueprint


def _dumps(registered: weakref.ref[Flask], value: Any) -> str:
    """What ``jsonify`` would make of a value: in the app whose context this is, else in the registered one."""
    app: Flask | None = this_app() if has_app_context() else registered()
    if app is None:
        raise TypeError(f"an object of type {type(value).__name__} is no JSON value")
    return app.json.dumps(value)


def _register(state: BlueprintSetupState, bus: Servable, tell_neighbours: Callable[[], None]) -> None:
    app = state.app
    tell_neighbours()
    if "messagebus" in app.extensions:
        return  # a second bus of the same app: the template's helper stays with the first
    app.extensions["messagebus"] = bus
    endpoint = f"{state.name_prefix}.{state.name}.serve".lstrip(".")

    app.before_request(RecordPosition(bus, tell_neighbours))

    @app.context_processor
    def helpers() -> dict[str, Any]:
        return {"message_bus": partial(script_tag, endpoint)}


def script_tag(
    endpoint: str,
    channels: Iterable[str] | Mapping[str, int | str] = (),
    *,
    grants: Iterable[str] = (),
    start: bool = True,
    nonce: str | None = None,
    two_way: bool = False,
) -> Markup:
    """The script tag of the JS client, in templates ``{{ message_bus(["/chat"]) }}``.

    ``channels``: the page misses none of their messages from the start of this request on; a mapping gives other
    positions. ``grants``: tokens of ``Bus.grant`` for protected channels. ``start``: whether the client starts at once.
    ``nonce``: for a Content-Security-Policy. ``two_way``: whether a second tag follows, with what pages need that do
    more than listen: who is there.

    Raises:
        InvalidChannel: A name is malformed.
    """
    if isinstance(channels, str):
        raise InvalidChannel(channels, 'expected a list of channels, such as message_bus(["/chat"])')
    seen: Seen | None = g.get("messagebus_seen")
    options = current_app.extensions["messagebus"].options
    names = _stored_names(channels, seen, options)
    positions: dict[str, int | str] = {
        channel: -1 if seen is None else f"@{seen.global_id_of(name)}" for channel, name in names.items()
    }
    positions |= channels if isinstance(channels, Mapping) else {}
    file = f"static/{static_files.version()}/messagebus.js"
    source = url_for(endpoint, path=file)
    attributes: dict[str, str] = {
        "src": source,
        "data-base-url": source.removesuffix(f"{ROOT[1:]}{file}"),
        "data-channels": json.dumps(positions),
    }
    if seen is not None and (epoch := seen.epoch_of(names.values())) is not None:
        attributes["data-epoch"] = epoch
    if tokens := ",".join(grants):
        attributes["data-grants"] = tokens
    # The longest silence of a healthy connection. The client knows the default.
    silence = max(options.heartbeat_interval, options.long_polling_interval)
    if silence > CLIENT_KNOWS:
        attributes["data-heartbeat-timeout"] = str(round((silence + GRACE) * 1000))
    if nonce is not None:
        attributes["nonce"] = nonce
    written = Markup(" ").join(Markup('{}="{}"').format(name, value) for name, value in attributes.items())
    tag = Markup("<script {}{}></script>").format(written, Markup(" data-start" if start else ""))
    return tag + _two_way_tag(source, nonce) if two_way else tag


def _stored_names(channels: Iterable[str], seen: Seen | None, options: Options) -> dict[str, str]:
    """Channel -> the name that the store has for it. The site is asked for only where that makes a difference."""
    names = {check_channel(channel): channel for channel in channels}
    if seen is None or seen.partitions == 1 or options.site_id_lookup is None:
        return names
    site_id = options.site_id_lookup(request.environ)
    return {channel: store_name(channel, site_id) for channel in names}


def _two_way_tag(source: str, nonce: str | None) -> Markup:
    """``source``: that of the client, beside which it is."""
    allowed = Markup("") if nonce is None else Markup(' nonce="{}"').format(nonce)
    return Markup('<script src="{}"{}></script>').format(f"{source.removesuffix('.js')}-two-way.js", allowed)


_OF_A_BODY = frozenset(
    name.lower()
    for name in (
        *("Accept-Ranges", "Content-Digest", "Content-Encoding", "Content-Length", "Content-MD5", "Content-Range"),
        *("Digest", "ETag", "Last-Modified", "Repr-Digest", "Trailer", "Transfer-Encoding"),
    )
)
"""Headers that describe one body (RFC 9110, section 8; RFC 9530; RFC 9112, section 6)."""


class _StreamingResponse(Response):
    """A response whose end the server does not notice."""

    messagebus_answer: Answer

    def __call__(self, environ: Environ, start_response: Any) -> Iterable[bytes]:
        if self.status_code != self.messagebus_answer.status and self.messagebus_answer.upgraded is None:
            return super().__call__(environ, start_response)  # a function of the app's has refused it
        # Whatever the app's after_request functions did to the headers goes out with them. What describes the body that
        # they saw, which was empty, does not: Flask-Compress compresses it, and says so.
        headers = [(name, value) for name, value in self.headers if name.lower() not in _OF_A_BODY]
        answered = self.messagebus_answer.respond(environ, start_response, headers)
        # What was given to call_on_close is called when the server is done with the response. Where its socket was
        # taken that is now; not every server closes what it gets then.
        if isinstance(answered, list):
            self.close()
            return answered
        return ClosingIterator(answered, self.close)


@cache
def _streaming_class(response_class: type[Response]) -> type[_StreamingResponse]:
    # Flask turns a response that is not of the app's own class into one, and would lose ours.
    return type("StreamingResponse", (_StreamingResponse, response_class), {})


def this_app() -> Flask:
    app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]
    return app


def to_flask(answered: Answer) -> Response:
    plain = answered.is_plain
    response_class = current_app.response_class if plain else _streaming_class(current_app.response_class)  # type: ignore[arg-type]
    response = response_class(answered.body, answered.status.value)
    response.headers.clear()
    for name, value in answered.headers:
        response.headers.add(name, value)
    if isinstance(response, _StreamingResponse):
        response.messagebus_answer = answered
    return response
