"""The bus alone, as an app: for ``messagebus serve`` without one."""

from __future__ import annotations

from flask import Flask, Response, jsonify, request

from ..bus import Bus
from ..errors import BackendUnavailable, InvalidChannel, InvalidData


def make_app(bus: Bus, *, anonymous_publish: bool) -> Flask:
    """A Flask app with nothing but the bus; ``anonymous_publish``: anybody who reaches it may publish any text."""
    app = Flask(__name__)
    app.register_blueprint(bus.blueprint)
    if anonymous_publish:

        @app.post("/message-bus/publish")
        def publish() -> tuple[Response, int] | tuple[Response, int, dict[str, str]]:
            """Publish the body, a text, on ``?channel=``; 201 and its ids, 202 where it waits for the store."""
            limit = bus.options.max_message_size
            if (request.content_length or 0) > limit:
                return jsonify(error={"code": "too_large", "message": f"max_message_size allows {limit} bytes"}), 413
            body = request.stream.read(limit + 1)
            channel = request.args.get("channel", "")
            try:
                ids = bus.publish_ids(channel, body.decode())
            except InvalidChannel as error:
                return jsonify(error={"code": "invalid_channel", "field": "channel", "message": str(error)}), 400
            except UnicodeDecodeError:
                return jsonify(error={"code": "malformed", "field": "body", "message": "the body is not UTF-8"}), 400
            except InvalidData as error:
                return jsonify(error={"code": "too_large", "field": "body", "message": str(error)}), 413
            except BackendUnavailable as error:
                return jsonify(error={"code": "unavailable", "message": str(error)}), 503, {"Retry-After": "2"}
            if ids is None:
                return jsonify(channel=channel, queued=True), 202
            return jsonify(channel=channel, message_id=ids.message_id, global_id=ids.global_id), 201

    return app
