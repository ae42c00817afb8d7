"""The settings: where they come from, and what they may be."""

from __future__ import annotations

import collections.abc
import dataclasses
import re
import sys
import typing
from typing import Any

import pytest

from messagebus import Bus, InvalidOption, Options
from messagebus.option_values import OptionValues
from messagebus.options import from_config, from_environment, from_values

DEFAULTS = Options()
NUMBERS = [field.name for field in dataclasses.fields(Options) if str(field.type) in ("int", "float")]


def test_every_option_says_what_it_means_in_the_source() -> None:
    import inspect

    source = inspect.getsource(Options)
    for field in dataclasses.fields(Options):
        assert re.search(rf'^    {field.name}: .*\n    """', source, re.MULTILINE), field.name


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", [-1, "5", None, True, float("nan"), float("inf")])
def test_a_number_is_a_number_in_its_range(name: str, value: object) -> None:
    with pytest.raises(InvalidOption) as refused:
        Options(**{name: value})  # type: ignore[arg-type]
    assert refused.value.option == name


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("long_polling_enabled", 1),
        ("long_polling_enabled", "yes"),
        ("allowed_origins", "https://example.com"),
        ("allowed_origins", (1,)),
        ("client_publish", ["/a"]),
        ("user_id_lookup", "not a function"),
        ("url", None),
        ("url", 5),
        ("url", "mysql://x"),
        ("url", "nonsense"),
        ("redis_pubsub_channel", 5),
        ("max_channels", 1.5),
    ],
)
def test_a_value_of_the_wrong_type_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(InvalidOption) as refused:
        Options(**{name: value})  # type: ignore[arg-type]
    assert refused.value.option == name


def test_a_url_that_is_refused_does_not_show_its_password() -> None:
    with pytest.raises(InvalidOption) as refused:
        Options(url="mysql://user:secret@host")
    assert "secret" not in str(refused.value)
    assert "secret" not in repr(Options(url="redis://:secret@host"))


def test_a_program_may_give_lists_and_no_unknown_names() -> None:
    assert from_values({"allowed_origins": ["https://a", "https://b"]}) == {
        "allowed_origins": ("https://a", "https://b")
    }
    with pytest.raises(InvalidOption) as refused:
        from_values({"max_chanels": 5})
    assert refused.value.option == "max_chanels"


def test_a_flask_config_gives_what_has_the_prefix() -> None:
    config = {"MESSAGEBUS_MAX_CHANNELS": 7, "MESSAGEBUS_URL": "memory://", "DEBUG": True, "messagebus_x": 1}
    assert from_config(config) == {"max_channels": 7, "url": "memory://"}
    with pytest.raises(InvalidOption):
        from_config({"MESSAGEBUS_MAX_CHANELS": 7})


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("MAX_CHANNELS", "7", 7),
        ("LONG_POLLING_INTERVAL", "0.5", 0.5),
        ("LONG_POLLING_INTERVAL", "30", 30.0),
        ("LONG_POLLING_ENABLED", "false", False),
        ("LONG_POLLING_ENABLED", "No", False),
        ("LONG_POLLING_ENABLED", "0", False),
        ("LONG_POLLING_ENABLED", "TRUE", True),
        ("LONG_POLLING_ENABLED", "on", True),
        ("ALLOWED_ORIGINS", "https://a, https://b ,", ("https://a", "https://b")),
        ("URL", "redis://x", "redis://x"),
        ("REDIS_PUBSUB_CHANNEL", "c", "c"),
    ],
)
def test_the_environment_is_text(name: str, text: str, expected: object) -> None:
    assert from_environment({f"MESSAGEBUS_{name}": text}) == {name.lower(): expected}


@pytest.mark.parametrize(
    ("name", "text"), [("MAX_CHANNELS", "x"), ("MAX_CHANNELS", "1.5"), ("LONG_POLLING_ENABLED", "maybe")]
)
def test_text_that_is_no_such_value_is_refused_by_name(name: str, text: str) -> None:
    with pytest.raises(InvalidOption) as refused:
        from_environment({f"MESSAGEBUS_{name}": text})
    assert refused.value.option == name.lower()


def test_unknown_and_empty_variables_are_left_to_others() -> None:
    assert from_environment({"MESSAGEBUS_NOTHING": "x", "MESSAGEBUS_URL": "", "PATH": "x"}) == {}


def test_redis_url_is_the_last_resort() -> None:
    assert from_environment({"REDIS_URL": "redis://a"}) == {"url": "redis://a"}
    assert from_environment({"REDIS_URL": "redis://a", "MESSAGEBUS_URL": "redis://b"}) == {"url": "redis://b"}


def test_the_program_comes_before_the_app_and_that_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("MAX_CHANNELS", "1"), ("MAX_OUTBOX", "1"), ("MAX_COMMANDS", "1")):
        monkeypatch.setenv(f"MESSAGEBUS_{name}", value)
    bus = Bus()
    bus.configure_app({"MESSAGEBUS_MAX_OUTBOX": 2, "MESSAGEBUS_MAX_CHANNELS": 2})
    bus.configure(max_channels=3)
    found: dict[str, Any] = dataclasses.asdict(bus.options)
    assert (found["max_channels"], found["max_outbox"], found["max_commands"]) == (3, 2, 1)
    assert found["max_frame_size"] == DEFAULTS.max_frame_size


def test_a_mistake_changes_nothing() -> None:
    bus = Bus(max_channels=5)
    with pytest.raises(InvalidOption):
        bus.configure(max_channels=6, max_outbox=-1)
    assert bus.options.max_channels == 5


# --- each kind of option ---


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_backlog_age", 86400.0),
        ("max_backlog_age", sys.maxsize),
        ("max_backlog_size", 10**10),
        ("max_backlog_size", True),
        ("store_timeout", float("nan")),
        ("store_timeout", float("inf")),
        ("store_timeout", 10**6),
        ("protected_channels", ("private/*",)),
        ("protected_channels", ("/private/**",)),
        ("protected_channels", ("/private/*/secret",)),
        ("client_publish", ("*",)),
        ("client_publish", ("",)),
        ("allowed_origins", ("https://example.com/path",)),
        ("allowed_origins", ("example.com",)),
        ("secret_key_fallbacks", ("",)),
    ],
)
def test_a_value_that_would_not_do_what_it_says_is_refused(name: str, value: Any) -> None:
    with pytest.raises(InvalidOption, match=r"expected|a channel starts|stands at the end") as failed:
        Options(**{name: value})
    assert failed.value.option == name


@pytest.mark.parametrize(
    "origin",
    [
        "https://example.com",
        "http://localhost:5000",
        "https://*.example.com",
        "*",
        "null",
        "app://x",
        "http://[::1]:80",
    ],
)
def test_an_origin_is_allowed_by_its_name(origin: str) -> None:
    assert Options(allowed_origins=(origin,)).allowed_origins == (origin,)


def test_secrets_do_not_show_in_errors() -> None:
    with pytest.raises(InvalidOption) as failed:
        Options(secret_key_fallbacks=["hunter2"])  # type: ignore[arg-type]
    assert "hunter2" not in str(failed.value)


def test_the_secrets_of_before_come_from_the_apps_config() -> None:
    found = from_config({"SECRET_KEY": "new", "SECRET_KEY_FALLBACKS": ["old", b"older"]})
    assert found == {"secret_key": "new", "secret_key_fallbacks": ("old", "older")}


def test_type_checkers_know_every_option() -> None:
    expected = typing.get_type_hints(Options)
    known = typing.get_type_hints(OptionValues)
    assert list(known) == list(expected)
    for name, hint in known.items():
        # Rules are kept in another form than they are given in.
        if typing.get_origin(hint) is not collections.abc.Sequence and name != "channels":
            assert hint == expected[name], name


def test_a_type_checker_sees_a_typo() -> None:
    # mypy says so where these comments are not needed.
    with pytest.raises(InvalidOption, match="do you mean max_backlog_size"):
        Bus(max_backlog_sise=1)  # type: ignore[call-arg]
    with pytest.raises(InvalidOption, match="expected an integer"):
        Bus(max_backlog_size="1000")  # type: ignore[arg-type]
