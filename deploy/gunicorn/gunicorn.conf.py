"""gunicorn -c deploy/gunicorn/gunicorn.conf.py app:app. Each setting may be given by the command instead."""

import os
from typing import Any

bind = os.environ.get("BIND", "127.0.0.1:8000")
# Waiting browsers take a socket, and neither a worker nor a thread: these are for the app's own requests.
workers = int(os.environ.get("WEB_CONCURRENCY", "4"))
worker_class = "gthread"
threads = 8
backlog = 2048
# Above the 60 s of nginx, so that it is the proxy that closes.
keepalive = 65
# Both have to be above DRAIN, the latter by the time of the longest request, too.
timeout = 30
graceful_timeout = 30
# Each ended worker sends away all of its subscribers.
max_requests = 0
accesslog = "-"
# Without the query, which may have tokens in it.
access_log_format = '%(h)s %(t)s "%(m)s %(U)s %(H)s" %(s)s %(b)s %(L)s'


DRAIN = 10.0
"""Seconds in which clients open their next connection to another worker, before the one to this worker ends."""


def worker_exit(server: Any, worker: Any) -> None:
    """gunicorn calls it when the worker accepts no more connections and has answered its requests."""
    from messagebus import MessageBus

    for listener in worker.sockets:  # nobody would serve what waits there
        listener.close()
    MessageBus.close(drain=DRAIN)
