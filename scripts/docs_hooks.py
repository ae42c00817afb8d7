"""Hooks of the documentation's site: links that leave ``docs/`` lead to copies of what they name.

The pages are read as files in the repository as well, where ``../messagebus/hub/hub.py`` is a good link. In the site a
linked file stands under ``source/``, and ``CHANGELOG.md`` and ``CONTRIBUTING.md`` are pages.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = {"CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md"}
"""Files outside ``docs/`` that are pages of the site, and their names there."""

LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#|/)([^)#\s]+)")


def on_files(files: Files, config: Any) -> Files:
    """Adds the pages from outside ``docs/``, and the files that pages link to."""
    for source, name in PAGES.items():
        files.append(File.generated(config, name, content=(ROOT / source).read_text()))
    for file in list(files.documentation_pages()):
        for target in _targets(file.content_string, _directory(file)):
            name = _place(target)
            if name.startswith("source/") and files.get_file_from_path(name) is None:
                files.append(File.generated(config, name, abs_src_path=str(target)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Points the links of a page to where the files stand in the site."""
    here, directory = page.file.src_uri, _directory(page.file)

    def moved(match: re.Match[str]) -> str:
        target = (directory / match[1]).resolve()
        if not target.is_file():
            return match[1]  # the strict build reports it
        return posixpath.relpath(_place(target), posixpath.dirname(here) or ".")

    return LINK.sub(moved, markdown)


def _directory(file: File) -> Path:
    """The directory that a page's links start from."""
    return ROOT if file.src_uri in PAGES.values() else (DOCS / file.src_uri).parent


def _targets(markdown: str, directory: Path) -> set[Path]:
    found = {(directory / link).resolve() for link in LINK.findall(markdown)}
    return {target for target in found if target.is_file() and ROOT in target.parents}


def _place(target: Path) -> str:
    """A file's name in the site."""
    if DOCS in target.parents:
        return target.relative_to(DOCS).as_posix()
    name = target.relative_to(ROOT).as_posix()
    # As text: browsers show it in place of saving it.
    return PAGES.get(name, f"source/{name}.txt")
