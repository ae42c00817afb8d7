"""Whether a process serves the app that it imports. Some import one for its routes, models or commands, or for others.

Functions that such a process has subscribed while it imported the app are the serving process's work: called here as
well, they would do everything twice.
"""

from __future__ import annotations

import sys

_CHILD_SERVES = "werkzeug._reloader"
"""Imported by ``run_simple(use_reloader=True)`` alone: with it in the process and no reloader around it, this process
watches files, and its child serves."""


def is_only_importing() -> bool:
    """Whether what runs now is the import of an app that this process will not serve by itself: the flask command runs
    something else than the server (``shell``, ``routes``, ``db``), or the server's reloader; or gunicorn's master
    preloads the app for its workers. Looks at the callers' frames."""
    frame = sys._getframe(1)
    while frame is not None:
        place = frame.f_globals.get("__name__"), frame.f_code.co_name
        if place == ("flask.cli", "load_app"):
            return not _flask_serves()
        if place == ("gunicorn.arbiter", "setup"):
            return True
        if place == ("gunicorn.arbiter", "spawn_worker"):
            return False  # in the worker, below its master's frames
        frame = frame.f_back  # type: ignore[assignment]
    return False


def is_watching() -> bool:
    """Whether this process is the parent of Werkzeug's reloader, and has begun to watch."""
    if _CHILD_SERVES not in sys.modules:
        return False
    from werkzeug.serving import is_running_from_reloader

    return not is_running_from_reloader()


def _flask_serves() -> bool:
    import click
    from flask.helpers import get_debug_flag
    from werkzeug.serving import is_running_from_reloader

    context = click.get_current_context(silent=True)
    if context is None:
        return True  # somebody else than the flask command loads it, Celery's for instance
    if context.info_name != "run":
        return False
    reload = context.params.get("reload")
    return is_running_from_reloader() or not (get_debug_flag() if reload is None else reload)
