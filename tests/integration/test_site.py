"""The documentation's site: it builds strictly, without the network, and asks for nothing from elsewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
# A proxy that nobody serves: a build that asks for something outside of the machine fails.
NO_NETWORK = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site")
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(out)]
    result = subprocess.run(
        build, cwd=ROOT, env={**os.environ, **NO_NETWORK}, capture_output=True, text=True, timeout=110
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return out


def test_every_page_of_the_menu_is_built(site: Path) -> None:
    named = re.findall(r"([\w/-]+)\.md$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    assert named
    assert not [name for name in named if not (site / f"{name}.html").is_file()]


def test_pages_load_nothing_from_elsewhere(site: Path) -> None:
    loaded = re.compile(
        r"<(?:script|img|iframe|source)[^>]+src(?:set)?=\"?(?:https?:)?//|<link[^>]+href=\"?(?:https?:)?//"
    )
    assert not [page.name for page in site.rglob("*.html") if loaded.search(page.read_text())]


def test_the_reference_has_what_the_docstrings_say(site: Path) -> None:
    page = (site / "python-api.html").read_text()
    assert 'id="messagebus.Bus.publish"' in page
    assert "InvalidTargets" in page
    assert not re.search(r":(?:class|meth|func|attr|data|mod):", page)
