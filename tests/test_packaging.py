"""What a built package carries: built for real, from a copy of the tree, without the network."""

from __future__ import annotations

import ast
import configparser
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from scripts.build_client import build

ROOT = Path(__file__).resolve().parent.parent
# What a build reads; its litter must not land in the tree that is tested.
SOURCES = [
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "LICENSE",
    "MANIFEST.in",
    "Makefile",
    "README.md",
    "demo",
    "messagebus",
    "package.json",
    "pyproject.toml",
    "scripts",
    "setup.cfg",
    "static",
    "tests",
]


def run(*arguments: str | Path, cwd: Path) -> str:
    """What the command said; fails the test with that where the command failed."""
    result = subprocess.run(
        [str(argument) for argument in arguments],
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=110,
    )
    assert result.returncode == 0, result.stdout
    return result.stdout


def declared_version() -> str:
    for node in ast.parse((ROOT / "messagebus" / "__init__.py").read_text()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__version__":
            return str(ast.literal_eval(node.value))
    raise AssertionError("messagebus/__init__.py has no literal __version__")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with an sdist, ``wheel/`` with a wheel from the tree, and ``again/`` with one from the sdist."""
    tree, out = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("built")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "node_modules")
            shutil.copytree(ROOT / name, tree / name, symlinks=True, ignore=ignored)
        else:
            shutil.copy2(ROOT / name, tree / name)
    # The backend of the running environment: the tests need no network.
    build = [sys.executable, "-m", "build", "--no-isolation"]
    run(*build, "--sdist", "--outdir", out, cwd=tree)
    run(*build, "--wheel", "--outdir", out / "wheel", cwd=tree)
    (out / "unpacked").mkdir()
    run("tar", "-xzf", next(out.glob("*.tar.gz")), "-C", out / "unpacked", cwd=out)
    run(*build, "--wheel", "--outdir", out / "again", cwd=next((out / "unpacked").iterdir()))
    return out


def expected_files() -> set[str]:
    """Every file of the package in the tree, through the link to ``static``."""
    package = ROOT / "messagebus"
    found = {path for path in package.rglob("*") if path.is_file() and "static" not in path.parts}
    found |= {path for path in (package / "static" / "js").iterdir() if path.is_file()}
    return {str(path.relative_to(ROOT)) for path in found if "__pycache__" not in path.parts}


def package_files(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


def test_the_client_is_in_the_tree_once_and_linked_into_the_package() -> None:
    assert (ROOT / "messagebus" / "static").resolve() == ROOT / "static"
    assert (ROOT / "static" / "js" / "messagebus.js").is_file()


@pytest.mark.parametrize("source", ["wheel", "again"], ids=["from the tree", "from the sdist"])
def test_a_wheel_carries_the_whole_package_and_nothing_else(built: Path, source: str) -> None:
    (wheel,) = (built / source).glob("*.whl")
    assert wheel.name == f"flask_messagebus-{declared_version()}-py3-none-any.whl"
    assert package_files(wheel) == expected_files()
    assert {"messagebus/static/js/messagebus.js", "messagebus/py.typed"} <= package_files(wheel)


def test_the_sdist_carries_what_its_tests_and_builds_need(built: Path) -> None:
    top = f"flask_messagebus-{declared_version()}"
    with tarfile.open(next(built.glob("*.tar.gz"))) as sdist:
        names = {name.removeprefix(f"{top}/") for name in sdist.getnames()}
    wanted = {"LICENSE", "README.md", "CHANGELOG.md", "Makefile", "setup.cfg", "pyproject.toml", "tests/conftest.py"}
    assert wanted | expected_files() <= names
    assert not [name for name in names if "node_modules" in name or name.endswith(".pyc")]


def test_an_installed_wheel_finds_its_client_and_has_its_command(built: Path, tmp_path: Path) -> None:
    (wheel,) = (built / "wheel").glob("*.whl")
    target = tmp_path / "installed"
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index"]
    run(*pip, "--target", target, wheel, cwd=tmp_path)
    installed = target / "messagebus" / "static" / "js" / "messagebus.js"
    assert installed.read_bytes() == (ROOT / "static" / "js" / "messagebus.js").read_bytes()
    entry_points = configparser.ConfigParser()
    entry_points.read(next(target.glob("*.dist-info")) / "entry_points.txt")
    assert dict(entry_points["console_scripts"]) == {"messagebus": "messagebus.command.cli:main"}
    # In another directory: what is imported is what was installed, not the tree.
    program = f"import sys; sys.path.insert(0, {str(target)!r}); import messagebus; print(messagebus.__file__)"
    said = run(sys.executable, "-c", program, cwd=tmp_path)
    assert Path(said.strip()) == target / "messagebus" / "__init__.py"


def test_what_is_imported_is_declared() -> None:
    own = {"messagebus", *sys.stdlib_module_names}
    imported = set()
    for path in (ROOT / "messagebus").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                imported.add(str(node.module).partition(".")[0])
    optional = {
        "brotli",
        "opentelemetry",
        "prometheus_client",
        "psycopg",
        "typing_extensions",
        "pytest",
        "geventwebsocket",
    }
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    lines = config["options"]["install_requires"].split("\n")
    declared = {re.split(r"[\[<>=]", line.partition(";")[0])[0].lower() for line in lines if line}
    assert imported - own - optional == declared


def test_the_import_warns_of_the_namesake_in_the_same_place(tmp_path: Path) -> None:
    (tmp_path / "messagebus").symlink_to(ROOT / "messagebus")
    program = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import messagebus"
    assert run(sys.executable, "-W", "error", "-c", program, cwd=tmp_path) == ""
    (tmp_path / "messagebus-0.16.1.dist-info").mkdir()
    said = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "messagebus-0.16.1 is installed beside flask-messagebus" in said.stderr


def test_the_python_client_is_installed_by_itself_without_the_server(tmp_path: Path) -> None:
    wheel = build(tmp_path)
    target = tmp_path / "installed"
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index"]
    run(*pip, "--target", target, wheel, cwd=tmp_path)
    program = (
        f"import sys; sys.path.insert(0, {str(target)!r})\n"
        "from messagebus_client import AsyncClient, Client, __version__\n"
        "client = Client('http://127.0.0.1:9')\n"
        "client.subscribe('/chat', print)\n"
        "print(__version__, sorted({'flask', 'gevent', 'redis', 'werkzeug', 'messagebus'} & set(sys.modules)))"
    )
    said = run(sys.executable, "-W", "error", "-c", program, cwd=tmp_path)
    assert said.strip() == f"{declared_version()} []"


def test_the_command_leaves_flask_for_after_gevents_patch() -> None:
    code = "import sys, messagebus.command.cli; sys.exit('flask' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=30).returncode == 0
