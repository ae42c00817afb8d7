"""The command ``messagebus serve``."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from .. import InvalidOption
from . import logs
from .config import ConfigError, checked_options
from .limits import Limits, allow_many_files
from .listeners import SocketFile, inherited_binds, name_of, open_when_free, parse_owner
from .settings import Settings

DEFAULT_BIND = "127.0.0.1:8000"
_LIMITS = Limits()


def _limit(name: str, kind: Any, text: str) -> Callable[[Any], Any]:
    default = getattr(_LIMITS, name[2:].replace("-", "_"))
    return click.option(name, type=kind, default=default, show_default=True, help=text)


_SECONDS = click.FloatRange(min=0.1)
_SECONDS_OR_0 = click.FloatRange(min=0.0)
_COUNT = click.IntRange(min=1)
_COUNT_OR_0 = click.IntRange(min=0)


def _octal(context: click.Context, parameter: click.Parameter, value: str | None) -> int | None:
    if value is None:
        return None
    try:
        number = int(value, 8)
    except ValueError:
        number = -1
    if not 0 <= number <= 0o777:
        raise click.BadParameter(f"{value!r} is not an octal mode, such as 660")
    return number


def _owner(context: click.Context, parameter: click.Parameter, value: str) -> tuple[int, int]:
    try:
        return parse_owner(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@click.command(context_settings={"max_content_width": 100})
@click.argument("application", metavar="[APP]", required=False)
@click.option(
    "--bind",
    multiple=True,
    help=f"HOST:PORT, unix:PATH or fd://NUMBER to listen on; may be repeated. What systemd passes (LISTEN_FDS) comes "
    f"first.  [default: {DEFAULT_BIND}]",
)
@click.option(
    "--url",
    help="The store of every bus in the process, whatever the app says. Without it: what the app or the environment "
    "says (MESSAGEBUS_URL, REDIS_URL).",
)
@click.option(
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    help="A TOML file of options and channel rules, for every bus in the process. --url comes before it. HUP reads it "
    "again.",
)
@click.option("--workers", type=click.IntRange(1, 64), default=1, show_default=True, help="Processes to serve with.")
@click.option(
    "--store-wait",
    type=_SECONDS_OR_0,
    default=10.0,
    show_default=True,
    help="Seconds to wait at the start for a store that does not answer; then the command ends with code 2. 0: serve "
    "all the same, and take the store as soon as it is there.",
)
@click.option("--start-timeout", type=_SECONDS, default=60.0, show_default=True, help="Seconds to load the app in.")
@click.option(
    "--stop-timeout",
    type=_SECONDS_OR_0,
    default=5.0,
    show_default=True,
    help="Seconds that requests which are being answered may take when the server, or a worker, ends.",
)
@click.option(
    "--drain",
    type=_SECONDS_OR_0,
    help="Seconds in which the subscribers of a server, or a worker, that ends may move to another one before their "
    "connections end.  [default: 0; 5 at a reload]",
)
@click.option(
    "--timeout",
    type=click.IntRange(min=1),
    default=30,
    show_default=True,
    help="Seconds without a sign of life after which a worker is killed and replaced.",
)
@_limit("--head-size", click.IntRange(min=1024), "Bytes of a request's head; 431 beyond.")
@_limit("--head-timeout", _SECONDS, "Seconds for a head to arrive in; 408 beyond.")
@_limit("--body-size", _COUNT_OR_0, "Bytes of a request's body; 413 beyond. 0: the app decides.")
@_limit("--body-timeout", _SECONDS, "Seconds for a body to arrive in, and one more for each 500 bytes; 408 beyond.")
@_limit("--send-timeout", _SECONDS, "Seconds that a client may leave an answer unread.")
@_limit("--keep-alive", _SECONDS_OR_0, "Seconds a connection may stay open between requests. 0: none does.")
@_limit("--connections", _COUNT, "Connections of a worker, its subscribers apart; 503 beyond, when none is idle.")
@click.option(
    "--connections-per-address",
    type=_COUNT_OR_0,
    help="Of them from one address; 503 beyond. 0: any number.  [default: 256, from public addresses alone]",
)
@click.option("--socket-mode", callback=_octal, metavar="OCTAL", help="Permissions of unix:PATH, such as 660.")
@click.option(
    "--socket-owner",
    callback=_owner,
    default="",
    metavar="USER:GROUP",
    help="Owner of unix:PATH, such as :www-data for a proxy of that group.",
)
@click.option("--umask", callback=_octal, metavar="OCTAL", help="The process's umask; 007 makes a unix:PATH 770.")
@click.option("--pid-file", type=click.Path(dir_okay=False), help="Where to write the master process's number.")
@click.option(
    "--access-log", is_flag=True, help="Log every request, and the end of every held connection, to the standard error."
)
@click.option("--access-log-file", type=click.Path(dir_okay=False), help="Log them there.")
@click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="Form of all logs: lines for people, or a JSON object in each line.",
)
@click.option("--reload", is_flag=True, help="Restart the workers when a file of the app changes; for development.")
@click.option("--allow-anonymous-publish", is_flag=True, help="Without APP: anybody may publish over HTTP.")
@click.option(
    "--allowed-host",
    "allowed_hosts",
    multiple=True,
    metavar="HOST",
    help="Without APP: a name that the server is reached by, such as bus.example.org, or *.example.org, or * for any; "
    "may be repeated. Addresses, names without a dot, *.localhost and the host of --bind always are.",
)
@click.pass_context
def serve(context: click.Context, /, application: str | None, bind: tuple[str, ...], **given: Any) -> None:
    """Serve a WSGI app that has the bus, or without APP the bus alone, on gevent.

    APP is module:app, module:create_app, "module:create_app('prod')", module or path/to/file.py. Where it is left out,
    FLASK_APP counts.

    \b
    Signals to the first process:
      TERM, INT   end in order; a second one ends at once
      QUIT        end at once
      HUP         start new workers, which load the app and the --config again, then end the old ones
      USR2        start a successor from new files beside this one; end this one with TERM
      TTIN, TTOU  one worker more, one less
    """
    logs.configure(given["log_format"])
    allow_many_files()
    from_flask_app = False
    alone = given["allow_anonymous_publish"] or given["allowed_hosts"]
    if application and alone:
        raise click.UsageError(
            "--allow-anonymous-publish and --allowed-host are for serving the bus alone; an app has its own routes to "
            "publish, and TRUSTED_HOSTS."
        )
    if not application and not alone and os.environ.get("FLASK_APP"):
        application, from_flask_app = os.environ["FLASK_APP"], True
    try:
        options = checked_options(given["config"], given["url"])
    except ConfigError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(2)
    except InvalidOption as error:
        raise click.UsageError(str(error)) from None
    if given["umask"] is not None:
        os.umask(given["umask"])
    file = SocketFile(mode=given["socket_mode"], user=given["socket_owner"][0], group=given["socket_owner"][1])
    binds, names = _listen(bind, file, context.get_parameter_source("bind") == ParameterSource.COMMANDLINE)
    limits = Limits(**{name: given[name] for name in Limits.__dataclass_fields__})
    settings = Settings(
        application=application,
        from_flask_app=from_flask_app,
        config=given["config"] and given["config"].absolute(),
        options=options,
        anonymous_publish=given["allow_anonymous_publish"],
        limits=limits,
        names=tuple(names),
        allowed_hosts=(*given["allowed_hosts"], *(each.rpartition(":")[0] for each in bind if "://" not in each)),
        is_reached_by_browsers=not all(name.startswith("unix:") for name in names),
        umask=_umask(),
        **{
            name: given[name]
            for name in (
                *("url", "workers", "start_timeout", "stop_timeout", "drain", "timeout", "store_wait"),
                *("access_log", "access_log_file", "log_format", "pid_file", "reload"),
            )
        },
    )
    run(settings, binds, [path.removeprefix("unix:") for path in bind if path.startswith("unix:")])


def run(settings: Settings, binds: list[str], unix_paths: list[str]) -> None:
    """Serve until a signal ends it; the process ends with it."""
    from .master import FAILED_TO_START, Application, Master

    try:
        Master(Application(settings, binds), unix_paths).run()
    except RuntimeError as error:  # the pid file is another's
        click.echo(f"Error: {error}", err=True)
        sys.exit(FAILED_TO_START)


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask


def _listen(given: tuple[str, ...], file: SocketFile, explicit: bool) -> tuple[list[str], list[str]]:
    """Open what to listen on, as descriptors for gunicorn, and name it to people."""
    if "GUNICORN_FD" in os.environ:  # USR2: they are the predecessor's, and gunicorn takes them
        inherited = [socket.socket(fileno=os.dup(int(number))) for number in os.environ["GUNICORN_FD"].split(",")]
        names = [name_of(listener) for listener in inherited]
        for listener in inherited:
            listener.close()
        return [DEFAULT_BIND], names
    passed = inherited_binds()
    if passed and explicit and not all(each.startswith("fd://") for each in given):
        click.echo(f"Warning: --bind is left out of account: {len(passed)} sockets were passed (LISTEN_FDS)", err=True)
    listeners = []
    for bind in passed or given or (DEFAULT_BIND,):
        try:
            listeners.append(open_when_free(bind, file))
        except ValueError as error:
            raise click.UsageError(str(error)) from None
        except OSError as error:
            click.echo(f"Error: cannot listen on {bind}: {error.strerror}", err=True)
            sys.exit(2)
    names = [name_of(listener) for listener in listeners]
    return [f"fd://{listener.detach()}" for listener in listeners], names
