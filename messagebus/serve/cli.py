"""The ``messagebus`` command."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import click

from .. import Bus, InvalidOption, MessageBus, __version__
from .workers import CANNOT_START, allow_many_files, open_listener, serve_here, serve_with_workers


@click.group()
@click.version_option(__version__, prog_name="messagebus")
def main() -> None:
    """A durable message bus between Python processes and web pages."""


@main.command()
@click.argument("application", metavar="[MODULE:APP]", required=False)
@click.option("--bind", default="127.0.0.1:8000", show_default=True, help="HOST:PORT or unix:PATH to listen on.")
@click.option("--url", help="The store; without it, what the app or the environment says (MESSAGEBUS_URL, REDIS_URL).")
@click.option("--workers", type=click.IntRange(1, 64), default=1, show_default=True, help="Processes to serve with.")
@click.option(
    "--allow-anonymous-publish", is_flag=True, help="Without MODULE:APP: take POST /message-bus/publish from anybody."
)
@click.option("--access-log", is_flag=True, help="Log every request.")
def serve(
    application: str | None, bind: str, url: str | None, workers: int, allow_anonymous_publish: bool, access_log: bool
) -> None:
    """Serve a WSGI app that has the bus, or without one the bus alone, on gevent."""
    if application and allow_anonymous_publish:
        raise click.UsageError(
            "--allow-anonymous-publish is for serving the bus alone; an app has its own routes to publish."
        )
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    allow_many_files()
    if workers == 1:
        _patch()
    try:
        if url:
            MessageBus.configure(url=url)
        listener, name = open_listener(bind)
    except (InvalidOption, ValueError) as error:
        raise click.UsageError(str(error)) from None
    except OSError as error:
        raise click.ClickException(f"cannot listen on {bind}: {error.strerror}") from None

    def work() -> None:
        if workers > 1:
            _patch()
        app, bus = _load(application, allow_anonymous_publish)
        if workers > 1 and urlsplit(bus.options.url).scheme == "memory":
            click.echo("Error: several workers need a store that they share: give --url redis://HOST:PORT/0", err=True)
            sys.exit(CANNOT_START)
        # Before the first client comes: after a restart they all come at once, and would wait for this together.
        bus.start()
        if application and "messagebus" not in getattr(app, "extensions", {"messagebus": None}):
            click.echo("Warning: the app has not registered MessageBus.blueprint, so no page can connect.", err=True)
        click.echo(f"messagebus listening on {name}, store {redacted(bus.options.url)}, process {os.getpid()}")
        serve_here(listener, app, access_log)

    if workers == 1:
        work()
    else:
        sys.exit(serve_with_workers(listener, workers, work))


def redacted(url: str) -> str:
    """A URL without its password."""
    parts = urlsplit(url)
    return url if parts.password is None else url.replace(f":{parts.password}@", ":***@", 1)


def _patch() -> None:
    from gevent import monkey

    monkey.patch_all()


def _load(application: str | None, anonymous_publish: bool) -> tuple[Callable[..., Any], Bus]:
    """The app to serve, and its bus."""
    if application is None:
        from .standalone import make_app

        return make_app(MessageBus, anonymous_publish=anonymous_publish), MessageBus
    from werkzeug.utils import ImportStringError, import_string

    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        app = import_string(application if ":" in application else f"{application}:app")
    except ImportStringError as error:
        click.echo(f"Error: cannot import {application}: {error.exception}", err=True)
        sys.exit(CANNOT_START)
    if not callable(app):
        click.echo(f"Error: {application} is not a WSGI app, but of type {type(app).__name__}", err=True)
        sys.exit(CANNOT_START)
    return app, getattr(app, "extensions", {}).get("messagebus", MessageBus)
