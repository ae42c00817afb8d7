"""Real WSGI servers, each in a process group of its own: started, asked, killed, and gone at the end."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO

from . import processes
from .eventually import eventually
from .ports import free_port

ROOT = Path(__file__).resolve().parent.parent

SERVERS = (
    "flask",
    "gunicorn-sync",
    "gunicorn-gthread",
    "gunicorn-gevent",
    "pywsgi",
    "geventwebsocket",
    "gunicorn-geventwebsocket",
    "waitress",
    "serve",
)
"""The kinds of server that run a Flask app:

flask                       Flask's development server
gunicorn-sync               one request at a time in each worker
gunicorn-gthread            two threads in each worker
gunicorn-gevent             a greenlet for each request
pywsgi                      gevent's own server
geventwebsocket             the same with gevent-websocket's handler
gunicorn-geventwebsocket    gevent-websocket's worker for gunicorn
waitress                    a server that does not let its sockets be taken
serve                       messagebus serve

``uwsgi`` is a kind as well, for what is to be seen in its log: with two threads in each process, all of which are held
by whoever waits for messages.
"""

_WORKER_CLASSES = {
    "gunicorn-sync": ["sync"],
    "gunicorn-gthread": ["gthread", "--threads=2"],
    "gunicorn-gevent": ["gevent"],
    "gunicorn-geventwebsocket": ["geventwebsocket.gunicorn.workers.GeventWebSocketWorker"],
}
_MULTI_PROCESS = {*_WORKER_CLASSES, "serve", "uwsgi"}


class Server:
    """A server of one of the ``SERVERS`` kinds with an app. Not running before :meth:`start`, or ``with``.

    Its environment is this process's, without settings of the bus, and then ``env``. ``args`` go to the server's
    command. ``unix`` is a path to listen on instead of a TCP port (gunicorn and serve). ``ready`` is the route that is
    asked until it answers 200.
    """

    def __init__(
        self,
        kind: str,
        app: str = "tests.apps.basic:app",
        *,
        env: Mapping[str, str] | None = None,
        args: tuple[str, ...] = (),
        workers: int = 1,
        preload: bool = False,
        unix: Path | None = None,
        port: int | None = None,
        ready: str = "/hello",
        cwd: Path = ROOT,
        timeout: float = 60.0,
    ) -> None:
        if kind not in _COMMANDS:
            raise ValueError(f"{kind!r} is none of {', '.join(_COMMANDS)}")
        if (workers > 1 or unix) and kind not in _MULTI_PROCESS:
            raise ValueError(f"{kind} has one process, and a TCP port")
        if preload and kind not in _WORKER_CLASSES:
            raise ValueError("preload is gunicorn's")
        self.kind = kind
        self.app = app
        self.workers = workers
        self.preload = preload
        self.unix = unix
        self.host = "127.0.0.1"
        self.port = 0 if unix else port or free_port()
        self.ready = ready
        self.cwd = cwd
        self.timeout = timeout
        self.args = args
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("MESSAGEBUS_")}
        inherited.pop("REDIS_URL", None)
        path = os.pathsep.join(filter(None, [str(cwd), str(ROOT), inherited.get("PYTHONPATH")]))
        self.env = {**inherited, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", **(env or {})}
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - it outlives restarts; close() ends it

    # --- where it is ---

    @property
    def url(self) -> str:
        """Its address, without a slash at the end."""
        return f"http://{self.host}:{self.port}"

    @property
    def ws_url(self) -> str:
        return f"ws://{self.host}:{self.port}"

    @property
    def address(self) -> str:
        """``HOST:PORT`` or ``unix:PATH``, as servers and proxies write it."""
        return f"unix:{self.unix}" if self.unix else f"{self.host}:{self.port}"

    def connect(self, timeout: float = 30.0) -> socket.socket:
        """A plain connection to it; the caller closes it."""
        if self.unix is None:
            return socket.create_connection((self.host, self.port), timeout)
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.settimeout(timeout)
            connection.connect(str(self.unix))
        except OSError:
            connection.close()
            raise
        return connection

    def get(self, path: str, timeout: float = 30.0) -> tuple[int, bytes]:
        """Status and body of a plain GET on a connection of its own."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=timeout)
        connection.sock = self.connect(timeout)
        with contextlib.closing(connection):
            connection.request("GET", path, headers={"Connection": "close"})
            with connection.getresponse() as response:
                return response.status, response.read()

    # --- life and death ---

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def start(self) -> None:
        """Start it, on the same port as before where it ran before, and wait until each worker stands."""
        if self._process is not None:
            raise RuntimeError("it runs already")
        self._process = subprocess.Popen(
            self.command(),
            cwd=self.cwd,
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            self._wait_until_ready()
        except BaseException:
            self.kill()
            raise

    def _wait_until_ready(self) -> None:
        process = self._process
        assert process is not None
        deadline = time.monotonic() + self.timeout
        seen: object = "nothing yet"
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise RuntimeError(f"{self.kind} ended with {process.returncode} before it answered:\n{self.output()}")
            try:
                seen = self.get(self.ready, timeout=5.0)
                if seen[0] == 200 and (self.workers == 1 or len(self.worker_pids()) >= self.workers):
                    return
            except (OSError, http.client.HTTPException) as error:
                seen = error
            time.sleep(0.02)
        raise RuntimeError(f"{self.kind} did not answer in {self.timeout:g} s ({seen!r}):\n{self.output()}")

    def stop(self, timeout: float = 30.0) -> int:
        """Ask it to end (SIGTERM to its first process, as a supervisor does), and return how it ended.

        Raises:
            AssertionError: It had to be killed, or left a process behind.
        """
        process = self._process
        if process is None:
            raise RuntimeError("it does not run")
        process.send_signal(signal.SIGTERM)
        try:
            returned = process.wait(timeout)
            # A worker whose parent was quicker may still be on its way out.
            eventually(lambda: not processes.group_members(process.pid), message="it left a process behind")
        except (subprocess.TimeoutExpired, AssertionError) as error:
            self.kill()
            raise AssertionError(f"{self.kind} did not end on SIGTERM: {error}\n{self.output()}") from error
        self._process = None
        return returned

    def kill(self) -> None:
        """``kill -9`` of the whole process group at once. Nothing happens where it does not run."""
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        eventually(lambda: not processes.group_members(process.pid), message="a process outlived SIGKILL")

    def restart(self) -> None:
        """Stop it where it still runs, and start it again on the same port."""
        if self._process is not None:
            self.stop()
        self.start()

    def close(self) -> None:
        """Make sure that nothing of it runs; it cannot be started again. May be repeated."""
        process = self._process
        if process is not None:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(5.0)
            self.kill()
        self._log.close()

    # --- looking inside ---

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Its first process: gunicorn's arbiter, and the only process of most others."""
        if self._process is None:
            raise RuntimeError("it does not run")
        return self._process.pid

    def worker_pids(self) -> list[int]:
        """The processes that answer requests."""
        return processes.children(self.pid) or [self.pid]

    def _worker(self, pid: int | None) -> int:
        return self.worker_pids()[0] if pid is None else pid

    def threads(self, pid: int | None = None) -> int:
        """Threads of a process; of the first worker where none is given, as below."""
        return processes.thread_count(self._worker(pid))

    def open_fds(self, pid: int | None = None) -> dict[int, str]:
        return processes.open_fds(self._worker(pid))

    def open_sockets(self, pid: int | None = None) -> int:
        return processes.socket_count(self._worker(pid))

    def rss_kb(self, pid: int | None = None) -> int:
        return processes.rss_kb(self._worker(pid))

    def output(self) -> str:
        """What it wrote to stdout and stderr since it was made, over all restarts."""
        if self._log.closed:
            return ""
        # Not seek and read: the position is shared with the server, which writes at it.
        size = os.fstat(self._log.fileno()).st_size
        return os.pread(self._log.fileno(), size, 0).decode(errors="replace")

    # --- how each is run ---

    def command(self) -> list[str]:
        return [sys.executable, *_COMMANDS[self.kind](self), *self.args]


def _flask(server: Server) -> list[str]:
    return ["-m", "flask", "--app", server.app, "run", "--host", server.host, "--port", str(server.port)]


def _gunicorn(server: Server) -> list[str]:
    worker_class = _WORKER_CLASSES[server.kind]
    command = ["-m", "gunicorn", "--bind", server.address, "--workers", str(server.workers), "-k", *worker_class]
    # The control socket would lie in the home directory. Time for open streams to end: short, tests wait for it.
    command += ["--no-control-socket", "--graceful-timeout", "5"]
    if server.preload:
        command.append("--preload")
    return [*command, server.app]


def _gevent(server: Server) -> list[str]:
    handler = ["--websocket"] if server.kind == "geventwebsocket" else []
    return ["-m", "tests.apps.run_gevent", *handler, server.app, server.host, str(server.port)]


def _waitress(server: Server) -> list[str]:
    # What is held there keeps a thread.
    return ["-m", "waitress", f"--listen={server.address}", "--threads=24", server.app]


def _serve(server: Server) -> list[str]:
    application = [server.app] if server.app else []  # without one it serves the bus alone
    return ["-m", "messagebus", "serve", *application, "--bind", server.address, "--workers", str(server.workers)]


def _uwsgi(server: Server) -> list[str]:
    # pyuwsgi's script; the module cannot be run by its name.
    script = str(Path(sys.executable).with_name("uwsgi"))
    processes = ["--master", "--die-on-term", "--processes", str(server.workers), "--threads", "2", "--enable-threads"]
    return [script, "--http", server.address, *processes, "--module", server.app]


_COMMANDS: dict[str, Callable[[Server], list[str]]] = {
    "flask": _flask,
    **dict.fromkeys(_WORKER_CLASSES, _gunicorn),
    "pywsgi": _gevent,
    "geventwebsocket": _gevent,
    "waitress": _waitress,
    "serve": _serve,
    "uwsgi": _uwsgi,
}
