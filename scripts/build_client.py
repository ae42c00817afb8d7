"""Build the Python client as a distribution of its own: ``python -m scripts.build_client DIRECTORY``.

A program that only follows a server needs neither Flask nor gevent nor Redis, and an extra cannot take a requirement
away. So the client's modules, and the few that they import, are packed under another import name. Their imports are
relative: nothing in them changes.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MODULES = (
    "backoff.py",
    "client",
    "codecs.py",
    "errors.py",
    "forks.py",
    "loop/__init__.py",
    "loop/poller.py",
    "message.py",
    "names.py",
    "wire.py",
    "py.typed",
)
INIT = '''"""The Python client of flask-messagebus: ``Client``, and ``AsyncClient`` for asyncio."""

from .client import *
from .client import __all__ as __all__
from .client import __getattr__ as __getattr__
from .version import __version__ as __version__
'''


def build(directory: Path) -> Path:
    """Build the wheel into a directory, and return its path."""
    version = subprocess.run(
        [sys.executable, "-c", "import messagebus; print(messagebus.__version__)"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    with tempfile.TemporaryDirectory() as made:
        tree = Path(made) / "tree"
        shutil.copytree(ROOT / "packaging" / "client", tree)
        shutil.copy(ROOT / "LICENSE", tree)
        package = tree / "messagebus_client"
        for module in MODULES:
            source, target = ROOT / "messagebus" / module, package / module
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, target)
        (package / "version.py").write_text(f'__version__ = "{version}"\n')
        (package / "__init__.py").write_text(INIT)
        command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(directory), str(tree)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    (wheel,) = directory.glob("flask_messagebus_client-*.whl")
    return wheel


if __name__ == "__main__":
    print(build(Path(sys.argv[1])))
