"""What holds for the channels of a pattern in place of the options for all. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from .option_kinds import Kind, Number, check_pattern, matches

_LONGEST = 100 * 365 * 86_400
_NUMBERS = {"max_backlog_size": Number(1), "max_backlog_age": Number(1, _LONGEST), "max_message_size": Number(1)}
_SUBSCRIBERS = ("anyone", "nobody")


class ChannelRule(NamedTuple):
    """What holds for the channels that ``pattern`` matches; ``None``: what holds for all."""

    pattern: str
    max_backlog_size: int | None = None
    max_backlog_age: int | None = None
    """Seconds."""
    max_message_size: int | None = None
    """Bytes of JSON."""
    subscribe: str = "anyone"
    """``"nobody"``: no client may; Python subscribers get the messages all the same."""


class RuleError(ValueError):
    """A rule is malformed; ``key`` is the wrong part of it, ``None`` where that is the pattern."""

    def __init__(self, pattern: object, key: str | None, reason: str) -> None:
        super().__init__(f"{str(pattern)[:100]}: {reason}" if key is None else f"{pattern}: {key}: {reason}")
        self.pattern = pattern
        self.key = key


class ChannelRules(Kind):
    """The option: a mapping of patterns to what holds for them, in the order in which they are tried."""

    from_text = False

    def check(self, value: object) -> Any:
        if isinstance(value, tuple) and all(isinstance(rule, ChannelRule) for rule in value):
            return value
        if not isinstance(value, Mapping):
            raise ValueError('expected patterns and what holds for them, {"/chat/*": {"max_backlog_size": 100}}')
        return tuple(_check_rule(pattern, given) for pattern, given in value.items())


def find_rule(rules: Sequence[ChannelRule], channel: str) -> ChannelRule | None:
    """The first rule whose pattern matches a channel."""
    return next((rule for rule in rules if matches(rule.pattern, channel)), None)


def _check_rule(pattern: object, given: object) -> ChannelRule:
    try:
        if not isinstance(pattern, str):
            raise ValueError("a pattern is a string")
        check_pattern(pattern)
    except ValueError as error:
        raise RuleError(pattern, None, str(error)) from None
    if not isinstance(given, Mapping):
        raise RuleError(pattern, None, "expected a table of what holds for it")
    for key, value in given.items():
        if key not in ChannelRule._fields[1:]:
            raise RuleError(pattern, str(key), f"unknown; expected one of {', '.join(ChannelRule._fields[1:])}")
        if key == "subscribe":
            if value not in _SUBSCRIBERS:
                raise RuleError(pattern, key, f'expected "anyone" or "nobody", not {value!r:.80}')
            continue
        try:
            _NUMBERS[key].check(value)
        except ValueError as error:
            raise RuleError(pattern, key, str(error)) from None
    return ChannelRule(pattern, **given)
