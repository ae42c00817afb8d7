"""``messagebus serve``: gevent's WSGI server, set up for many connections, and its workers.

The workers are plain forks that share the listening socket. A library for that (gunicorn's arbiter) was tried and
left out: it costs a second process where one worker is enough, and serves with handlers of its own.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import signal
import socket
import stat
import sys
import time
from collections.abc import Callable
from typing import Any

logger = logging.getLogger("messagebus.serve")

BACKLOG = 2048
"""Connections that may wait to be accepted: a restart brings everybody back at once."""
STOP_SECONDS = 5.0
"""How long requests that are being answered may take when the server stops."""
CANNOT_START = 3
"""A worker's exit code that says it is no use to start another."""
RESTART_SECONDS = 1.0


def open_listener(bind: str) -> tuple[socket.socket, str]:
    """A listening socket on ``HOST:PORT`` or ``unix:PATH``, and how to name it to people.

    Raises:
        ValueError: ``bind`` is neither.
        OSError: The address cannot be had.
    """
    if bind.startswith("unix:"):
        path = bind[len("unix:") :]
        with contextlib.suppress(FileNotFoundError):
            if stat.S_ISSOCK(os.stat(path).st_mode):
                os.unlink(path)  # left behind by a server that was killed
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        name = bind
    else:
        host, separator, port = bind.rpartition(":")
        if not separator or not (port.isascii() and port.isdigit()) or int(port) > 65535:
            raise ValueError(f"{bind!r}: expected HOST:PORT or unix:PATH")
        host = host.strip("[]")
        listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, int(port)))
        shown = f"[{host}]" if ":" in host else host or "0.0.0.0"
        name = f"http://{shown}:{listener.getsockname()[1]}"
    listener.listen(BACKLOG)
    return listener, name


def allow_many_files() -> None:
    """Raise this process's limit of open files as far as it may: each client is one."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def serve_here(listener: socket.socket, application: Callable[..., Any], access_log: bool) -> None:
    """Serve in this process, which gevent has patched, until SIGTERM or SIGINT; then end every connection in order."""
    import gevent
    from gevent.event import Event
    from gevent.pywsgi import WSGIServer

    from ..lifecycle import close_all
    from .request_handler import Handler

    class Server(WSGIServer):
        has_log = access_log

        def handle(self, client: Any, address: Any) -> None:
            # pywsgi writes head and body apart. Without this, the second waits 40 ms for the first one's
            # acknowledgement.
            with contextlib.suppress(OSError):
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            super().handle(client, address)

    # gevent's own kind of socket, whatever kind the listener is.
    server = Server(
        gevent.socket.socket(fileno=os.dup(listener.fileno())),
        application,
        handler_class=Handler,
        log="default" if access_log else None,
        error_log=logger,
    )
    stopping = Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        gevent.signal_handler(number, stopping.set)
    server.start()
    # What stands now stays to the end. Under load the collector would look at all of it again and again, a twentieth of
    # the time.
    gc.collect()
    gc.freeze()
    stopping.wait()
    server.close()  # accept no more; those who come now are for the next server
    listener.close()
    closing = gevent.spawn(close_all)  # streams end, WebSockets close with 1001, and their clients come back elsewhere
    server.stop(STOP_SECONDS)
    closing.join(STOP_SECONDS)


def serve_with_workers(listener: socket.socket, count: int, work: Callable[[], None]) -> int:
    """Run ``work`` in ``count`` children until SIGTERM or SIGINT, and start another when one dies. Returns the exit
    code."""
    workers: set[int] = set()
    stopping = False
    started = time.monotonic()

    def stop(number: int, frame: object) -> None:
        nonlocal stopping
        stopping = True
        for pid in workers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)

    def start() -> None:
        # A signal that comes between the fork and the note of it must find the child in `workers`.
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        pid = os.fork()
        if pid == 0:
            for number in _SIGNALS:
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            _run_child(work)
        workers.add(pid)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)

    for number in _SIGNALS:
        signal.signal(number, stop)
    for _ in range(count):
        start()
    code = 0
    while workers:
        pid, status = os.wait()
        workers.discard(pid)
        if stopping:
            continue
        if os.waitstatus_to_exitcode(status) == CANNOT_START:
            code = CANNOT_START
            stop(signal.SIGTERM, None)
            continue
        logger.error("worker %d ended with status %d; starting another", pid, os.waitstatus_to_exitcode(status))
        time.sleep(max(0.0, started + RESTART_SECONDS - time.monotonic()))
        started = time.monotonic()
        if not stopping:
            start()
    listener.close()
    return code


def _run_child(work: Callable[[], None]) -> None:
    code = 1
    try:
        work()
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:
        logger.exception("a worker failed")
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


_SIGNALS = (signal.SIGTERM, signal.SIGINT)
