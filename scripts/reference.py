"""Writes the parts of the documentation that the code knows better: ``make reference`` after a change of an option, of
the command or of an example.

What is written stands between two comments in a page; the rest of the page is kept by hand.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click

from messagebus import options
from messagebus.command.cli import main as command

DOCS = Path(__file__).resolve().parent.parent / "docs"
PART = re.compile(r"(<!-- begin: (\w+)(?: (\S+))? -->\n).*?(<!-- end -->\n)", re.DOTALL)
LANGUAGES = {".py": "python", ".js": "js", ".html": "html", ".ini": "ini", ".service": "ini"}


def option_table() -> str:
    """Every option: its name, its type, its default and its docstring, in the order and the groups of the class."""
    lines = ["| option | default | type | meaning |", "| --- | --- | --- | --- |"]
    for row in _option_rows():
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |")
    return "\n".join(lines) + "\n"


def _option_rows() -> Iterator[tuple[str, str, str, str]]:
    source = inspect.getsource(options.Options)
    (definition,) = ast.parse(source).body
    assert isinstance(definition, ast.ClassDef)
    fields = {field.name: field for field in dataclasses.fields(options.Options)}
    groups = {
        number: match[1]
        for number, line in enumerate(source.splitlines(), 1)
        if (match := re.match(r" +# --- (.*) ---", line))
    }
    for statement, following in zip(definition.body, definition.body[1:], strict=False):
        if not (isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name)):
            continue
        for number in [number for number in groups if number < statement.lineno]:
            title = groups.pop(number).partition(";")[0]
            yield f"**{title[0].upper()}{title[1:]}**", "", "", ""
        assert isinstance(following, ast.Expr)
        assert isinstance(following.value, ast.Constant), statement.target.id
        name = statement.target.id
        text = " ".join(str(following.value.value).split()).replace("``", "`")
        yield f"`{name}`", f"`{fields[name].default!r}`", f"`{ast.unparse(statement.annotation)}`", text


def command_help() -> str:
    """What ``--help`` says, of the command and of each of its commands."""
    parts = []
    for name in ["", *sorted(command.commands)]:
        each = command.load(name) if name else command
        path = f"messagebus {name}".strip()
        context = click.Context(each, info_name=path, terminal_width=100, max_content_width=100)
        parts.append(f"### {path}\n\n```text\n{each.get_help(context)}\n```\n")
    return "\n".join(parts)


def file_of_an_example(name: str) -> str:
    """A file of the repository, as a block of code."""
    path = DOCS.parent / name
    return f"```{LANGUAGES[path.suffix]}\n{path.read_text().strip()}\n```\n"


PARTS: dict[str, Callable[..., str]] = {"file": file_of_an_example, "options": option_table, "command": command_help}


def written(page: str) -> str:
    """A page with its generated parts as the code has them now."""

    def write(match: re.Match[str]) -> str:
        begin, name, argument, end = match.groups()
        return f"{begin}\n{PARTS[name](*filter(None, [argument]))}\n{end}"

    return PART.sub(write, page)


def main() -> None:
    for path in sorted(DOCS.rglob("*.md")):
        before = path.read_text()
        after = written(before)
        if after != before:
            path.write_text(after)
            sys.stdout.write(f"{path.relative_to(DOCS.parent)} written\n")


if __name__ == "__main__":
    main()
