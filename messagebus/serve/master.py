"""The master process of ``messagebus serve``: gunicorn's arbiter, adapted.

gunicorn starts, watches, replaces and ends workers, reaps children that are not its own, reloads on SIGHUP, starts its
successor on SIGUSR2, and keeps the pid file. Each method says what is different here.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import time
from dataclasses import replace
from typing import Any

from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.errors import HaltServer
from gunicorn.glogging import Logger
from gunicorn.systemd import sd_notify

from .._compat import check
from ..errors import InvalidOption
from .config import ConfigError, checked_options
from .settings import KILL_SECONDS, RELOAD_DRAIN, Flags, Settings
from .worker import CANNOT_START, HELD_AT_FORK, Worker

check("gunicorn")

logger = logging.getLogger("messagebus.serve")

FAILED_TO_START = 2
"""Exit code of a command that could not start to serve."""
ENDED_BY_FORCE = 1
"""Exit code of a command that had to kill a worker at the end."""
RESTART_SECONDS = 1.0
"""Minimum seconds between two replacements of dead workers."""
STARTING_SECONDS = 0.05


class _Log(Logger):  # type: ignore[misc]
    """Sends gunicorn's messages to this program's logger."""

    def setup(self, cfg: Any) -> None:
        self.cfg = cfg
        self.error_log = self.access_log = logger

    def reopen_files(self) -> None:
        pass  # the access log's file finds out by itself

    def error(self, msg: str, *args: Any, **kwargs: Any) -> None:
        if args and args[-1] == CANNOT_START and "exited with code" in msg:
            return  # the worker has said why
        super().error(msg, *args, **kwargs)

    # gunicorn says there what it does as a matter of course.
    def info(self, msg: str, *args: Any, **kwargs: Any) -> None:
        self.error_log.debug(msg, *args, **kwargs)


class Application(BaseApplication):  # type: ignore[misc]
    """Gives gunicorn its settings, and the app in each worker."""

    def __init__(self, settings: Settings, binds: list[str]) -> None:
        self.settings = settings
        self.binds = binds
        self.flags = Flags()
        super().__init__()

    def load_config(self) -> None:
        settings = self.settings
        given = {
            "bind": self.binds,
            "workers": settings.workers,
            "worker_class": Worker,
            "logger_class": _Log,
            "proc_name": "messagebus",
            "timeout": round(settings.timeout),
            "graceful_timeout": round(settings.stop_timeout + (settings.drain or 0.0) + KILL_SECONDS),
            "pidfile": settings.pid_file,
            "umask": settings.umask,
            "reload": settings.reload,
            "reload_extra_files": [] if settings.config is None else [str(settings.config)],
            "control_socket_disable": True,  # it would lie in the user's home directory
            "worker_tmp_dir": "/dev/shm" if os.access("/dev/shm", os.W_OK) else None,  # signs of life wait for no disk
        }
        for name, value in given.items():
            self.cfg.set(name, value)

    def load(self) -> Any:
        """The WSGI app; in a worker, after gevent's patching."""
        from .application import make

        return make(self.settings)


class Master(Arbiter):  # type: ignore[misc]
    """See the module."""

    LISTENERS: list[Any]

    def __init__(self, application: Application, unix_paths: list[str]) -> None:
        """``unix_paths``: the socket files that this program has created."""
        super().__init__(application)
        # What USR2 executes: the very command, python -m included.
        self.START_CTX = {"args": sys.orig_argv, "cwd": os.getcwd(), 0: sys.executable}
        self._settings = application.settings
        self._flags = application.flags
        self._unix_paths = unix_paths
        self._ending = False
        self._forced = False
        self._announced = False
        self._replaced_at = -RESTART_SECONDS
        self._retired: dict[int, float] = {}
        """Workers that were told to end -> when they are killed."""
        self._watchdog = "WATCHDOG_USEC" in os.environ

    # --- signals ---

    def signal(self, sig: int, frame: Any) -> None:
        """SIGTERM and Ctrl-C both end it cleanly; a second one ends it at once, like SIGQUIT."""
        if sig in (signal.SIGTERM, signal.SIGINT):
            if self._ending:
                sig = signal.SIGQUIT
            self._ending = True
        super().signal(sig, frame)

    def handle_int(self) -> None:
        self.handle_term()

    # --- the start ---

    def start(self) -> None:
        """gunicorn tells the supervisor that it is ready before there is a worker."""
        address = os.environ.pop("NOTIFY_SOCKET", None)
        try:
            super().start()
        finally:
            if address is not None:
                os.environ["NOTIFY_SOCKET"] = address

    def wait_for_signals(self, timeout: float = 1.0) -> Any:
        if self._flags.served and not self._announced:
            self._announced = True
            sd_notify(f"READY=1\nMAINPID={os.getpid()}\nSTATUS=serving", self.log)
        if self._watchdog and self._flags.served:
            sd_notify("WATCHDOG=1", self.log)
        return super().wait_for_signals(timeout if self._flags.served else STARTING_SECONDS)

    def spawn_workers(self) -> None:
        """One at first, which finds out whether the app can be served, and says why not once; the rest when it does.
        Later, those that have died are replaced one by one."""
        if not self._flags.served:
            if not self.WORKERS:
                self.spawn_worker()
            return
        missing = self.num_workers - len(self.WORKERS)
        if self._stats["workers_spawned"] >= self.num_workers:
            if time.monotonic() < self._replaced_at + RESTART_SECONDS:
                return
            self._replaced_at = time.monotonic()
            missing = 1
        for _ in range(missing):
            self.spawn_worker()

    def spawn_worker(self) -> Any:
        if self._settings.reload and self._flags.served:
            self._read_options()  # it may be the file that has changed
        self._flags.set_serves(self.worker_age + 1, False)
        signal.pthread_sigmask(signal.SIG_BLOCK, HELD_AT_FORK)
        try:
            return super().spawn_worker()
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD_AT_FORK)

    def reap_workers(self) -> None:
        """gunicorn ends where a worker cannot start. That is right at the beginning; later, when a file of the app is
        broken for a moment, it is one more that is tried again."""
        try:
            super().reap_workers()
        except HaltServer:
            if not self._flags.served:
                raise

    # --- reload and end ---

    def murder_workers(self) -> None:
        """Also those that were told to end, and do not; and the end of the start where the app is not loaded in
        time."""
        now = time.monotonic()
        for pid in [pid for pid, deadline in self._retired.items() if deadline <= now]:
            del self._retired[pid]
            self.kill_worker(pid, signal.SIGKILL)
        super().murder_workers()
        if not self._flags.served and any(worker.aborted for worker in self.WORKERS.values()):
            logger.error("the app was not loaded within %g s (--start-timeout)", self._settings.start_timeout)
            raise HaltServer("the app was not loaded in time", FAILED_TO_START)

    # --- reload and end ---

    def reload(self) -> None:
        """The new workers serve before the old ones are ended: nobody waits while the app is loaded; and where it
        cannot be, or the file of options is wrong, the old ones go on."""
        sd_notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}", self.log)
        old, settings = list(self.WORKERS), self.app.settings
        in_order = self._read_options()
        # The first finds out whether the app can be loaded.
        if in_order and all(self._start_and_wait(count) for count in (1, self.num_workers - 1)):
            for pid in old:
                if pid in self.WORKERS:
                    more = RELOAD_DRAIN if self._settings.drain is None else 0.0
                    self._retired[pid] = time.monotonic() + self.cfg.graceful_timeout + more
                    self._flags.set_replaced(self.WORKERS[pid].age)
                    self.kill_worker(pid, signal.SIGTERM)
        else:
            self.app.settings = settings
            if not self._ending:
                why = "a new worker does not serve" if in_order else "its options are wrong"
                logger.error("not reloaded: %s; the old ones go on", why)
        self._announced = False

    def _read_options(self) -> bool:
        """Read the file of --config again, for workers that start from now on; ``False``: it is wrong."""
        settings: Settings = self.app.settings
        try:
            options = checked_options(settings.config, settings.url)
        except (ConfigError, InvalidOption) as error:
            logger.error("the options stay as they were: %s", error)
            return False
        self.app.settings = replace(settings, options=options)
        return True

    def _start_and_wait(self, count: int) -> bool:
        """Start workers; ``False``: one of them does not come as far as to serve."""
        ages = range(self.worker_age + 1, self.worker_age + 1 + count)
        pids = [self.spawn_worker() for _ in ages]
        deadline = time.monotonic() + self._settings.start_timeout
        while not all(map(self._flags.serves, ages)):
            self.reap_workers()
            if self._ending or any(pid not in self.WORKERS for pid in pids) or time.monotonic() > deadline:
                for pid in pids:
                    if pid in self.WORKERS:
                        self.kill_worker(pid, signal.SIGKILL)
                return False
            time.sleep(STARTING_SECONDS)
        return True

    def stop(self, graceful: bool = True) -> None:
        self._ending = True
        sd_notify("STOPPING=1", self.log)
        last = self.reexec_pid == self.master_pid == 0  # no other master listens on the same sockets
        for listener in self.LISTENERS:
            listener.close()
        self.LISTENERS = []
        if last:
            for path in self._unix_paths:
                with contextlib.suppress(OSError):
                    os.unlink(path)
        super().stop(graceful)

    def kill_worker(self, pid: int, sig: int) -> None:
        if sig == signal.SIGKILL and pid in self.WORKERS:
            self._forced = self._ending
            logger.error("worker %d does not end, and is killed", pid)
        super().kill_worker(pid, sig)

    def halt(self, reason: str | None = None, exit_status: int = 0) -> None:
        """The exit code tells how it ended; what kept a worker from starting, the worker has said."""
        try:
            super().halt()
        except SystemExit:
            code = FAILED_TO_START if exit_status else ENDED_BY_FORCE if self._forced else 0
            raise SystemExit(code) from None
