"""Runs ``MODULE:APP HOST PORT`` on gevent's own server, with ``--websocket`` on gevent-websocket's handler."""

from gevent import monkey

monkey.patch_all()

import argparse  # noqa: E402
import importlib  # noqa: E402

from gevent.pywsgi import WSGIServer  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--websocket", action="store_true")
    parser.add_argument("app")
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    arguments = parser.parse_args()
    module, _, name = arguments.app.partition(":")
    app = getattr(importlib.import_module(module), name or "app")
    if arguments.websocket:
        from geventwebsocket.handler import WebSocketHandler

        server = WSGIServer((arguments.host, arguments.port), app, handler_class=WebSocketHandler)
    else:
        server = WSGIServer((arguments.host, arguments.port), app)
    server.serve_forever()


if __name__ == "__main__":
    main()
