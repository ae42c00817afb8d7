"""The layers of the package: imports point one way, and the list of files reads as the design."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import messagebus

PACKAGE = Path(messagebus.__file__).parent

# A module may import its own layer and those before it, also for the type checker alone: who is handed something from
# further back names a protocol of its own. A directory is one layer; messagebus/__init__.py, the public door, stands
# behind all that it opens, and messagebus/__main__.py last.
LAYERS = [
    "_compat",
    "errors",
    "wire",
    "urls",
    "backoff",
    "forks",
    "app_import",
    "limit_counts",
    "codecs",
    "names",
    "message",
    "templates",
    "option_kinds",
    "channel_rules",
    "options",
    "option_values",
    "tracing",
    "loop",
    "client",
    "stores",
    "publishing",
    "transports",
    "presence",
    "hub",
    "statistics",
    "admin",
    "http",
    "cable",
    "sockets",
    "integrations",
    "lifecycle",
    "members",
    "clients",
    "reading",
    "bus",
    "distributed_cache",
    "__init__",
    "testing",
    "serve",
    "command",
    "__main__",
]
# Within a layer the same holds for its modules. Of those that are not listed it is only asked that none of them
# imports, by whatever way, itself.
ROOMS = {
    "loop": ["poller", "jobs", "outboxes", "writer", "reactor", "socket_writer", "pausable_writer", "blocking_writer"],
    "presence": ["member", "stamps", "telling", "own", "room", "rules", "arrivals", "view"],
    "hub": [
        "epochs",
        "seen",
        "forgotten",
        "history",
        "lineage",
        "catch_up",
        "subscriber",
        "orders",
        "ended",
        "addresses",
        "subscribe_request",
        "targets",
        "membership",
        "counters",
        "attendance",
        "trail",
        "permissions",
        "patterns",
        "window",
        "windows",
        "former",
        "backlog_reader",
        "dispatch",
        "ending",
        "moving",
        "transients",
        "pacing",
        "due",
        "feed_wait",
        "request_times",
        "hub",
        "withdrawing",
        "revoking",
        "rechecks",
        "joining",
        "callbacks",
        "following",
        "workers",
        "viewers",
        "audience",
        "presence_hooks",
        "presence_stream",
        "presence_asking",
        "presence_watchers",
        "presence",
        "talks",
        "planner",
        "node",
    ],
    "statistics": ["worker", "reachable", "bus", "prometheus", "why"],
    "http": [
        "requested_channels",
        "refusals",
        "addresses",
        "origins",
        "client_ids",
        "keys",
        "parsing",
        "statistics",
        "publish_report",
        "publish_request",
        "publishing",
        "authorization",
        "command",
        "publish_command",
        "channel_commands",
        "commands",
        "context",
        "calls",
        "hijack",
        "frame_reader",
        "framed_subscriber",
        "websocket_session",
        "health",
        "streaming_response",
        "admin_session",
        "admin",
        "upgrade",
        "static_files",
        "routes",
        "servable",
    ],
    "cable": [
        "channel",
        "classes",
        "turns",
        "subscription",
        "encoding",
        "pings",
        "times",
        "recovery",
        "cable",
        "commands",
        "planning",
        "stream_subscriber",
        "presence_commands",
        "restoring",
        "socket",
        "session",
        "handshake",
        "forwarding",
        "still_there",
        "own_client",
        "own",
    ],
    "sockets": ["websocket", "handlers", "session", "opening"],
}
FILES = sorted(PACKAGE.rglob("*.py"))


def layer_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_modules(path: Path) -> set[tuple[str, ...]]:
    """The modules of the package that a file imports, as paths without the package: ("hub", "window")."""
    found = set()
    # messagebus/stores/redis.py -> ["messagebus", "stores"], which a leading dot stands for.
    here = ["messagebus", *path.relative_to(PACKAGE).parts[:-1]]
    for node in ast.walk(ast.parse(path.read_text())):
        names: list[list[str]] = []
        if isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = here[: len(here) - node.level + 1] if node.level else []
            module = [*base, *(node.module.split(".") if node.module else [])]
            # "from . import x" may import the module x; "from .x import y" imports x, or the module y in it.
            names = [[*module, alias.name] for alias in node.names]
        for name in names:
            if name[0] == "messagebus":
                found.add(_module(name[1:]))
    return found


def _module(name: list[str]) -> tuple[str, ...]:
    """The module that a dotted name is of."""
    while name and not ((PACKAGE.joinpath(*name)).is_dir() or PACKAGE.joinpath(*name).with_suffix(".py").exists()):
        name = name[:-1]
    if not name or PACKAGE.joinpath(*name).is_dir():
        name = [*name, "__init__"]
    return tuple(name)


def imported_layers(path: Path) -> set[str]:
    """The layers that a file imports from, wherever in it the import stands."""
    return {module[0] for module in imported_modules(path)}


def test_every_module_has_its_place_in_the_list_of_layers() -> None:
    assert {layer_of(path) for path in FILES} == set(LAYERS)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_only_its_own_layer_and_those_before_it(path: Path) -> None:
    mine = LAYERS.index(layer_of(path))
    late = {layer for layer in imported_layers(path) if LAYERS.index(layer) > mine}
    assert not late, f"{path.relative_to(PACKAGE)} must not import {', '.join(sorted(late))}"


@pytest.mark.parametrize("room", ROOMS)
def test_a_module_of_a_room_imports_only_those_before_it(room: str) -> None:
    modules = ROOMS[room]
    assert {path.stem for path in (PACKAGE / room).glob("*.py")} == {"__init__", *modules}
    for number, module in enumerate(modules):
        imported = {found[-1] for found in imported_modules(PACKAGE / room / f"{module}.py") if found[0] == room}
        assert imported <= set(modules[:number]), (
            f"{room}/{module}.py must not import {imported - set(modules[:number])}"
        )


def test_no_module_imports_itself_by_way_of_others() -> None:
    graph = {_module(list(path.relative_to(PACKAGE).with_suffix("").parts)): imported_modules(path) for path in FILES}
    done: set[tuple[str, ...]] = set()

    def visit(module: tuple[str, ...], way: list[tuple[str, ...]]) -> None:
        assert module not in way, " imports ".join(".".join(each) for each in [*way[way.index(module) :], module])
        if module not in done:
            for imported in graph.get(module, ()):
                visit(imported, [*way, module])
            done.add(module)

    for module in graph:
        visit(module, [])
