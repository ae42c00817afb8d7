"""What ``messagebus serve`` takes for an app: a name, a factory, ``FLASK_APP``."""

from __future__ import annotations

from pathlib import Path

import pytest

from ..eventually import eventually
from ..fixtures_servers import ServeApp
from ..serve_helpers import fail_to_serve, write

FACTORY = """
import os
from views import make

def create_app(config=None):
    with open("made", "a") as file:
        file.write(f"{os.getpid()} {config}\\n")
    return make(name=config or "default")

def needs(config):
    return make(name=config)

def variadic(*args, **kwargs):
    return make(name="variadic")

def wsgi(environ, start_response):
    start_response("200 OK", [])
    return [b"hello from wsgi"]
"""


@pytest.mark.parametrize(
    ("named", "hello"),
    [
        ("factory:create_app", "default"),
        ("factory:create_app()", "default"),
        ("factory:create_app('prod')", "prod"),
        ("factory:create_app(config='prod')", "prod"),
        ("factory", "default"),
        ("factory.py", "default"),
        ("./factory.py:create_app", "default"),
        ("factory:variadic", "variadic"),
        ("factory:needs('x')", "x"),
        ("factory:wsgi", "wsgi"),
    ],
)
def test_an_app_may_be_made_by_a_function(serve_app: ServeApp, tmp_path: Path, named: str, hello: str) -> None:
    write(tmp_path, factory=FACTORY)
    server = serve_app("serve", named, cwd=tmp_path)
    assert server.get("/hello") == (200, f"hello from {hello}".encode())


def test_a_factory_is_called_once_in_each_worker(serve_app: ServeApp, tmp_path: Path, redis_url: str) -> None:
    write(tmp_path, factory=FACTORY)
    server = serve_app("serve", "factory:create_app", args=("--url", redis_url), workers=2, cwd=tmp_path)
    eventually(lambda: server.output().count("listening") == 2)
    made = [int(line.split()[0]) for line in (tmp_path / "made").read_text().splitlines()]
    assert sorted(made) == sorted(server.worker_pids())


def test_without_a_name_it_serves_what_flask_app_says(serve_app: ServeApp, tmp_path: Path) -> None:
    write(tmp_path, factory=FACTORY)
    server = serve_app("serve", "", env={"FLASK_APP": "factory:create_app('env')"}, cwd=tmp_path)
    assert server.get("/hello") == (200, b"hello from env")
    assert "app factory:create_app('env') (FLASK_APP)" in server.output()


@pytest.mark.parametrize(
    ("named", "says"),
    [
        ("factory:needs", "write \"factory:needs('...')\""),
        ("factory:needs()", "missing 1 required positional argument"),
        ("factory:create_app(os)", "cannot import factory:create_app(os)"),
        ("factory:create_app(", "cannot import factory:create_app("),
        ("factory:nothing", "cannot import factory:nothing"),
        ("nothing:create_app", "cannot import nothing:create_app"),
        ("nothing.py", "there is no file nothing.py"),
        ("empty", "write empty:NAME"),
        ("several", "several has several apps (one, two)"),
        ("several:number", "cannot import several:number: Application object must be callable"),
        ("several:none", "not a WSGI app"),
    ],
)
def test_what_is_no_app_is_refused_in_one_line(tmp_path: Path, named: str, says: str) -> None:
    write(
        tmp_path,
        factory=FACTORY,
        empty="",
        several="from views import make\none = make()\ntwo = make()\nnumber = 3\ndef none(): pass\n",
    )
    result = fail_to_serve(named, cwd=tmp_path)
    assert result.returncode == 2, result.stderr
    assert says in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_an_app_whose_import_fails_is_refused_with_its_own_traceback(tmp_path: Path) -> None:
    write(tmp_path, broken="import json\nfrom json import nothing_of_the_kind\n")
    result = fail_to_serve("broken:app", "--workers", "3", cwd=tmp_path)
    assert result.returncode == 2
    assert result.stderr.count("cannot import name 'nothing_of_the_kind'") <= 2
    assert result.stderr.count("Traceback") == 1, "said once, however many workers"
