"""Undocumented parts of other packages that the bus uses, all in one table.

A module that uses one calls :func:`check` after its imports. So a release that has changed it is named when the module
is imported, and not by an AttributeError in production.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from importlib.metadata import version
from inspect import unwrap
from typing import Any

PRIVATE: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    # There is no public way to the socket of a connection, which the feed reads in bulk and shuts down to be woken.
    "redis": {"redis.connection:AbstractConnection": ("_sock",)},
    # psycopg chooses how to wait when it is imported, which may be before gevent patches the process.
    "psycopg": {"psycopg:Connection": ("wait",), "psycopg.waiting": ("wait", "wait_poll")},
    # The master of `messagebus serve` does some things in another way; gunicorn documents its hooks and workers alone.
    "gunicorn": {
        "gunicorn.arbiter:Arbiter": (
            *("LISTENERS", "START_CTX", "WORKERS", "_stats", "log", "master_pid", "num_workers", "reexec_pid"),
            *("handle_int", "handle_term", "halt", "kill_worker", "murder_workers", "reap_workers", "reload", "run"),
            *("signal", "spawn_worker", "spawn_workers", "start", "stop", "wait_for_signals", "worker_age"),
        ),
        "gunicorn.workers.base:Worker": (
            "aborted",
            "app",
            "init_process",
            "init_signals",
            "load_wsgi",
            "notify",
            "tmp",
        ),
    },
}
"""Distribution -> ``module`` or ``module:class`` -> members of it, be they methods or what ``__init__`` sets."""


def check(distribution: str, private: Mapping[str, tuple[str, ...]] | None = None) -> None:
    """Check that every part of a distribution that we need is there.

    Raises:
        ImportError: One is not; says which, and the version.
    """
    for place, names in (PRIVATE[distribution] if private is None else private).items():
        module, _, cls = place.partition(":")
        owner: Any = getattr(import_module(module), cls, None) if cls else import_module(module)
        known = {*dir(owner), *(_set_by_init(owner) if isinstance(owner, type) else ())}
        missing = [name for name in names if name not in known]
        if missing:
            raise ImportError(
                f"{distribution} {version(distribution)} has no {place}.{missing[0]}, which messagebus needs: "
                f"install another version of {distribution}, or a newer flask-messagebus",
                name=distribution,
            )


def _set_by_init(owner: type) -> Iterator[str]:
    for cls in owner.__mro__:
        begin = vars(cls).get("__init__")
        if begin is not None:
            yield from getattr(getattr(unwrap(begin), "__code__", None), "co_names", ())
