"""The file of ``messagebus serve --config``: options and channel rules, in TOML."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..channel_rules import ChannelRule, ChannelRules, RuleError, check_key_names
from ..errors import InvalidOption
from ..options import Options, check_option, from_values

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


class ConfigError(Exception):
    """The file cannot be used; the text names the file, and the line where there is one."""


def checked_options(path: Path | None, url: str | None) -> dict[str, Any]:
    """The options in a file, which together with ``--url`` are in order. ``None``: no file.

    Raises:
        ConfigError: The file cannot be used.
        InvalidOption: The URL is wrong, or does not fit the file.
    """
    options = {} if path is None else read_config(path)
    Options(**{**options, **({} if url is None else {"url": url})})
    return options


def read_config(path: Path) -> dict[str, Any]:
    """The options in a file.

    Raises:
        ConfigError: It cannot be read, or has an unknown key or a bad value.
    """
    try:
        text = path.read_text("utf-8")
        found = tomllib.loads(text)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: {error}") from None
    values: dict[str, Any] = {}
    rules: Sequence[ChannelRule] = ()
    try:
        for name, given in found.items():
            values |= from_values({name: given})
            if name == "channels":
                rules = ChannelRules().check(given)
            check_option(name, values[name])
        check_key_names(rules, check_option("publisher_keys", values.get("publisher_keys", ())))
    except RuleError as error:
        line = _line_of_rule(text, str(error.pattern), error.key)
        raise ConfigError(f"{path}, line {line}: channels: {error}") from None
    except InvalidOption as error:
        raise ConfigError(f"{path}, line {_line_of(text, error.option)}: {error}") from None
    return values


def _line_of(text: str, name: str) -> int:
    """The line that sets a key of the file, or opens its table."""
    quoted = re.escape(name)
    return _first(text.splitlines(), rf"""\s*["']?{quoted}["']?\s*[=.]|\s*\[+\s*["']?{quoted}["']?\s*[\].]""")


def _line_of_rule(text: str, pattern: str, key: str | None) -> int:
    lines = text.splitlines()
    table = _first(lines, rf"""(?!\s*#)(.*["'.\s\[])?{re.escape(pattern)}["'\].\s=]""")
    if key is None or re.match(r"\s*\[", lines[table - 1]) is None:
        return table
    # Below the head of its table, as far as the next one.
    rest = lines[table:]
    end = next((number for number, line in enumerate(rest) if re.match(r"\s*\[", line)), len(rest))
    for number, line in enumerate(rest[:end]):
        if re.match(rf"""\s*["']?{re.escape(key)}["']?\s*[=.]""", line):
            return table + number + 1
    return table


def _first(lines: list[str], expression: str) -> int:
    return next((number for number, line in enumerate(lines, 1) if re.match(expression, line)), 1)
