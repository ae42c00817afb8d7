"""The command ``messagebus serve``: what it is told is what it does, or it says in one line why not."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import re
import signal
import socket
import stat
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from urllib.parse import quote

import pytest

from messagebus import Bus

from ..clients import EventSource, Polling, Refused, request
from ..eventually import eventually
from ..fixtures_servers import ServeApp
from ..ports import free_port
from ..servers import Server
from .test_serve import alone
from .test_serve_processes import fail_to_serve
from .test_servers import publish

VIEWS = """
import os
from gevent.monkey import is_module_patched
from flask import Flask, jsonify, request
from messagebus import Bus, MessageBus
assert is_module_patched("threading"), "imported before gevent has patched"

def make(bus=MessageBus, name="app"):
    app = Flask(name)
    app.register_blueprint(bus.blueprint)
    app.add_url_rule("/hello", "hello", lambda: f"hello from {name}")
    @app.post("/publish")
    def publish():
        given = request.get_json()
        return jsonify(message_id=bus.publish(given["channel"], given["data"]))
    return app
"""


def write(directory: Path, **modules: str) -> None:
    (directory / "views.py").write_text(VIEWS)
    for name, text in modules.items():
        (directory / f"{name}.py").write_text(textwrap.dedent(text))


# --- factories ---

FACTORY = """
import os
from views import make

def create_app(config=None):
    with open("made", "a") as file:
        file.write(f"{os.getpid()} {config}\\n")
    return make(name=config or "default")

def needs(config):
    return make(name=config)

def variadic(*args, **kwargs):
    return make(name="variadic")

def wsgi(environ, start_response):
    start_response("200 OK", [])
    return [b"hello from wsgi"]
"""


@pytest.mark.parametrize(
    ("named", "hello"),
    [
        ("factory:create_app", "default"),
        ("factory:create_app()", "default"),
        ("factory:create_app('prod')", "prod"),
        ("factory:create_app(config='prod')", "prod"),
        ("factory", "default"),
        ("factory.py", "default"),
        ("./factory.py:create_app", "default"),
        ("factory:variadic", "variadic"),
        ("factory:needs('x')", "x"),
        ("factory:wsgi", "wsgi"),
    ],
)
def test_an_app_may_be_made_by_a_function(serve_app: ServeApp, tmp_path: Path, named: str, hello: str) -> None:
    write(tmp_path, factory=FACTORY)
    server = serve_app("serve", named, cwd=tmp_path)
    assert server.get("/hello") == (200, f"hello from {hello}".encode())


def test_a_factory_is_called_once_in_each_worker(serve_app: ServeApp, tmp_path: Path, redis_url: str) -> None:
    write(tmp_path, factory=FACTORY)
    server = serve_app("serve", "factory:create_app", args=("--url", redis_url), workers=2, cwd=tmp_path)
    eventually(lambda: server.output().count("listening") == 2)
    made = [int(line.split()[0]) for line in (tmp_path / "made").read_text().splitlines()]
    assert sorted(made) == sorted(server.worker_pids())


def test_without_a_name_it_serves_what_flask_app_says(serve_app: ServeApp, tmp_path: Path) -> None:
    write(tmp_path, factory=FACTORY)
    server = serve_app("serve", "", env={"FLASK_APP": "factory:create_app('env')"}, cwd=tmp_path)
    assert server.get("/hello") == (200, b"hello from env")
    assert "app factory:create_app('env') (FLASK_APP)" in server.output()


@pytest.mark.parametrize(
    ("named", "says"),
    [
        ("factory:needs", "write \"factory:needs('...')\""),
        ("factory:needs()", "missing 1 required positional argument"),
        ("factory:create_app(os)", "cannot import factory:create_app(os)"),
        ("factory:create_app(", "cannot import factory:create_app("),
        ("factory:nothing", "cannot import factory:nothing"),
        ("nothing:create_app", "cannot import nothing:create_app"),
        ("nothing.py", "there is no file nothing.py"),
        ("empty", "write empty:NAME"),
        ("several", "several has several apps (one, two)"),
        ("several:number", "cannot import several:number: Application object must be callable"),
        ("several:none", "not a WSGI app"),
    ],
)
def test_what_is_no_app_is_refused_in_one_line(tmp_path: Path, named: str, says: str) -> None:
    write(
        tmp_path,
        factory=FACTORY,
        empty="",
        several="from views import make\none = make()\ntwo = make()\nnumber = 3\ndef none(): pass\n",
    )
    result = fail_to_serve(named, cwd=tmp_path)
    assert result.returncode == 2, result.stderr
    assert says in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_an_app_whose_import_fails_is_refused_with_its_own_traceback(tmp_path: Path) -> None:
    write(tmp_path, broken="import json\nfrom json import nothing_of_the_kind\n")
    result = fail_to_serve("broken:app", "--workers", "3", cwd=tmp_path)
    assert result.returncode == 2
    assert result.stderr.count("cannot import name 'nothing_of_the_kind'") <= 2
    assert result.stderr.count("Traceback") == 1, "said once, however many workers"


# --- the store ---

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
    started = time.monotonic()
    result = fail_to_serve("--url", f"redis://:s3cret@127.0.0.1:{port}/0", "--store-wait", "1", "--workers", "2")
    assert result.returncode == 2
    assert time.monotonic() - started < 10
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
        from .test_serve_processes import in_background

        thread, came = in_background(server.start)
        time.sleep(1)
        assert came == []
        redis.start()
        thread.join(20)
        assert came == [None]
        eventually(lambda: publish(unwaiting, "/a", 1), timeout=15)
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
    for args, env in ((["--url", url], {"A": ""}), ([], {"MESSAGEBUS_URL": url})):
        result = fail_to_serve(*args, "--store-wait", "0.1", env=env)
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
    result = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=30)
    assert result.returncode == 1
    assert "messagebus does not run on eventlet" in result.stderr
    assert "-k gevent" in result.stderr


# --- where it listens ---


def test_a_unix_socket_has_the_mode_and_owner_that_it_is_told(serve_app: ServeApp, tmp_path: Path) -> None:
    nobody = pwd.getpwnam("nobody")
    for name, args, mode, uid in (
        ("mode", ("--socket-mode", "660", "--socket-owner", f"nobody:{nobody.pw_gid}"), 0o660, nobody.pw_uid),
        ("umask", ("--umask", "007"), 0o770, os.getuid()),
    ):
        path = tmp_path / name
        server = serve_app("serve", unix=path, args=args)
        assert server.get("/hello") == (200, b"hello")
        found = path.stat()
        assert stat.S_IMODE(found.st_mode) == mode
        assert found.st_uid == uid
        assert os.listdir(tmp_path).count(name) == 1
        server.stop()
        assert not path.exists()


def test_a_proxy_of_another_user_gets_in_where_it_is_told(serve_app: ServeApp, tmp_path: Path) -> None:
    nobody = pwd.getpwnam("nobody")
    for parent in (tmp_path, *tmp_path.parents[:3]):
        with contextlib.suppress(OSError):
            parent.chmod(parent.stat().st_mode | 0o011)

    def may_connect(path: Path) -> bool:
        pid = os.fork()
        if pid == 0:
            try:
                os.setgroups([])
                os.setgid(nobody.pw_gid)
                os.setuid(nobody.pw_uid)
                with socket.socket(socket.AF_UNIX) as connection:
                    connection.connect(str(path))
            except PermissionError:
                os._exit(13)
            except BaseException:
                os._exit(1)
            os._exit(0)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        assert code in (0, 13)
        return code == 0

    closed, opened = tmp_path / "closed", tmp_path / "opened"
    serve_app("serve", unix=closed, args=("--socket-mode", "600"))
    serve_app("serve", unix=opened, args=("--socket-owner", f":{nobody.pw_gid}", "--socket-mode", "660"))
    assert not may_connect(closed)
    assert may_connect(opened)


def test_a_socket_file_is_taken_over_from_the_dead_alone(serve_app: ServeApp, tmp_path: Path) -> None:
    path = tmp_path / "bus.sock"
    first = serve_app("serve", unix=path)
    result = fail_to_serve("--bind", f"unix:{path}")
    assert result.returncode == 2
    assert result.stderr.splitlines()[-1] == f"Error: cannot listen on unix:{path}: a server listens there"
    assert first.get("/hello") == (200, b"hello")
    os.kill(first.pid, signal.SIGKILL)
    with contextlib.closing(Server("serve", unix=path)) as second:
        second.start()  # at once, when its workers may still be there, and may have answered
        eventually(lambda: "listening on" in second.output())
        assert second.get("/hello") == (200, b"hello")
    first.kill()
    first.start()
    first.kill()
    assert path.exists()
    first.start()
    assert first.get("/hello") == (200, b"hello")
    first.stop()
    path.write_text("a file")
    result = fail_to_serve("--bind", f"unix:{path}")
    assert result.returncode == 2
    assert "no socket" in result.stderr
    assert path.read_text() == "a file"


def test_it_listens_in_several_places(serve_app: ServeApp, tmp_path: Path) -> None:
    path = tmp_path / "bus.sock"
    server = serve_app("serve", args=("--bind", f"unix:{path}"))
    other = Server("serve", unix=path)
    assert server.get("/hello") == other.get("/hello") == (200, b"hello")
    assert f"{server.url}, unix:{path}" in server.output()
    other.close()


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("--bind", "fd://x"), "expected fd://NUMBER"),
        (("--bind", "fd://77"), "descriptor 77 is no socket"),
        (("--bind", "unix:"), "expected unix:PATH"),
        (("--bind", "unix:/nowhere/at/all.sock"), "No such file or directory"),
        (("--socket-mode", "999"), "octal"),
        (("--socket-owner", "nobody-of-the-kind"), "no such user"),
        (("--head-timeout", "0"), "--head-timeout"),
        (("--url", "redis://127.0.0.1:x/0"), "option url: malformed"),
        (("--url", "nonsense"), "option url"),
        (("--pid-file", "/nowhere/at/all.pid"), "/nowhere/at"),
    ],
)
def test_what_it_is_told_wrongly_is_said_and_ends_it_with_2(args: tuple[str, ...], says: str) -> None:
    result = fail_to_serve(*args)
    assert result.returncode == 2
    assert says in result.stderr
    assert "Traceback" not in result.stderr


# --- logs ---


def test_the_access_log_goes_to_a_file_that_may_be_rotated(serve_app: ServeApp, tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    server = serve_app("serve", args=("--access-log-file", str(log)))
    server.get("/hello?first")
    eventually(lambda: "first" in log.read_text())
    log.rename(tmp_path / "access.log.1")
    os.kill(server.pid, signal.SIGUSR1)
    server.get("/hello?second")
    line = eventually(lambda: log.exists() and log.read_text())
    pattern = r'127\.0\.0\.1 - - \[[^]]+\] "GET /hello\?second HTTP/1\.1" 200 5 0\.\d+\n'
    assert re.fullmatch(pattern, str(line))
    assert "first" in (tmp_path / "access.log.1").read_text()
    assert "GET" not in server.output()


def test_what_clients_send_cannot_pass_for_something_else_in_the_access_log(serve_app: ServeApp) -> None:
    server = serve_app("serve", args=("--access-log",))
    before = len(server.output())
    for path in ('/a"b', "/a\\b", "/\x9b31m", "/\xe9", "/%1b[31m"):
        from ..raw_http import exchange, head

        exchange(server, head(f"GET {path} HTTP/1.1", "Host: x", "Connection: close"))
    eventually(lambda: "%1b" in server.output())
    lines = server.output()[before:].splitlines()[-5:]
    assert all(line.isascii() and line.isprintable() for line in lines)
    assert '"GET /a\\"b HTTP/1.1"' in lines[0]


def test_what_a_query_has_for_values_stays_out_of_the_access_log(serve_app: ServeApp) -> None:
    server = serve_app("serve", args=("--access-log",))
    server.get("/hello?token=secret-1&__grants=secret-2;x=secret-3&flag")
    eventually(lambda: '"GET /hello?token=***&__grants=***;x=***&flag HTTP/1.1" 200' in server.output())
    assert "secret" not in server.output()


def test_logs_are_lines_of_json_where_asked(serve_app: ServeApp, tmp_path: Path) -> None:
    write(tmp_path, fails="from views import *\napp = make()\napp.get('/fails')(lambda: 1 / 0)\n")
    server = serve_app("serve", "fails:app", args=("--log-format", "json", "--access-log"), cwd=tmp_path)
    with request(server.url, "GET", "/hello?a=b") as response:
        assert response.status == 200
    said = eventually(lambda: [json.loads(line) for line in server.output().splitlines() if "a=***" in line])
    known = {"logger": "messagebus.serve.access", "address": "127.0.0.1", "method": "GET", "target": "/hello?a=***"}
    assert said[0].items() >= {**known, "status": 200, "protocol": "HTTP/1.1"}.items()
    assert said[0]["seconds"] > 0
    first = json.loads(server.output().splitlines()[0])
    assert first["message"].startswith("messagebus listening on ")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", first["time"])


# --- without an app ---


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("127.0.0.1:8000", True),
        ("localhost", True),
        ("app.localhost:3000", True),
        ("[::1]:8000", True),
        ("192.168.1.7", True),
        ("bus:8000", True),
        ("bus.example.org", True),
        ("BUS.example.org:443", True),
        ("a.b.example.net", True),
        ("attacker.example", False),
        ("example.net", False),
        ("evil-example.net", False),
        ("localhost.attacker.example", False),
        ("127.0.0.1.attacker.example", False),
        ("", False),
    ],
)
def test_a_server_without_an_app_answers_to_its_own_names(host: str, allowed: bool) -> None:
    server = _named()
    headers = {"Host": host, "Origin": f"http://{host}"}
    for method, path in (
        ("POST", "/message-bus/x/poll?dlp=t"),
        ("GET", "/message-bus/static/messagebus.js"),
        ("POST", "/message-bus/publish?channel=/a"),
    ):
        with request(server.url, method, path, b"", {"Content-Type": "text/plain", **headers}) as response:
            assert (response.status != 403) is allowed
            if not allowed:
                assert json.load(response)["error"]["code"] == "forbidden_host"


_server: list[Server] = []


def _named() -> Server:
    if not _server:
        args = ("--allowed-host", "bus.example.org", "--allowed-host", "*.example.net", "--allow-anonymous-publish")
        server = Server("serve", "", args=args, ready="/message-bus/static/messagebus.js")
        server.start()
        _server.append(server)
    return _server[0]


def teardown_module() -> None:
    while _server:
        _server.pop().close()


def test_foreign_pages_cannot_publish_to_a_server_that_takes_anonymous_messages(serve_app: ServeApp) -> None:
    server = alone(serve_app, "--allow-anonymous-publish", env={"MESSAGEBUS_ALLOWED_ORIGINS": "https://good.example"})
    path = f"/message-bus/publish?channel={quote('/a')}"
    for origin, status in (
        ("https://evil.example", 403),
        ("null", 403),
        ("https://good.example", 202),
        (server.url, 202),
        (None, 202),
    ):
        headers = {"Content-Type": "text/plain"} | ({"Origin": origin} if origin else {})
        with request(server.url, "POST", path, b"x", headers) as response:
            assert response.status == status, origin
    with EventSource.connect(server.url, {"/a": 0}) as events:
        assert events.data(3) == ["x", "x", "x"]


def test_what_is_wrong_with_a_publish_is_said_as_json(serve_app: ServeApp) -> None:
    from ..raw_http import exchange, head

    server = alone(serve_app, "--allow-anonymous-publish")
    chunked = head("POST /message-bus/publish?channel=/a HTTP/1.1", "Host: x.localhost", "Transfer-Encoding: chunked")
    long = chunked + b"20000\r\n%b\r\nzz\r\n" % bytes(0x20000)
    (answered,) = exchange(server, long)
    assert (answered.status, answered.json["error"]["code"]) == (400, "malformed")
    (answered,) = exchange(
        server, head("POST /message-bus/publish?\xe7=\xff HTTP/1.1", "Host: localhost", "Connection: close")
    )
    assert (answered.status, answered.json["error"]["field"]) == (400, "query")


def test_frames_behind_a_handshake_are_read(serve_app: ServeApp) -> None:
    """A client may send them in the packet of its request, whole or in part."""
    server = serve_app("serve")
    handshake = (
        b"GET /message-bus/x/ws?%2Fa=0 HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    command = b'{"ping":7,"id":7}'
    frame = bytes([0x81, 0x80 | len(command), 0, 0, 0, 0]) + command
    for cut in (0, 3, len(frame)):
        with server.connect() as connection:
            connection.sendall(handshake + frame[:cut])
            received = b""
            while b"\r\n\r\n" not in received:
                received += connection.recv(4096)
            connection.sendall(frame[cut:])
            while b'"id":7' not in received:
                received += connection.recv(4096)
