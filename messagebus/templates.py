"""The forms that a server's ``templates`` give to messages for plain subscribers. Pure: values in, text out.

A template is text with ``~id~``, ``~global_id~``, ``~channel~`` and ``~text~`` in it; ``~~`` is a bare ``~``. Values
are escaped for where they stand, which the template's first character tells: JSON (``{``, ``[`` or ``"``), HTML
(``<``), or else plain text.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable
from typing import NamedTuple

FIELDS = ("id", "global_id", "channel", "text")
NUMBERS = ("id", "global_id")
_PIECE = re.compile(r"~([A-Za-z_]*)~")
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}", re.ASCII)
RESERVED = ("data", "json", "raw", "template")
"""Formats that are there without a template."""


class Values(NamedTuple):
    """Of one message. ``text``: a string as it is, anything else as JSON. ``json``: the data as JSON."""

    id: int
    global_id: int
    channel: str
    text: str
    json: str


Write = Callable[[Values], str]


def compile_template(template: str) -> Write:
    """What makes a message's text.

    Raises:
        ValueError: The template is none; the text says why.
    """
    pieces = _PIECE.split(template)
    for name in pieces[1::2]:
        if name and name not in FIELDS:
            raise ValueError(f"~{name}~ is no field; known are {', '.join(f'~{field}~' for field in FIELDS)}")
    first = template.lstrip()[:1]
    if first in ("{", "[", '"'):
        write = _writer(pieces, _json_escapes)
        _check_json(write)
        return write
    return _writer(pieces, _html_escapes if first == "<" else _no_escapes)


def check_templates(templates: object) -> dict[str, str]:
    """A server's templates, by name.

    Raises:
        ValueError: One of them is none.
    """
    if not isinstance(templates, dict) or not all(
        isinstance(name, str) and isinstance(template, str) for name, template in templates.items()
    ):
        raise ValueError("expected a dict of names and templates, both strings")
    for name, template in templates.items():
        if not _NAME.fullmatch(name) or name in RESERVED:
            raise ValueError(
                f"{name!r:.80}: a template's name has 1 to 64 letters, digits, or any of _ . -, and is none of "
                f"{', '.join(RESERVED)}"
            )
        try:
            compile_template(template)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    return dict(templates)


Escapes = Callable[[str, str], Write]
"""The text before a field, from the beginning, and the field's name -> what writes it there."""


def _writer(pieces: list[str], escapes: Escapes) -> Write:
    parts: list[str | Write] = []
    before = ""
    for number, piece in enumerate(pieces):
        if number % 2 == 0 or not piece:
            literal = piece if number % 2 == 0 else "~"
            parts.append(literal)
            before += literal
        else:
            parts.append(escapes(before, piece))

    def write(values: Values) -> str:
        return "".join([part if isinstance(part, str) else part(values) for part in parts])

    return write


def _plain(name: str) -> Write:
    return lambda values: str(getattr(values, name))


def _no_escapes(before: str, name: str) -> Write:
    return _plain(name)


def _json_escapes(before: str, name: str) -> Write:
    plain = _plain(name)
    if _is_in_string(before):
        return lambda values: _quoted(plain(values))[1:-1]
    if name == "text":
        return lambda values: values.json
    return plain if name in NUMBERS else lambda values: _quoted(plain(values))


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _is_in_string(before: str) -> bool:
    return len(re.findall(r'(?<!\\)(?:\\\\)*"', before)) % 2 == 1


def _check_json(write: Write) -> None:
    try:
        json.loads(write(Values(1, 1, "/a", "b", '"b"')))
    except ValueError:
        raise ValueError("it begins like JSON, and is none once its fields are filled in") from None


def _html_escapes(before: str, name: str) -> Write:
    lower = before.lower()
    if any(lower.rfind(f"<{tag}") > lower.rfind(f"</{tag}") for tag in ("script", "style")):
        raise ValueError(f"~{name}~ stands in a script or a style, where nothing makes it safe; use a data- attribute")
    if lower.rfind("<") > lower.rfind(">") and name not in NUMBERS:
        raise ValueError(f"~{name}~ stands in a tag, where ~id~ and ~global_id~ alone are safe")
    plain = _plain(name)
    return lambda values: html.escape(plain(values))
