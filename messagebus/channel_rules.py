"""What holds for the channels of a pattern in place of the options for all. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from .option_kinds import Flag, Key, Kind, Number, check_pattern, matches, overlaps
from .templates import compile_template

_LONGEST = 100 * 365 * 86_400
_NUMBERS = {"max_backlog_size": Number(1), "max_backlog_age": Number(1, _LONGEST), "max_message_size": Number(1)}
_SUBSCRIBERS = ("anyone", "signed-in", "granted", "nobody")
_BACKLOG = ("max_backlog_size", "max_backlog_age")


class ChannelRule(NamedTuple):
    """What holds for the channels that ``pattern`` matches; ``None``: what holds for all."""

    pattern: str
    max_backlog_size: int | None = None
    max_backlog_age: int | None = None
    """Seconds."""
    max_message_size: int | None = None
    """Bytes of JSON."""
    subscribe: str = "anyone"
    """``"signed-in"``: clients with a user id, or with a grant. ``"granted"``: those with a grant, or whom an
    ``authorize`` hook lets in. ``"nobody"``: no client may; Python subscribers get the messages all the same."""
    publish: str | tuple[str, ...] | None = None
    """Who may from outside, over HTTP or WebSocket: ``"anyone"``, ``"nobody"``, or the programs that show one of the
    ``publisher_keys`` with these names. ``None``: as the keys and ``client_publish`` say."""
    stored: bool = True
    """``False``: for those who are there alone. The store has a message for ``TRANSIT_SECONDS``, for connections that
    break and come back."""
    template: str | None = None
    """The form of its messages for plain subscribers that name no format, see :mod:`messagebus.templates`."""


TRANSIT_SECONDS = 60
"""Seconds without a publish after which the store has nothing left of a channel that is not stored."""


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


def check_key_names(rules: Sequence[ChannelRule], keys: Sequence[Key]) -> None:
    """Where there are keys, all that rules name have to be among them.

    Raises:
        RuleError: There is none of that name.
    """
    known = {key.name for key in keys}
    for rule in rules:
        names = rule.publish if keys and isinstance(rule.publish, tuple) else ()
        for name in names:
            if name not in known:
                raise RuleError(rule.pattern, "publish", f"none of publisher_keys has the name {name!r:.80}")


def strictest(rules: Sequence[ChannelRule], channel: str) -> str:
    """Who may subscribe to a channel; to a pattern: who may to each channel that it matches."""
    found = "anyone"
    for rule in rules:
        if overlaps(rule.pattern, channel):
            found = max(found, rule.subscribe, key=_SUBSCRIBERS.index)
            if matches(rule.pattern, channel):  # the rules behind it count for none of them
                break
    return found


def is_stored(rules: Sequence[ChannelRule], channel: str) -> bool:
    """Whether a channel has a backlog."""
    rule = find_rule(rules, channel)
    return rule is None or rule.stored


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
        try:
            _CHECKS[key](value)
        except ValueError as error:
            raise RuleError(pattern, key, str(error)) from None
    beside = [key for key in _BACKLOG if key in given]
    if beside and given.get("stored") is False:
        raise RuleError(pattern, beside[0], "a channel that is not stored has no backlog")
    publish = given.get("publish")
    return ChannelRule(pattern, **{**given, "publish": tuple(publish) if isinstance(publish, list) else publish})


def _check_subscribe(value: object) -> None:
    if value not in _SUBSCRIBERS:
        raise ValueError(f"expected one of {', '.join(_SUBSCRIBERS)}, not {value!r:.80}")


def _check_publish(value: object) -> None:
    if value in ("anyone", "nobody"):
        return
    if not isinstance(value, (list, tuple)) or not value or not all(isinstance(name, str) for name in value):
        raise ValueError(f'expected "anyone", "nobody", or a list of names of publisher_keys, not {value!r:.80}')


def _check_template(value: object) -> None:
    if not isinstance(value, str):
        raise ValueError(f"expected a string, not {value!r:.80}")
    compile_template(value)


_CHECKS: dict[str, Callable[[object], object]] = {
    **{key: kind.check for key, kind in _NUMBERS.items()},
    "subscribe": _check_subscribe,
    "publish": _check_publish,
    "stored": Flag().check,
    "template": _check_template,
}
