"""What a client is made with: addresses, headers and settings, good and bad."""

from __future__ import annotations

import dataclasses
import inspect
import re
import ssl
from pathlib import Path
from typing import Any

import pytest

from messagebus import Client
from messagebus.client.settings import Address, Settings, parse_url


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("http://localhost:8000", Address(False, "localhost", 8000, "/message-bus/")),
        ("http://localhost:8000/", Address(False, "localhost", 8000, "/message-bus/")),
        ("https://example.com/app", Address(True, "example.com", 443, "/app/message-bus/")),
        ("https://example.com/app/message-bus", Address(True, "example.com", 443, "/app/message-bus/")),
        ("http://example.com/message-bus/", Address(False, "example.com", 80, "/message-bus/")),
        ("HTTP://[::1]:81/a b".replace(" ", "%20"), Address(False, "::1", 81, "/a%20b/message-bus/")),
        ("http://müller.example/ä", Address(False, "xn--mller-kva.example", 80, "/%C3%A4/message-bus/")),
    ],
)
def test_an_address_is_the_apps_with_or_without_the_path_of_the_bus(url: str, address: Address) -> None:
    assert parse_url(url) == address


@pytest.mark.parametrize(
    ("url", "authority"),
    [("http://a", "a"), ("http://a:443", "a:443"), ("https://a:443", "a"), ("http://[::1]:81", "[::1]:81")],
)
def test_the_host_is_named_without_the_port_that_goes_without_saying(url: str, authority: str) -> None:
    assert parse_url(url).authority == authority


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:8000",
        "ftp://localhost",
        "ws://localhost",
        "http://",
        "http://:80",
        "http://a:port",
        "http://a:99999",
        "http://a:0",
        "http://a/?x",
        "http://a/#x",
        "http://a/ b",
        "http://a/\r\nX: y",
        "http://[::1",
        None,
        b"http://a",
    ],
)
def test_an_address_that_is_none_is_refused_when_the_client_is_made(url: Any) -> None:
    with pytest.raises(ValueError, match="option url"):
        Client(url)


def test_a_password_in_the_address_is_refused_and_not_shown() -> None:
    with pytest.raises(ValueError, match="Authorization") as refused:
        Client("http://me:secret@localhost")
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    "headers",
    [
        {"X-A": "a\r\nX-B: b"},
        {"X A": "a"},
        {"": "a"},
        {"X-A": 5},
        {"X-A": "€"},
        {"Host": "a"},
        {"content-length": "5"},
        {"Sec-WebSocket-Key": "a"},
        {5: "a"},
    ],
)
def test_headers_that_cannot_be_sent_are_refused_without_showing_their_value(headers: Any) -> None:
    with pytest.raises(ValueError, match="option headers"):
        Client("http://localhost", headers=headers)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("transports", ()),
        ("transports", ("websocket", "pigeons")),
        ("transports", "websocket"),
        ("callback_interval", 0),
        ("callback_interval", float("nan")),
        ("min_poll_interval", "1"),
        ("heartbeat_timeout", -1),
        ("heartbeat_timeout", True),
        ("retry_chunked_after_requests", 1.5),
        ("enable_long_polling", 1),
        ("client_id", "a/b"),
        ("client_id", ""),
    ],
)
def test_a_setting_out_of_range_is_refused_by_its_name(name: str, value: Any) -> None:
    settings: dict[str, Any] = {name: value}
    with pytest.raises(ValueError, match=f"option {name}"):
        Client("http://localhost", **settings)


def test_certificates_are_verified_unless_the_program_says_otherwise() -> None:
    context = Client("https://localhost")._endpoint.context
    assert context is not None
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert Client("http://localhost")._endpoint.context is None


def test_each_client_has_an_id_of_its_own() -> None:
    first, second = Client("http://localhost"), Client("http://localhost")
    assert first.client_id != second.client_id
    assert len(first.client_id) == 32


def test_the_documentation_names_every_setting_with_its_default() -> None:
    page = (Path(__file__).parent.parent / "docs" / "python-client.md").read_text()
    _, _, section = page.partition("## Settings")
    documented = dict(re.findall(r"^\| `(\w+)` \| (.+?) \|", section, re.MULTILINE))
    assert documented.pop("transports") == "all five"
    expected = {field.name: f"`{field.default!r}`" for field in dataclasses.fields(Settings)}
    del expected["transports"]
    assert documented == expected


def test_a_client_takes_every_setting_with_its_default() -> None:
    parameters = inspect.signature(Client).parameters
    for field in dataclasses.fields(Settings):
        assert parameters[field.name].default == field.default, field.name
        assert parameters[field.name].kind is inspect.Parameter.KEYWORD_ONLY
