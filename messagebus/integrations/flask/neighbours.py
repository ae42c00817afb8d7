"""Extensions of Flask that look at all of an app, and what they have to be told of the bus.

Only what cannot be meant otherwise is told here; the rest is the app's to decide, and stands in docs/how-to.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from flask import Flask

from ..alembic import include_name


def tell(app: Flask, view: Callable[..., Any]) -> None:
    """Tell the extensions that the app has by now. May be repeated. ``view``: the one of all requests to the bus."""
    # Flask-WTF: a poll is a POST that changes nothing, and has no token. What publishes over a WebSocket comes with a
    # GET, and its origin is checked.
    exempt = getattr(app.extensions.get("csrf"), "exempt", None)
    if exempt is not None:
        exempt(view)
    # Flask-Migrate: the arguments of Alembic's context.configure.
    arguments = getattr(app.extensions.get("migrate"), "configure_args", None)
    if isinstance(arguments, dict):
        theirs = arguments.get("include_name")
        if theirs is None:
            arguments["include_name"] = include_name
        elif theirs is not include_name and getattr(theirs, "func", None) is not _include_both:
            arguments["include_name"] = partial(_include_both, theirs)


def _include_both(
    theirs: Callable[..., bool], name: str | None, type_: str, parent_names: Mapping[str, str | None]
) -> bool:
    return include_name(name, type_, parent_names) and theirs(name, type_, parent_names)
