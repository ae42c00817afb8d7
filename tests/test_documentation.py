"""The documentation is true: its code runs, its links lead somewhere, and its tables say what the code says."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import http.client
import json
import os
import re
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

import messagebus
from messagebus import errors, options, transports
from scripts import reference

from .fixtures_servers import ServeApp

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
README = (ROOT / "README.md").read_text()
OPTIONS = (ROOT / "docs" / "options.md").read_text()
TRANSPORTS = (ROOT / "docs" / "transports.md").read_text()
PROTOCOL = (ROOT / "docs" / "protocol.md").read_text()
JAVASCRIPT = (ROOT / "docs" / "javascript.md").read_text()
CLIENT = ROOT / "static" / "js" / "messagebus.mjs"

BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)|(?:src|srcset)=\"([^\"]+)\"")
# A block that begins with its file's name is complete: it runs as it stands.
COMPLETE = re.compile(r"# (\S+\.py)\n")


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(language: str) -> list[object]:
    return [
        pytest.param(text, id=f"{name_of(page)}-{number}")
        for page in PAGES
        for number, (found, text) in enumerate(BLOCK.findall(page.read_text()))
        if found == language
    ]


def rows(page: str) -> Iterator[list[str]]:
    """The rows of a page's tables, cell by cell; backslashes keep ``|`` inside a cell."""
    for line in page.splitlines():
        if line.startswith("| ") and not line.startswith("| ---"):
            yield [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line.strip("|"))]


def anchors(page: Path) -> set[str]:
    """What a page's headings are linked by: in lower case, without punctuation, with dashes for blanks."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


# --- links ---


def links(page: Path) -> Iterator[str]:
    """Where a page's links and pictures lead; what stands in code is none."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    for match in LINK.finditer(re.sub(r"`[^`\n]+`", "", text)):
        yield match[1] or match[2]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_relative_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    broken = []
    for link in links(page):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert not broken


# --- code ---


@pytest.mark.parametrize("text", blocks("python"))
def test_a_block_of_python_runs_where_it_is_complete_and_parses_otherwise(text: str, tmp_path: Path) -> None:
    ast.parse(text)
    named = COMPLETE.match(text)
    if named is None:
        return
    file = tmp_path / named[1]
    file.write_text(text)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        [sys.executable, file], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("text", blocks("js"))
def test_a_block_of_javascript_parses(text: str, tmp_path: Path) -> None:
    file = tmp_path / "block.mjs"
    file.write_text(text)
    result = subprocess.run(["node", "--check", file], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("text", blocks("jsx"))
def test_a_block_of_jsx_parses(text: str) -> None:
    program = "import { transformSync } from 'esbuild'; import { readFileSync } from 'node:fs';"
    program += "transformSync(readFileSync(0, 'utf8'), { loader: 'jsx' });"
    node = ["node", "--input-type=module", "--eval", program]
    result = subprocess.run(node, input=text, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("text", blocks("nginx"))
def test_a_block_for_nginx_is_accepted_by_it(text: str, tmp_path: Path) -> None:
    configuration = tmp_path / "nginx.conf"
    pid, log = tmp_path / "pid", tmp_path / "log"
    text = text.replace("listen 80;", "listen 127.0.0.1:8099;")
    configuration.write_text(f"pid {pid};\nerror_log {log};\nevents {{}}\nhttp {{\naccess_log off;\n{text}}}\n")
    nginx = ["nginx", "-t", "-q", "-p", str(tmp_path), "-c", str(configuration)]
    result = subprocess.run(nginx, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr


def test_the_first_app_of_the_readme_brings_a_message_to_a_page(serve_app: ServeApp, tmp_path: Path) -> None:
    (text,) = (text for _, text in BLOCK.findall(README) if text.startswith("# app.py\n"))
    (tmp_path / "app.py").write_text(text)
    server = serve_app("flask", "app:app", cwd=tmp_path, ready="/")

    with urllib.request.urlopen(server.url, timeout=10) as response:
        page = response.read().decode()
    (source,) = re.findall(r'<script src="([^"]+)"', page)
    with urllib.request.urlopen(server.url + source, timeout=10) as response:
        assert response.status == 200
    (positions,) = re.findall(r'data-channels="([^"]+)"', page)

    query = urllib.parse.urlencode(json.loads(positions.replace("&#34;", '"')))
    connection = http.client.HTTPConnection(server.host, server.port, timeout=10)
    with contextlib.closing(connection):
        connection.request("GET", f"/message-bus/page/sse?{query}")
        with connection.getresponse() as events:
            urllib.request.urlopen(f"{server.url}/say", b"text=hello", timeout=10).close()
            lines = iter(events.readline, b"")
            batches = (json.loads(line.removeprefix(b"data: ")) for line in lines if line.startswith(b"data: "))
            data = (message["data"] for batch in batches for message in batch if message["channel"] == "/chat")
            assert "hello" in data


# --- tables ---


@pytest.mark.parametrize("page", [page for page in PAGES if "<!-- begin: " in page.read_text()], ids=name_of)
def test_what_is_written_from_the_code_is_up_to_date(page: Path) -> None:
    assert page.read_text() == reference.written(page.read_text()), "make reference writes it"


def test_the_options_are_all_in_their_table() -> None:
    named = {row[0].strip("`") for row in rows(OPTIONS) if row[0].startswith("`")}
    assert named == {option.name for option in dataclasses.fields(options.Options)}


def test_the_options_name_every_kind_of_store() -> None:
    missing = [scheme for scheme in options.SCHEMES if f"{scheme}://" not in OPTIONS]
    assert not missing


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= 150


def test_the_transports_are_documented_by_their_names() -> None:
    instances = [getattr(transports, name) for name in transports.__all__]
    names = {made.name for made in instances if isinstance(made, transports.Transport)} | {"polling"}
    for page in (TRANSPORTS, PROTOCOL):
        cells = {cell for row in rows(page) for cell in row}
        assert {f"`{name}`" for name in names} <= cells


def test_the_protocol_names_every_close_code_and_no_other() -> None:
    documented = {int(row[0]) for row in rows(PROTOCOL) if re.fullmatch(r"1\d{3}", row[0])}
    assert documented == {close.code for close in vars(errors).values() if isinstance(close, errors.Close)}


def test_the_protocol_names_every_error_that_the_code_answers() -> None:
    answered = set()
    for path in Path(messagebus.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                place = {"HTTPRefusal": 1, "CommandError": 0}.get(node.func.id)
                if place is not None and isinstance(code := node.args[place], ast.Constant):
                    answered.add(str(code.value))
    assert answered
    assert not {code for code in answered if f"`{code}`" not in PROTOCOL}


def test_the_design_names_every_module() -> None:
    package = Path(messagebus.__file__).parent
    design = (ROOT / "docs" / "design.md").read_text()
    documented = {row[0].strip("`") for row in rows(design[design.index("## The modules") :])} - {"module"}
    directories = {path.parent.name for path in package.glob("*/__init__.py")}
    assert documented == ({path.stem for path in package.glob("*.py")} | directories) - {"__main__"}


def test_the_clients_settings_are_documented_with_their_defaults() -> None:
    source = (CLIENT.parent / "src" / "settings.js").read_text()
    (settings,) = re.findall(r"const SETTINGS = \{(.*?)\n\};", source, re.DOTALL)
    names = re.findall(r"(\w+):", settings)
    program = (
        f"import {{ createMessageBus }} from {json.dumps(CLIENT.as_uri())};"
        "console.log(JSON.stringify(createMessageBus()));"
    )
    node = ["node", "--input-type=module", "--eval", program]
    defaults = json.loads(subprocess.run(node, capture_output=True, text=True, timeout=60, check=True).stdout)
    documented = {row[0].strip("`"): row[1].strip("`") for row in rows(JAVASCRIPT) if len(row) == 3}
    in_words = {"transports": "all five", "clientId": "random"}
    for name in names:
        assert documented.get(name) == in_words.get(name, json.dumps(defaults[name])), name


def members(interface: str) -> list[str]:
    """The names that an interface of the client's types has, without those of the interfaces that it extends."""
    types = (CLIENT.parent / "messagebus.d.ts").read_text()
    (body,) = re.findall(rf"export interface {interface}\b[^{{]*\{{\n(.*?)^\}}", types, re.MULTILINE | re.DOTALL)
    code = re.sub(r"/\*.*?\*/", "", body, flags=re.DOTALL)
    return re.findall(r"^  (?:readonly )?(\w+)[?]?(?:<[^(]*>)?[:(]", code, re.MULTILINE)


@pytest.mark.parametrize("interface", ["MessageBus", "Settings", "StateInfo", "Gap", "Refusal", "Subscription"])
def test_the_page_on_javascript_names_every_member_of_its_types(interface: str) -> None:
    in_code = " ".join(re.findall(r"`[^`]+`|^```js.*?^```", JAVASCRIPT, re.MULTILINE | re.DOTALL))
    found = members(interface)
    assert found
    assert not [name for name in found if not re.search(rf"\b{name}\b", in_code)]


def test_the_page_on_postgresql_names_every_table_column_and_function() -> None:
    sql = (Path(messagebus.__file__).parent / "stores" / "postgres.sql").read_text()
    page = (ROOT / "docs" / "postgresql.md").read_text()
    named = re.findall(r"^CREATE OR REPLACE FUNCTION (\w+?)_\d+\(", sql, re.MULTILINE)
    for table, columns in re.findall(r"^CREATE TABLE IF NOT EXISTS (\w+) \((.*?)^\)", sql, re.MULTILINE | re.DOTALL):
        named += [table, *re.findall(r"^  ([a-z_]+) ", columns, re.MULTILINE)]
    assert len(named) > 20
    assert not [name for name in named if f"`{name}`" not in page]
