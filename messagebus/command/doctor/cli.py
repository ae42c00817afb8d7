"""The command ``messagebus doctor``."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from urllib.parse import urlsplit

import click

from ... import InvalidOption, Options, options
from ...serve.load import CannotServe, load_application
from .findings import Finding
from .machine import check_machine, environment_url
from .probe import Place
from .store import NoStore, check_store
from .way import CannotConnect, check_way

_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}
FAILED = 1
CANNOT_CONNECT = 2


@click.command(context_settings={"max_content_width": 100})
@click.argument("url", metavar="[URL]", required=False)
@click.option("--store", help="The store's URL.  [default: the app's, or MESSAGEBUS_URL or REDIS_URL]")
@click.option(
    "--app", "application", metavar="MODULE:APP", help="Load the app, and look at what it has beside the bus."
)
@click.option(
    "--patience",
    type=click.FloatRange(min=1.0, max=600.0),
    default=5.0,
    show_default=True,
    help="Seconds to wait for bytes, and to watch silent connections; 80 is beyond every usual limit of a proxy.",
)
@click.option(
    "--channel", default="/messagebus-doctor", show_default=True, help="An open channel; nothing is published."
)
@click.option(
    "--server",
    "servers",
    multiple=True,
    metavar="NAME",
    help="Print lines for this one alone (nginx, Apache, Caddy, Traefik, HAProxy, gunicorn); may be repeated.",
)
def doctor(
    url: str | None, store: str | None, application: str | None, patience: float, channel: str, servers: tuple[str, ...]
) -> None:
    """Say what is wrong between browsers, the bus and its store, and which lines to change.

    URL is where browsers reach the bus, such as https://example.org/message-bus: through every proxy. Without it only
    this machine, the store and the app are looked at. Nothing is changed or published.

    \b
    Exit codes:
      0  all is well, or worth a warning
      1  something fails
      2  nobody answers at the URL or the store, or the command is wrong
    """
    parts = urlsplit(url or "")
    if url is not None and (parts.scheme not in ("http", "https") or not parts.hostname):
        raise click.UsageError("URL: expected http:// or https:// and a host, such as https://example.org/message-bus")
    if url is not None and (parts.query or parts.fragment):
        raise click.UsageError("URL: expected no query and no fragment")
    findings: list[Finding] = []
    try:
        given = store or environment_url()
        stores = {given: options.from_environment().get("durable", 0)} if given else {}
        if application is not None:
            if store is not None:
                options.set_from_command(url=store)
            from . import application as apps  # it imports Flask, which serve must not before gevent patches

            findings += apps.check_application(load_application(application))
            stores = apps.stores() or stores
        if url is not None:
            path = parts.path.rstrip("/") or "/message-bus"
            way = Place(f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{path}", channel, patience)
            findings += check_way(way)
        for place, durable in stores.items():
            findings += check_store(place, durable)
        findings += check_machine(Options())
    except InvalidOption as error:
        raise click.UsageError(str(error)) from None
    except (CannotConnect, NoStore, CannotServe) as error:
        report(findings, servers)
        click.echo(f"Error: {error}", err=True)
        sys.exit(CANNOT_CONNECT)
    report(findings, servers)
    sys.exit(FAILED if any(each.result == "fail" for each in findings) else 0)


def report(findings: Iterable[Finding], servers: tuple[str, ...]) -> None:
    """A table on a terminal, else a line of JSON for each."""
    findings = list(findings)
    if not sys.stdout.isatty():
        for each in findings:
            click.echo(json.dumps(each.as_json()))
        return
    width = max((len(each.check) for each in findings), default=0)
    wanted = {name.lower() for name in servers}
    for each in findings:
        click.echo(
            f"{click.style(each.result.ljust(4), fg=_COLOURS[each.result])}  {each.check.ljust(width)}  {each.found}"
        )
        if each.advice:
            click.echo(f"      {' ' * width}  -> {each.advice}")
        for name, lines in each.lines.items():
            if wanted and name.lower() not in wanted and name in _PROXIES:
                continue
            click.echo(f"      {' ' * width}     {click.style(name, bold=True)}:")
            for line in lines:
                click.echo(f"      {' ' * width}       {line}")


_PROXIES = {"nginx", "Apache", "Caddy", "Traefik", "HAProxy", "gunicorn"}
