"""Results as JSON, and as tables between the markers in docs/performance.md."""

from __future__ import annotations

import json
import platform
import subprocess
import time
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from typing import Any

import messagebus

from . import machine
from .contenders.action_cable import action_cable_versions
from .processes import ROOT
from .results import Section, number, table

JSON = ROOT / "bench" / "results" / "latest.json"
DOCUMENT = ROOT / "docs" / "performance.md"
BEGIN, END = "<!-- figures: written by make bench -->", "<!-- end of the figures -->"
NODE_PACKAGES = ROOT / "bench" / "servers" / "node_modules"


def circumstances() -> dict[str, Any]:
    """When, on what, with which versions; taken before anything is started."""
    versions = {"Python": platform.python_version(), "messagebus": messagebus.__version__}
    for name in ("Flask", "gevent", "redis", "hiredis", "Flask-SocketIO", "gevent-websocket"):
        versions[name] = version(name)
    for name, path in (("socket.io", "socket.io"), ("its Redis adapter", "@socket.io/redis-adapter")):
        versions[name] = json.loads((NODE_PACKAGES / path / "package.json").read_text())["version"]
    for name, command in (
        ("Node", ["node", "--version"]),
        ("redis-server", ["redis-server", "--version"]),
        ("nchan (Debian)", ["dpkg-query", "-W", "-f", "${Version}", "libnginx-mod-nchan"]),
    ):
        try:
            said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            versions[name] = next((w[2:] for w in said.split() if w.startswith("v=")), said.strip().lstrip("v"))
        except (OSError, subprocess.CalledProcessError):
            versions[name] = "unknown"
    gems = action_cable_versions() or {}
    versions |= {"ActionCable": gems["actioncable"], "puma": gems["puma"]} if gems else {"ActionCable": "not there"}
    return {
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "machine": machine.describe(),
        "load_before": round(machine.load(), 2),
        "highest_load": 0.0,
        "versions": versions,
    }


def show(section: Section) -> str:
    """A section for the terminal and the document."""
    lines = [f"### {section.title}", "", *table(section), ""]
    if section.reference:
        lines += [f"In brackets: the ratio to {section.reference}.", ""]
    lines += [line for note in section.notes for line in (note, "")]
    for bound in section.bounds:
        verdict = "met" if bound.met else "**missed**"
        lines.append(f"- {bound.what}: {number(bound.reached)}, to be {bound.must}: {verdict}")
    return "\n".join([*lines, ""] if section.bounds else lines)


def document(facts: Mapping[str, Any], sections: Iterable[Section]) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in facts["versions"].items())
    return "\n".join(
        [
            f"Measured {facts['date']} on {facts['machine']}; {facts['runs']} runs, medians. It took "
            f"{facts['minutes']:.0f} min; load average before it {facts['load_before']}, at most "
            f"{facts['highest_load']} during it (the bench alone makes about 2: above it, others used the machine).",
            "",
            f"Versions: {versions}.",
            "",
            *[show(section) for section in sections],
        ]
    )


def write(facts: Mapping[str, Any], sections: Mapping[str, Section]) -> None:
    """Write both; the tables in the document only where its markers are."""
    JSON.parent.mkdir(exist_ok=True)
    JSON.write_text(json.dumps({**facts, "works": {n: _plain(s) for n, s in sections.items()}}, indent=1) + "\n")
    text = DOCUMENT.read_text()
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if begin and end:
        DOCUMENT.write_text(f"{before}{BEGIN}\n\n{document(facts, sections.values())}\n{END}{after}")


def _plain(section: Section) -> dict[str, Any]:
    return {
        "title": section.title,
        "figures": section.figures,
        "rows": [
            {"name": row.name, "failed": row.failed}
            | {"median": {figure: row.median(figure) for figure in row.runs} if not row.failed else {}}
            | {"runs": row.runs}
            for row in section.rows
        ],
        "bounds": [
            {"what": bound.what, "reached": bound.reached, "must": bound.must, "met": bound.met}
            for bound in section.bounds
        ],
    }
