"""Kinds of options: how a value is checked, and how it is read from an environment variable."""

from __future__ import annotations

import json
import operator
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, SupportsIndex

from .errors import InvalidChannel
from .names import check_channel
from .templates import check_templates

_PATH = re.compile(r"(/[A-Za-z0-9_.~-]+)+")
LARGEST = 2**31 - 1
"""Of every number: what all stores and systems can count with."""


class Kind(ABC):
    """Both methods raise ValueError, which says what was expected."""

    from_text = True
    """Whether an environment variable can hold it."""

    @abstractmethod
    def check(self, value: object) -> Any:
        """The value as it is kept."""

    def parse(self, text: str) -> Any:
        return text


class Flag(Kind):
    def check(self, value: object) -> Any:
        if not isinstance(value, bool):
            raise ValueError(f"expected True or False, not {value!r}")
        return value

    def parse(self, text: str) -> bool:
        if text.lower() in ("1", "true", "yes", "on"):
            return True
        if text.lower() in ("0", "false", "no", "off"):
            return False
        raise ValueError(f"expected true or false, not {text!r}")


@dataclass(frozen=True)
class Number(Kind):
    least: float
    most: float = LARGEST
    whole: bool = True

    def check(self, value: object) -> Any:
        number = self._number(value)
        if not self.least <= number <= self.most:  # what is not a number is not, either
            raise ValueError(f"expected at least {self.least:g} and at most {self.most}, not {value!r}")
        return number

    def _number(self, value: object) -> float:
        """Integers of other libraries (numpy) will do."""
        if not isinstance(value, bool):
            if isinstance(value, SupportsIndex):
                return operator.index(value)
            if isinstance(value, float) and not self.whole:
                return value
        expected = "an integer" if self.whole else "a number"
        raise ValueError(f"expected {expected}, not {value!r:.80} ({type(value).__name__})")

    def parse(self, text: str) -> float:
        try:
            return int(text) if self.whole else float(text)
        except ValueError:
            raise ValueError(f"expected a number, not {text!r}") from None


@dataclass(frozen=True)
class Text(Kind):
    optional: bool = False

    def check(self, value: object) -> Any:
        if not isinstance(value, str) and not (value is None and self.optional):
            # Without the value, which may be a secret.
            raise ValueError(f"expected a string, not one of type {type(value).__name__}")
        return value


class Path(Kind):
    """Of a URL: ``/``, and segments of letters, digits or any of ``_ . ~ -``."""

    def check(self, value: object) -> Any:
        if not isinstance(value, str) or not _PATH.fullmatch(value):
            raise ValueError(f"expected a path such as /cable, not {_shown(value)}")
        return value


@dataclass(frozen=True)
class OneOf(Kind):
    """One of a few words."""

    words: tuple[str, ...]

    def check(self, value: object) -> Any:
        if value not in self.words:
            raise ValueError(f"expected one of {', '.join(self.words)}, not {value!r:.80}")
        return value


class Texts(Kind):
    """A tuple of strings; in a variable they are separated by commas."""

    def check(self, value: object) -> Any:
        if not isinstance(value, tuple) or not all(isinstance(item, str) for item in value):
            raise ValueError(f"expected a tuple of strings, not {_shown(value)}")
        return value

    def parse(self, text: str) -> tuple[str, ...]:
        return tuple(item.strip() for item in text.split(",") if item.strip())


class Secrets(Texts):
    """Strings that are not shown."""

    def check(self, value: object) -> Any:
        if not isinstance(value, tuple) or not all(isinstance(item, str) and item for item in value):
            raise ValueError("expected a tuple of strings that are not empty")
        return value


class AdminKeys(Secrets):
    """Keys that are not for channels."""

    def check(self, value: object) -> Any:
        if not isinstance(value, tuple) or not all(isinstance(key, str) and _KEY.fullmatch(key) for key in value):
            raise ValueError(f"expected a tuple of keys; {_WHAT_A_KEY_IS}")
        return value


class Key(NamedTuple):
    """A secret that a program shows, and the channels that it is for."""

    key: str
    channels: tuple[str, ...] = ("/*",)
    """Names, or prefixes that end in ``*``."""
    name: str | None = None
    """What rules of channels call it."""


class Keys(Texts):
    """Keys: strings, which are for all channels, or mappings of ``key``, ``channels`` and ``name``. They are not
    shown."""

    def check(self, value: object) -> Any:
        if not isinstance(value, tuple):
            raise ValueError("expected a tuple of keys")
        keys = tuple(self._check_one(each) for each in value)
        if len({key.name for key in keys if key.name}) < len([key for key in keys if key.name]):
            raise ValueError("two keys have the same name")
        return keys

    def _check_one(self, value: object) -> Key:
        if isinstance(value, Key):
            value = value._asdict()
        if isinstance(value, str):
            value = {"key": value}
        if not isinstance(value, Mapping) or not {"key"} <= value.keys() <= {"key", "channels", "name"}:
            raise ValueError('expected each key as a string, or as {"key": ..., "channels": [...], "name": ...}')
        key, channels, name = value["key"], value.get("channels", ("/*",)), value.get("name")
        if not isinstance(key, str) or not _KEY.fullmatch(key):
            raise ValueError(_WHAT_A_KEY_IS)
        if not isinstance(channels, (list, tuple)) or not channels:
            raise ValueError("the channels of a key are a list of names or prefixes that end in '*', at least one")
        if not all(isinstance(pattern, str) for pattern in channels):
            raise ValueError("the channels of a key are strings")
        if name is not None and not (isinstance(name, str) and 0 < len(name) <= 64):
            raise ValueError("the name of a key is a string of 1 to 64 characters")
        return Key(key, tuple(map(check_pattern, channels)), name)


_KEY = re.compile("[!-~]{16,256}")
_WHAT_A_KEY_IS = "a key is 16 to 256 visible ASCII characters, such as secrets.token_urlsafe() makes"


class Patterns(Texts):
    """Channels, or prefixes that end in ``*``. A pattern that matches no channel would protect nothing."""

    def check(self, value: object) -> Any:
        for pattern in super().check(value):
            check_pattern(pattern)
        return value


class Wildcards(Patterns):
    """Patterns that end in ``*``."""

    def check(self, value: object) -> Any:
        for pattern in super().check(value):
            if not pattern.endswith("*"):
                raise ValueError(f"expected patterns that end in '*', not {pattern!r:.80}")
        return value


class Origins(Texts):
    def check(self, value: object) -> Any:
        if not isinstance(value, tuple) or not all(isinstance(item, (str, re.Pattern)) for item in value):
            raise ValueError(f"expected a tuple of strings and regular expressions, not {_shown(value)}")
        for origin in value:
            if isinstance(origin, str) and origin != "*" and not _ORIGIN.fullmatch(origin):
                raise ValueError(f"expected origins such as https://example.com, without a path, not {origin!r}")
        return value


_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/?#@\s*]*(\*\.[^/?#@\s*]+)?[^/?#@\s*]*|null", re.IGNORECASE)


class Function(Kind):
    from_text = False

    def check(self, value: object) -> Any:
        if value is not None and not callable(value):
            raise ValueError(f"expected a function or None, not {value!r}")
        return value


class Templates(Kind):
    """Names and templates; in a variable they are a JSON object. ``None``: none."""

    def check(self, value: object) -> Any:
        return None if value is None else check_templates(value)

    def parse(self, text: str) -> Any:
        try:
            return json.loads(text)
        except ValueError:
            raise ValueError("expected a JSON object of names and templates") from None


class Coding(Kind):
    from_text = False

    def check(self, value: object) -> Any:
        if value is not None and not (hasattr(value, "encode") and hasattr(value, "decode")):
            raise ValueError(f"expected an object with encode and decode, or None, not {value!r}")
        return value


def check_pattern(pattern: str) -> str:
    """Check a channel's name, or a prefix that ends in ``*``, and return it.

    Raises:
        InvalidChannel: The pattern is neither. (It is a ValueError.)
    """
    check_channel(pattern)
    if "*" in pattern[:-1]:
        raise InvalidChannel(pattern, "'*' stands at the end only, for channels that begin with what is before it")
    return pattern


def matches(pattern: str, channel: str) -> bool:
    """Whether a pattern, a channel's name or a prefix that ends in ``*``, matches a channel."""
    return channel.startswith(pattern[:-1]) if pattern.endswith("*") else channel == pattern


def overlaps(pattern: str, channel: str) -> bool:
    """Whether there is a channel that both match; the second may be a pattern as well."""
    if not channel.endswith("*"):
        return matches(pattern, channel)
    prefix = channel[:-1]
    return (
        matches(pattern, prefix)
        if pattern.endswith("*") and len(pattern) <= len(channel)
        else (pattern.removesuffix("*").startswith(prefix))
    )


def _shown(value: object) -> str:
    return f"{value!r:.100}"
