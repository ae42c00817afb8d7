"""The options ``--url`` and ``--key``, and the place that they name."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

import click

from ..options import SCHEMES
from .ending import CannotDo
from .places import Place

Function = TypeVar("Function", bound=Callable[..., Any])


def open_place(url: str | None, key: str | None) -> Place:
    """Raises CannotDo if there is no URL; InvalidOption if it is malformed, or of no kind that is known."""
    url = url or os.environ.get("MESSAGEBUS_URL") or os.environ.get("REDIS_URL")
    if not url:
        raise CannotDo(
            "which bus? Give --url, or set MESSAGEBUS_URL: a store, such as redis://localhost:6379/0, "
            "postgresql://host/db or sqlite:///bus.db; or a server, such as http://localhost:8000"
        )
    if url.startswith(("http://", "https://")):
        from .server_place import ServerPlace

        return ServerPlace(url, key)
    if url.startswith("memory:"):
        raise CannotDo("memory:// is within the app's own process; give the URL of the server: http://localhost:8000")
    scheme = url.partition("://")[0]
    if scheme not in SCHEMES:
        known = ", ".join(f"{each}://" for each in ("http", "https", *SCHEMES) if each != "memory")
        raise CannotDo(f"--url: expected {known}")
    from .store_place import StorePlace

    return StorePlace(url)


def with_place(function: Function) -> Function:
    """Gives a command the options ``--url`` and ``--key``."""
    key = click.option(
        "--key",
        envvar="MESSAGEBUS_KEY",
        metavar="KEY",
        help="What a server wants to be shown, as Authorization: Bearer KEY. Better in the variable MESSAGEBUS_KEY: "
        "others on the machine can see a command's arguments.",
    )
    url = click.option(
        "--url",
        metavar="URL",
        help="A store (redis://, postgresql://, sqlite:///), or a server that has the bus (http://, https://).  "
        "[default: MESSAGEBUS_URL or REDIS_URL]",
    )
    return url(key(function))
