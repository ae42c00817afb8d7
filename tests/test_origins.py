"""Which pages may connect."""

from __future__ import annotations

import re

import pytest

from messagebus.http.origins import is_allowed, is_same


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("http://example.com", "example.com"),
        ("https://example.com", "example.com"),
        ("https://example.com", "example.com:443"),
        ("http://example.com:80", "example.com"),
        ("http://localhost:8000", "localhost:8000"),
        ("http://EXAMPLE.com", "example.com"),
        ("http://[::1]:8000", "[::1]:8000"),
    ],
)
def test_a_page_of_the_same_host_and_port_is_the_same_origin(origin: str, host: str) -> None:
    assert is_same(origin, host)


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("http://example.com", "example.org"),
        ("http://example.com:8001", "example.com:8000"),
        ("http://example.com", "example.com:8000"),
        ("http://evil.example.com", "example.com"),
        ("http://example.com.evil.net", "example.com"),
        ("null", "example.com"),
        ("", ""),
        ("http://", ""),
        ("http://example.com:x", "example.com"),
        ("http://example.com", "example.com:x"),
        ("http://[", "["),
    ],
)
def test_any_other_page_is_not(origin: str, host: str) -> None:
    assert not is_same(origin, host)


ENTRIES = ("https://example.com", "https://*.example.org", re.compile(r"https://pr-[0-9]+\.example\.net"))


@pytest.mark.parametrize(
    "origin",
    ["https://example.com", "https://a.example.org", "https://a.b.example.org", "https://pr-7.example.net"],
)
def test_an_entry_is_an_origin_a_wildcard_or_an_expression(origin: str) -> None:
    assert is_allowed(origin, ENTRIES)


@pytest.mark.parametrize(
    "origin",
    [
        "http://example.com",
        "https://example.com:444",
        "https://example.com.evil.net",
        "https://example.org",
        "http://a.example.org",
        "https://evilexample.org",
        "https://pr-7.example.net.evil.com",
        "https://pr-x.example.net",
        "null",
    ],
)
def test_what_only_looks_like_an_entry_is_not_allowed(origin: str) -> None:
    assert not is_allowed(origin, ENTRIES)


def test_a_star_allows_all_and_nothing_allows_none() -> None:
    assert is_allowed("https://anything.example", ("*",))
    assert not is_allowed("https://anything.example", ())
