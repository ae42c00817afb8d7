"""Which store the buses of ``messagebus serve`` use, and what it says where that is away or is none."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from messagebus import Bus

from ..clients import EventSource, Polling, Refused
from ..eventually import eventually
from ..fixtures_servers import ServeApp
from ..ports import free_port
from ..serve_helpers import fail_to_serve, in_background, write
from ..servers import Server
from .test_servers import publish

WRAPPED = {
    "own": "from views import *\napp = make(Bus())\n",
    "proxied": """
        from views import *
        from werkzeug.middleware.proxy_fix import ProxyFix
        app = ProxyFix(make(Bus()))
        """,
    "dispatched": """
        from views import *
        from werkzeug.middleware.dispatcher import DispatcherMiddleware
        app = DispatcherMiddleware(make(Bus(), "root"), {"/app": make(Bus(), "inner")})
        """,
    "configured": """
        from views import *
        bus = Bus(url="memory://")
        app = make(bus)
        """,
    "from_config": """
        from views import *
        app = Flask("configured")
        app.config["MESSAGEBUS_URL"] = "memory://"
        app.register_blueprint(MessageBus.blueprint)
        app.get("/hello")(lambda: "hello")
        @app.post("/publish")
        def publish():
            given = request.get_json()
            return jsonify(message_id=MessageBus.publish(given["channel"], given["data"]))
        """,
}


@pytest.mark.parametrize("name", WRAPPED)
@pytest.mark.parametrize("workers", [1, 2])
def test_the_url_of_the_command_counts_for_every_bus(
    serve_app: ServeApp, tmp_path: Path, redis_url: str, name: str, workers: int
) -> None:
    write(tmp_path, **{name: WRAPPED[name]})
    server = serve_app("serve", f"{name}:app", args=("--url", redis_url), workers=workers, cwd=tmp_path)
    prefix = "/app" if name == "dispatched" else ""
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(EventSource.connect(server.url + prefix, {"/a": 0})) for _ in range(4)]
        bus = stack.enter_context(contextlib.closing(Bus(url=redis_url)))
        for client in clients:
            client.next_batch()
        bus.publish("/a", 0)
        for number in range(1, 4):
            publish(server, "/a", number)
        for client in clients:
            assert client.data(4) == list(range(4))
    assert server.stop() == 0
    assert "memory" not in server.output()


@pytest.mark.parametrize("name", [name for name in WRAPPED if name not in ("configured", "from_config")])
def test_without_a_shared_store_several_workers_are_refused_whatever_the_app_is_wrapped_in(
    tmp_path: Path, name: str
) -> None:
    write(tmp_path, **{name: WRAPPED[name]})
    result = fail_to_serve(f"{name}:app", "--workers", "2", cwd=tmp_path)
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert "give --url sqlite:////" in line


def test_one_url_is_refused_for_buses_that_the_app_keeps_apart(tmp_path: Path) -> None:
    write(
        tmp_path,
        apart="""
        from views import *
        from werkzeug.middleware.dispatcher import DispatcherMiddleware
        one = make(Bus(url="redis://:s3cret@127.0.0.1:1/1"), "one")
        app = DispatcherMiddleware(one, {"/two": make(Bus(url="redis://127.0.0.1:1/2"), "two")})
        """,
    )
    result = fail_to_serve("apart:app", "--url", "redis://127.0.0.1:1/0", cwd=tmp_path)
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert "leave --url out" in line
    assert "s3cret" not in line


def test_a_bus_of_apps_with_unequal_settings_is_refused(tmp_path: Path) -> None:
    write(
        tmp_path,
        unequal="""
        from views import *
        from werkzeug.middleware.dispatcher import DispatcherMiddleware
        one, two = Flask("one"), Flask("two")
        one.secret_key, two.secret_key = "a", "b"
        for each in (one, two):
            each.register_blueprint(MessageBus.blueprint)
        app = DispatcherMiddleware(one, {"/two": two})
        """,
    )
    result = fail_to_serve("unequal:app", cwd=tmp_path)
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert "give each app a Bus() of its own" in line


def test_a_store_that_is_not_there_is_said_in_one_line(redis_url: str) -> None:
    port = free_port()
    result = fail_to_serve("--url", f"redis://:s3cret@127.0.0.1:{port}/0", "--store-wait", "1", "--workers", "2")
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert f"Error: the store redis://***@127.0.0.1:{port}/0 is not there" in line
    assert "--store-wait 0" in line


def test_it_waits_for_a_store_that_comes_later_or_not_at_all(serve_app: ServeApp) -> None:
    from ..redis_server import RedisServer

    redis = RedisServer()
    server = Server("serve", args=("--url", redis.url, "--store-wait", "20"))
    with contextlib.ExitStack() as stack:
        stack.callback(redis.stop)
        stack.callback(server.close)
        unwaiting = serve_app("serve", args=("--url", redis.url, "--store-wait", "0"))
        assert unwaiting.get("/hello") == (200, b"hello")
        thread, came = in_background(server.start)
        time.sleep(1)
        assert came == []
        redis.start()
        thread.join(30)
        assert came == [None]
        eventually(lambda: publish(unwaiting, "/a", 1))
        publish(server, "/a", 2)
        # From then on it lets subscribers in.
        eventually(lambda: re.search(r"WARNING messagebus\.stores: the feed from .* is back", unwaiting.output()))
        with EventSource.connect(unwaiting.url, {"/a": 0}) as events:
            assert 2 in events.data(2)


@pytest.mark.parametrize(
    "url",
    [
        "unix://?db=0&password=s3cret",
        "redis://127.0.0.1:1/0?password=s3cret&username=u",
        "redis://:s3%40cret@127.0.0.1:1/0",
        "redis://:s3/cret@127.0.0.1:1/0",
        "redis://:s3?cret@127.0.0.1:1/0",
        "redis://127.0.0.1:1/0?password=s3cret&misspelt=1",
        "postgresql://127.0.0.1:1/db?user=u&password=s3cret",
        "postgresql://u:a%3As3cret@127.0.0.1:1/db",
        "mysql://u:s3cret@h/db",
    ],
)
def test_no_password_is_printed_in_any_form(url: str) -> None:
    prints_no_password("--url", url)


def test_no_password_of_the_environment_is_printed() -> None:
    prints_no_password(MESSAGEBUS_URL="redis://:s3%40cret@127.0.0.1:1/0")


def prints_no_password(*arguments: str, **environment: str) -> None:
    result = fail_to_serve(*arguments, "--store-wait", "0.1", env=environment)
    assert result.returncode == 2
    assert "cret" not in result.stdout + result.stderr
    assert "Traceback" not in result.stderr


def test_no_password_is_printed_by_a_server_whose_store_is_away(serve_app: ServeApp) -> None:
    url = "redis://127.0.0.1:1/0?password=s3cret"
    server = serve_app("serve", args=("--url", url, "--store-wait", "0"), env={"MESSAGEBUS_STORE_TIMEOUT": "1"})
    with pytest.raises(Refused), Polling.connect(server.url, {"/a": 0}) as poll:
        poll.next_batch()
    assert "redis://127.0.0.1:1/0?***" in server.output()
    assert "s3cret" not in server.output()


def test_processes_that_do_not_hear_each_other_say_so_once_each(serve_app: ServeApp) -> None:
    server = serve_app("gunicorn-sync", workers=2)
    for _ in range(6):
        with Polling.connect(server.url, {"/a": 0}) as poll:
            poll.next_batch()
    assert 1 <= server.output().count("set MESSAGEBUS_URL to a store that they share") <= 2
    one = serve_app("gunicorn-sync", workers=1)
    with Polling.connect(one.url, {"/a": 0}) as poll:
        poll.next_batch()
    assert "MESSAGEBUS_URL" not in one.output()


def test_eventlet_is_refused_at_the_start() -> None:
    script = """
        import warnings
        warnings.simplefilter("ignore")
        import eventlet
        eventlet.monkey_patch()
        from messagebus import MessageBus
        from flask import Flask
        Flask("x").register_blueprint(MessageBus.blueprint)
        """
    result = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=60)
    assert result.returncode == 1
    assert "messagebus does not run on eventlet" in result.stderr
    assert "-k gevent" in result.stderr
