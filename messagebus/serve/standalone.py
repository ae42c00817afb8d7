"""The bus alone, as an app: for ``messagebus serve`` without one."""

from __future__ import annotations

from http import HTTPStatus

from flask import Flask, Request, Response, jsonify, request

from ..bus import Bus
from ..errors import BackendUnavailable, InvalidChannel, InvalidData
from ..http.refusals import HTTPRefusal, unavailable


def make_app(bus: Bus, *, anonymous_publish: bool) -> Flask:
    """A Flask app with nothing but the bus; ``anonymous_publish``: anybody who reaches it may publish any text."""
    app = Flask(__name__)
    app.register_blueprint(bus.blueprint)
    if anonymous_publish:

        @app.errorhandler(HTTPRefusal)
        def refuse(refusal: HTTPRefusal) -> Response:
            return Response(refusal.body(), refusal.status, refusal.headers)

        @app.post("/message-bus/publish")
        def publish() -> tuple[Response, int]:
            """Publish the body, a text, on ``?channel=``; 201 and its ids, 202 where it waits for the store."""
            channel = request.args.get("channel", "")
            text = _read_text(request, bus.options.max_message_size)
            try:
                ids = bus.publish_ids(channel, text)
            except InvalidChannel as error:
                raise HTTPRefusal(HTTPStatus.BAD_REQUEST, "invalid_channel", str(error), "channel") from None
            except InvalidData as error:
                raise _too_large(str(error)) from None
            except BackendUnavailable as error:
                raise unavailable(str(error)) from None
            if ids is None:
                return jsonify(channel=channel, queued=True), HTTPStatus.ACCEPTED
            return jsonify(channel=channel, message_id=ids.message_id, global_id=ids.global_id), HTTPStatus.CREATED

    return app


def _read_text(request: Request, limit: int) -> str:
    if (request.content_length or 0) > limit:
        raise _too_large(f"max_message_size allows {limit} bytes")
    try:
        return request.stream.read(limit + 1).decode()
    except UnicodeDecodeError:
        raise HTTPRefusal(HTTPStatus.BAD_REQUEST, "malformed", "the body is not UTF-8", "body") from None


def _too_large(message: str) -> HTTPRefusal:
    return HTTPRefusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too_large", message, "body")
