"""A private nginx in front of a server: its own directory, no file of the system's nginx, one process."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from .ports import free_port

_CONFIGURATION = """\
daemon off;
# One process, with the rights of whoever runs the tests: a worker of another user could not read the directory.
master_process off;
pid {prefix}/nginx.pid;
error_log {prefix}/error.log notice;
events {{ worker_connections 4096; }}
http {{
    access_log {prefix}/access.log;
    client_body_temp_path {prefix}/body;
    proxy_temp_path {prefix}/proxy;
    fastcgi_temp_path {prefix}/fastcgi;
    uwsgi_temp_path {prefix}/uwsgi;
    scgi_temp_path {prefix}/scgi;
    upstream app {{ {upstream} }}
    map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://app;
            proxy_http_version {http_version};
            proxy_set_header Host $http_host;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_set_header X-Forwarded-Proto $scheme;
            proxy_buffering {buffering};
            {more}
        }}
    }}
}}
"""
_UPGRADE = "proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $connection_upgrade;"
# What a proxy does that nobody told about WebSocket: the request goes on without its Upgrade.
_NO_UPGRADE = "proxy_set_header Upgrade ''; proxy_set_header Connection '';"
_GZIP = "gzip on; gzip_types *; gzip_min_length 1; gzip_proxied any;"
_DEAF = "proxy_ignore_headers X-Accel-Buffering;"


class Nginx:
    """nginx on a port of its own, which passes all requests on to ``upstream``: ``HOST:PORT`` or ``unix:PATH``; several
    of them in turn, however often one of them fails.

    ``buffering`` is ``proxy_buffering``; with ``honour_accel=False`` an answer that asks not to be buffered is buffered
    all the same. By itself it holds back only what ends with its connection, as from an upstream spoken to in HTTP 1.0
    (``http_version``); chunks pass one by one. ``gzip`` holds chunks back too, where the client takes gzip.

    Without ``websocket`` the upgrade never reaches the upstream. ``extra`` are further lines of the location, such as
    ``proxy_read_timeout 2s;``. ``prefix`` is a directory that it may fill.
    """

    def __init__(
        self,
        upstream: str | Sequence[str],
        prefix: Path,
        *,
        buffering: bool = False,
        honour_accel: bool = True,
        gzip: bool = False,
        http_version: str = "1.1",
        websocket: bool = True,
        extra: str = "",
        port: int | None = None,
        timeout: float = 30.0,
    ) -> None:
        self.port = port or free_port()
        self.prefix = prefix
        self.timeout = timeout
        self._process: subprocess.Popen[bytes] | None = None
        upstreams = [upstream] if isinstance(upstream, str) else upstream
        lines = [_UPGRADE if websocket else _NO_UPGRADE, "" if honour_accel else _DEAF, _GZIP if gzip else "", extra]
        configuration = _CONFIGURATION.format(
            prefix=prefix,
            upstream=" ".join(f"server {each} max_fails=0;" for each in upstreams),
            port=self.port,
            http_version=http_version,
            buffering="on" if buffering else "off",
            more="\n            ".join(filter(None, lines)),
        )
        (prefix / "nginx.conf").write_text(configuration)

    @property
    def url(self) -> str:
        """Its address, without a slash at the end."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def ws_url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    def start(self) -> None:
        if self._process is not None:
            raise RuntimeError("it runs already")
        # Debian keeps it where only root's PATH leads.
        program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
        if program is None:
            raise RuntimeError("nginx is not installed")
        with (self.prefix / "output.log").open("ab") as log:
            self._process = subprocess.Popen(
                # -e: until it has read its configuration it would write to the system's log.
                [program, "-p", str(self.prefix), "-e", str(self.prefix / "error.log"), "-c", "nginx.conf"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        deadline = time.monotonic() + self.timeout
        while time.monotonic() < deadline and self._process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1.0):
                return
            time.sleep(0.02)
        self.kill()
        raise RuntimeError(f"nginx does not listen:\n{self.output()}")

    def stop(self, timeout: float = 30.0) -> None:
        """End it at once, with whatever it was passing on; nothing happens where it does not run."""
        if self._process is not None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout)
            self.kill()

    def kill(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    close = stop

    def output(self) -> str:
        """Its messages and its log of errors."""
        logs = [self.prefix / "output.log", self.prefix / "error.log"]
        return "".join(log.read_text(errors="replace") for log in logs if log.exists())
