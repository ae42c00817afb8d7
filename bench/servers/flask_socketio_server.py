"""Flask-SocketIO on gevent: ``python -m bench.servers.flask_socketio_server PORT REDIS_URL``."""

from gevent import monkey

monkey.patch_all()

import sys  # noqa: E402

from flask import Flask, request  # noqa: E402
from flask_socketio import SocketIO, emit, join_room  # noqa: E402

app = Flask(__name__)
# Its pings come every 25 s, and a load generator that is busy elsewhere must not be taken for dead.
server = SocketIO(app, async_mode="gevent", message_queue=sys.argv[2], ping_interval=300, ping_timeout=300)


@server.on("connect")  # type: ignore[untyped-decorator]
def connect(auth: object) -> None:
    join_room(request.args["channel"])


@server.on("echo")  # type: ignore[untyped-decorator]
def echo(text: str) -> str:
    return text


@server.on("say")  # type: ignore[untyped-decorator]
def say(text: str) -> None:
    emit("m", text, to=request.args["channel"])


server.run(app, "127.0.0.1", int(sys.argv[1]), log_output=False, backlog=2048)
