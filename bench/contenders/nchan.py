"""nchan, the nginx module, written in C: one worker, messages kept in its own memory."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from ..machine import SERVER_CORE
from ..processes import Process, free_port
from ..publishers import HttpPublisher
from ..wires import NCHAN
from .base import Contender

MODULE = "ngx_nchan_module.so"
CONFIGURATION = """
daemon off;
pid {directory}/pid;
error_log {directory}/error.log;
worker_processes 1;
worker_rlimit_nofile 60000;
{user}
load_module {module};
events {{ worker_connections 40000; }}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    nchan_shared_memory_size 512M;
    keepalive_requests 1000000000;
    keepalive_timeout 1h;
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location ~ ^/pub/(.*)$ {{
            nchan_publisher;
            nchan_channel_id $1;
            nchan_message_buffer_length 1000;
            nchan_message_timeout 1h;
        }}
        location ~ ^/sub/(.*)$ {{
            nchan_subscriber websocket eventsource;
            nchan_channel_id $1;
            nchan_subscriber_first_message newest;
        }}
        location ~ ^/behind/(.*)$ {{
            nchan_subscriber websocket eventsource;
            nchan_channel_id $1;
            nchan_subscriber_first_message oldest;
        }}
    }}
}}
"""


class Nchan(Contender):
    name = "nchan"
    wires = NCHAN

    def __init__(self) -> None:
        self.port = free_port()
        self._directory = tempfile.TemporaryDirectory(prefix="messagebus-nchan-")
        folders = ("/usr/lib/nginx/modules", "/usr/share/nginx/modules", "/usr/lib64/nginx/modules")
        module = next((path for folder in folders if (path := Path(folder) / MODULE).exists()), None)
        program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
        assert program, "nginx is missing; make bench installs it"
        assert module, "nginx's module nchan is missing; make bench installs it"
        configuration = Path(self._directory.name) / "nginx.conf"
        configuration.write_text(
            CONFIGURATION.format(
                directory=self._directory.name,
                port=self.port,
                module=module,
                # Its worker would otherwise lose the right to its own directory.
                user="user root;" if os.getuid() == 0 else "",
            )
        )
        error_log = f"{self._directory.name}/error.log"
        self.process = Process([program, "-e", error_log, "-c", str(configuration)], SERVER_CORE)
        self.process.wait_for(self.port)

    def publisher(self) -> HttpPublisher:
        return HttpPublisher(self.port, "/pub/{channel}")

    def stop(self) -> None:
        super().stop()
        self._directory.cleanup()
