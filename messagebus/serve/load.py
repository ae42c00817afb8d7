"""Finds the application to serve, and its buses, in a worker."""

from __future__ import annotations

import inspect
import os
import sys
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any

from ..bus import Bus, MessageBus
from ..errors import BackendUnavailable, MessageBusError
from ..lifecycle import buses
from ..urls import redact

APPS = ("app", "application")
FACTORIES = ("create_app", "make_app")


class CannotServe(Exception):
    """The text says in one line why, and what to do."""


def load_application(named: str) -> Callable[..., Any]:
    """Import the WSGI application named by ``named``: ``module:app``, ``module:create_app``,
    ``module:create_app('prod')``, ``module`` or ``path/to/file.py``.

    Raises:
        CannotServe: There is no such application.
    """
    # The searches and the parsing of such names are Flask's and gunicorn's.
    from flask.cli import prepare_import

    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    module_name, separator, thing = named.partition(":")
    if module_name.endswith(".py") or os.sep in module_name:
        if not os.path.exists(module_name):
            raise CannotServe(f"cannot import {named}: there is no file {module_name}")
        module_name = prepare_import(module_name)
    thing = thing.strip() if separator else _find(module_name)
    application = _import(module_name, thing, named)
    if _is_factory(application):
        called = f"{module_name}:{thing}"
        try:
            inspect.signature(application).bind()
        except TypeError:
            raise CannotServe(
                f"{called} is a function that makes an app, and it takes arguments: write \"{called}('...')\" with them"
            ) from None
        application = application()
        named = f"{called}()"
    if not callable(application):
        raise CannotServe(f"{named} is not a WSGI app, but of type {type(application).__name__}")
    return application  # type: ignore[no-any-return]


def _find(module_name: str) -> str:
    """The application of a module that was named without one."""
    from flask import Flask

    module: ModuleType = _import_module(module_name, module_name)
    for name in (*APPS, *FACTORIES):
        if callable(getattr(module, name, None)):
            return str(name)
    apps = [name for name, value in vars(module).items() if isinstance(value, Flask)]
    if len(apps) == 1:
        return apps[0]
    names = ", ".join(apps or (*APPS, *FACTORIES))
    what = f"has several apps ({names})" if apps else f"has none of {names}"
    raise CannotServe(f"{module_name} {what}: write {module_name}:NAME of the app, or of the function that makes it")


def _import_module(module_name: str, named: str) -> ModuleType:
    try:
        __import__(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and module_name.startswith(error.name):
            raise CannotServe(f"cannot import {named}: {error}") from None
        raise
    return sys.modules[module_name]


def _import(module_name: str, thing: str, named: str) -> Any:
    from gunicorn.errors import AppImportError
    from gunicorn.util import import_app

    _import_module(module_name, named)
    try:
        return import_app(f"{module_name}:{thing}")
    except AppImportError as error:
        raise CannotServe(f"cannot import {named}: {error}") from None


def _is_factory(thing: Any) -> bool:
    """Whether a callable is a factory rather than an application: an application requires an environ and
    ``start_response``."""
    if not inspect.isroutine(thing):
        return False
    try:
        signature = inspect.signature(thing)
    except (TypeError, ValueError):
        return False

    def takes(*arguments: object) -> bool:
        try:
            signature.bind(*arguments)
        except TypeError:
            return False
        return True

    return takes() or not takes({}, None)


def served_buses(is_alone: bool) -> list[Bus]:
    """The buses of the application; the ready-made one if there is no other."""
    found = [bus for bus in buses() if isinstance(bus, Bus) and bus.has_blueprint]
    return found or ([MessageBus] if is_alone else [])


def check(found: list[Bus], url: str | None, workers: int) -> None:
    """Check that the buses can be served: each with one set of settings, and with ``url`` of the command line or else
    their own.

    Raises:
        CannotServe: They cannot.
    """
    if any(bus.serves_unequal_apps for bus in found):
        raise CannotServe(
            "one bus is registered with several apps whose settings (MESSAGEBUS_..., SECRET_KEY) differ, and would "
            "take those of the last: give each app a Bus() of its own"
        )
    own = {bus.own_url for bus in found} - {None}
    if url is not None and len(own) > 1:
        raise CannotServe(
            f"--url would put {len(found)} buses into one store, which the app gives stores of their own "
            f"({', '.join(sorted(redact(each) for each in own if each))}); leave --url out"
        )
    if workers > 1 and any(bus.options.url.startswith("memory:") for bus in found):
        raise CannotServe(
            f"{workers} workers need a store that they share, and memory:// is each one's own: "
            "give --url sqlite:////var/lib/myapp/bus.db (one host, no server) or --url redis://HOST:PORT/0"
        )


def wait_for_stores(found: list[Bus], seconds: float) -> None:
    """Wait until every store answers; 0: do not wait, nor look whether it can be used.

    Raises:
        CannotServe: A store does not answer, its URL is wrong, or its user may not do what the bus needs. For the last
            two nobody waits: a person has to act.
    """
    deadline = time.monotonic() + seconds
    for bus in found:
        while seconds:
            try:
                bus.check_store()
                break
            except BackendUnavailable as error:
                if error.reason == "forbidden":
                    raise CannotServe(str(error)) from None
                if time.monotonic() >= deadline:
                    advice = "--store-wait 0 starts all the same and tries on"
                    raise CannotServe(f"the store {redact(bus.options.url)} is not there: {error} ({advice})") from None
                time.sleep(0.2)
            except MessageBusError as error:
                raise CannotServe(str(error)) from None
