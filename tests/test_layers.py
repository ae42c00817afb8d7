"""The layers of the package: imports point one way, and the list of files reads as the design."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import messagebus

PACKAGE = Path(messagebus.__file__).parent

# A module may import its own layer and those before it. A directory is one layer; messagebus/__init__.py, the public
# door, stands behind all that it opens, and messagebus/__main__.py last. What only the type checker imports does not
# count: who is handed its owner has to name its type.
LAYERS = [
    "_compat",
    "errors",
    "wire",
    "urls",
    "codecs",
    "options",
    "message",
    "loop",
    "client",
    "stores",
    "publishing",
    "transports",
    "hub",
    "http",
    "integrations",
    "lifecycle",
    "bus",
    "distributed_cache",
    "__init__",
    "testing",
    "serve",
    "__main__",
]
FILES = sorted(PACKAGE.rglob("*.py"))


def layer_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


class _WithoutTypeChecking(ast.NodeTransformer):
    def visit_If(self, node: ast.If) -> ast.AST | None:
        return None if ast.unparse(node.test) == "TYPE_CHECKING" else self.generic_visit(node)


def imported_layers(path: Path) -> set[str]:
    """The layers that a file imports from, wherever in it the import stands."""
    found = set()
    tree = _WithoutTypeChecking().visit(ast.parse(path.read_text()))
    # messagebus/stores/redis.py -> ["messagebus", "stores"], which a leading dot stands for.
    here = ["messagebus", *path.relative_to(PACKAGE).parts[:-1]]
    for node in ast.walk(tree):
        names: list[list[str]] = []
        if isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = here[: len(here) - node.level + 1] if node.level else []
            module = [*base, *(node.module.split(".") if node.module else [])]
            # "from . import x" imports x; "from .x import y" imports x, and y is none of our business.
            names = [[*module, alias.name] for alias in node.names] if module == ["messagebus"] else [module]
        for name in names:
            if name[0] == "messagebus":
                layer = name[1] if len(name) > 1 else "__init__"
                is_module = (PACKAGE / f"{layer}.py").exists() or (PACKAGE / layer).is_dir()
                found.add(layer if is_module else "__init__")
    return found


def test_every_module_has_its_place_in_the_list_of_layers() -> None:
    assert {layer_of(path) for path in FILES} == set(LAYERS)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_only_its_own_layer_and_those_before_it(path: Path) -> None:
    mine = LAYERS.index(layer_of(path))
    late = {layer for layer in imported_layers(path) if LAYERS.index(layer) > mine}
    assert not late, f"{path.relative_to(PACKAGE)} must not import {', '.join(sorted(late))}"
