"""Fixtures that start real servers, a real proxy and a real browser, and leave nothing of them behind."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import pytest

from .nginx_server import Nginx
from .servers import Server

_LAST_CHARACTERS = 20_000


class ServeApp(Protocol):
    def __call__(self, kind: str, app: str = ..., **options: Any) -> Server: ...


class Proxy(Protocol):
    def __call__(self, upstream: str | Sequence[str], **options: Any) -> Nginx: ...


@pytest.fixture
def serve_app() -> Iterator[ServeApp]:
    """``serve_app(kind, app, ...)``: a running :class:`tests.servers.Server`, with the arguments of that."""
    with contextlib.ExitStack() as stack:

        def start(kind: str, app: str = "tests.apps.basic:app", **options: Any) -> Server:
            server = Server(kind, app, **options)
            # Before the start, so that one that fails to start is closed as well; last in, first out: the output is
            # shown (pytest does so where the test failed) before it is gone.
            stack.callback(server.close)
            stack.callback(lambda: print(f"--- {kind} said:\n{server.output()[-_LAST_CHARACTERS:]}"))
            server.start()
            return server

        yield start


@pytest.fixture
def nginx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """``nginx(upstream, ...)``: a running :class:`tests.nginx_server.Nginx`, with the arguments of that."""
    with contextlib.ExitStack() as stack:

        def start(upstream: str | Sequence[str], **options: Any) -> Nginx:
            prefix: Path = tmp_path_factory.mktemp("nginx")
            proxy = Nginx(upstream, prefix, **options)
            stack.callback(proxy.close)
            stack.callback(lambda: print(f"--- nginx said:\n{proxy.output()[-_LAST_CHARACTERS:]}"))
            proxy.start()
            return proxy

        yield start
