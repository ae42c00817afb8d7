"""A worker of ``messagebus serve``: a process that gevent has patched, with the app, its buses and the acceptor.

gunicorn's master starts it, watches it and replaces it; see ``master``. Neither gevent nor the bus is imported before
the fork: the master does not need them."""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import logging
import os
import signal
import sys
import time
from typing import TYPE_CHECKING, Any, NoReturn

from gunicorn.workers.base import Worker as GunicornWorker

from .settings import RELOAD_DRAIN, Flags, Settings

if TYPE_CHECKING:
    from ..bus import Bus

logger = logging.getLogger("messagebus.serve")

CANNOT_START = 3
"""Exit code of a worker that says that another one would fail as well; the master then ends with 2."""
STUCK = 70
"""The exit code of a worker that the master has given up."""
SIGN_SECONDS = 2.0
"""Between two signs of life, and a quarter of ``timeout`` at most."""
HELD_AT_FORK = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1)
"""Signals that are blocked from the fork until the worker has its own handlers: the master's would swallow them."""


class Worker(GunicornWorker):  # type: ignore[misc]
    """See the module."""

    settings: Settings
    flags: Flags

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.settings, self.flags = self.app.settings, self.app.flags
        self._buses: list[Bus] = []
        self._end: Any = None  # an event
        self._grace = self.settings.stop_timeout

    # --- what gunicorn calls ---

    def init_process(self) -> None:
        """Everything, from the fork to the end."""
        self.flags.leave_to_master()
        from gevent import monkey

        monkey.patch_all()
        from gevent.event import Event

        self._end = Event()
        # Until the first sign of life, which is when the app has been loaded.
        at = time.monotonic() + self.settings.start_timeout - self.settings.timeout
        os.utime(self.tmp.fileno(), (at, at))
        super().init_process()

    def init_signals(self) -> None:
        super().init_signals()
        # A terminal's Ctrl-C and hangup come to the whole group; what they mean for a worker, the master says.
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda *_: None)
        # While the app is loaded; run() has others.
        for number in (signal.SIGTERM, signal.SIGQUIT):
            signal.signal(number, lambda *_: sys.exit(0))
        # The master's last word to a worker that gives no sign of life. faulthandler says where it stands, also from
        # within a function that is not Python, and then comes the function here, if it still can.
        signal.signal(signal.SIGABRT, lambda *_: os._exit(STUCK))
        faulthandler.enable()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD_AT_FORK)

    def load_wsgi(self) -> None:
        super().load_wsgi()
        if getattr(self.wsgi, "__module__", None) == "gunicorn.util":
            return  # --reload, and the app has a syntax error: it says so to whoever asks
        self._start_buses()

    def run(self) -> None:
        """Serve until the master says to stop, or has ended."""
        import gevent

        from ..lifecycle import close_all
        from .acceptor import Acceptor
        from .logs import AccessLog

        settings = self.settings
        gevent.signal_handler(signal.SIGTERM, self._stop, settings.stop_timeout)
        gevent.signal_handler(signal.SIGQUIT, self._stop, 0.0)
        gevent.signal_handler(signal.SIGUSR1, self.log.reopen_files)
        with_log = settings.access_log or settings.access_log_file is not None
        access_log = AccessLog(settings.access_log_file, settings.log_format) if with_log else None
        if access_log is not None:
            for bus in self._buses:
                bus._running_node().hub.on_ended = access_log.ended
        acceptor = Acceptor(
            [each.sock for each in self.sockets],
            self.wsgi,
            settings.limits,
            access_log,
            multiprocess=self.cfg.workers > 1,
        )
        # What stands now stays to the end. Under load the collector would look at all of it again and again, a
        # twentieth of the time.
        gc.collect()
        gc.freeze()
        acceptor.start()
        self.flags.set_serves(self.age, True)
        self._say_so()
        gevent.spawn(self._give_signs_of_life)
        gevent.spawn(self._wait_for_the_end_of_the_master)
        self._end.wait()
        # Before clients are told to move, so that none of them comes back here. The acceptor closes its copies only:
        # while these stood the kernel would take connections that nobody serves.
        for each in self.sockets:
            each.sock.close()
        acceptor.close_doors()
        # Streams end, WebSockets close with 1001, and their clients come back elsewhere. The buses go on for what the
        # app still answers.
        drain = self._drain()
        ending = [gevent.spawn(bus.end_subscribers, over=drain) for bus in self._buses]
        left = acceptor.stop(self._grace)
        if left:
            logger.warning("%d requests were not answered within %g s, and are cut off", left, self._grace)
        gevent.joinall(ending, timeout=1.0 + drain)
        close_all()

    # --- ours ---

    def _start_buses(self) -> None:
        import click

        from ..errors import MessageBusError
        from .load import CannotServe, check, served_buses, wait_for_stores

        settings = self.settings
        first = not self.flags.served
        try:
            self._buses = served_buses(settings.application is None)
            check(self._buses, settings.url, settings.workers)
            if first:
                wait_for_stores(self._buses, settings.store_wait)
            # Before the first client comes: after a restart they all come at once, and would wait for this together.
            for bus in self._buses:
                bus.start()
        except (CannotServe, MessageBusError) as error:
            give_up(str(error))
        if not self._buses and first:
            click.echo("Warning: the app has not registered MessageBus.blueprint, so no page can connect.", err=True)

    def _say_so(self) -> None:
        import click

        from ..urls import redact

        stores = ", ".join(dict.fromkeys(redact(bus.options.url) for bus in self._buses)) or "none"
        names = ", ".join(self.settings.names)
        said = f"messagebus listening on {names}, {self._what()}store {stores}, process {os.getpid()}"
        if self.settings.log_format == "json":
            logger.info(said)
        else:
            click.echo(said)

    def _what(self) -> str:
        return f"app {self.settings.application} (FLASK_APP), " if self.settings.from_flask_app else ""

    def _stop(self, grace: float) -> None:
        self._grace = min(self._grace, grace)
        self.alive = False
        self._end.set()

    def _drain(self) -> float:
        """Seconds in which clients may move to other workers."""
        if not self._grace:
            return 0.0  # SIGQUIT is in a hurry
        if self.settings.drain is not None:
            return self.settings.drain
        return RELOAD_DRAIN if self.flags.is_replaced(self.age) else 0.0

    def _wait_for_the_end_of_the_master(self) -> None:
        from gevent.socket import wait_read

        wait_read(self.flags.end_of_master)
        logger.warning("the master process is gone; ending")
        self._stop(self._grace)

    def _give_signs_of_life(self) -> None:
        import gevent

        pause = min(SIGN_SECONDS, self.settings.timeout / 4)
        while True:
            self.notify()
            if not self.alive:  # gunicorn changes it, too, without a word
                self._end.set()
            gevent.sleep(pause)


def give_up(message: str) -> NoReturn:
    """End the process, which cannot serve, and say why in one line."""
    import click

    with contextlib.suppress(OSError):
        click.echo(f"Error: {message}", err=True)
    sys.exit(CANNOT_START)
