"""Whatever a URL of a store holds, what is shown of it is no secret."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from messagebus import Bus
from messagebus.urls import redact


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("memory://", "memory://"),
        ("redis://127.0.0.1:6379/0", "redis://127.0.0.1:6379/0"),
        ("redis://:s3cret@h/0", "redis://***@h/0"),
        ("redis://user@h", "redis://***@h"),
        ("redis://u:p%40ss%2Fword@h/0", "redis://***@h/0"),
        ("rediss://[::1]:6379/0?password=s3cret&username=u", "rediss://[::1]:6379/0?***"),
        ("unix://?db=0&password=s3cret", "unix://?***"),
        ("unix:///run/redis.sock?password=s3cret", "unix:///run/redis.sock?***"),
        ("unix://:s3cret@/run/redis.sock", "unix://***@/run/redis.sock"),
        ("postgresql://h/db?user=u&password=s3cret", "postgresql://h/db?***"),
        ("postgresql://u:a%3As3cret@h1:5432,h2:5433/db", "postgresql://***@h1:5432,h2:5433/db"),
        # Passwords that were not encoded: nothing of what may be one.
        ("redis://:s3/cret@h/0", "redis://***"),
        ("redis://:s3?cret@h/0", "redis://***"),
        ("redis://:s3#cret@h/0", "redis://***"),
        ("redis://u:12/s3cret@h/0", "redis://***"),
        ("redis://u:12?s3cret@h/0", "redis://***"),
        ("redis://h/0?password=a@s3cret", "redis://***"),
        ("redis://h/0#s3cret", "redis://***"),
        ("redis:s3cret", "***"),
        ("s3cret", "***"),
        ("", "***"),
    ],
)
def test_only_what_is_no_secret_is_shown(url: str, shown: str) -> None:
    assert redact(url) == shown


secrets = st.text(min_size=1).map(lambda text: f"S3{text}CRET")


@given(secrets, st.sampled_from(["redis", "rediss", "unix", "postgresql", "postgres", "mysql"]))
def test_no_secret_is_shown_wherever_it_stands(secret: str, scheme: str) -> None:
    for url in (
        f"{scheme}://:{secret}@host:1/0",
        f"{scheme}://{secret}@host/0",
        f"{scheme}://{secret}:x@host/0",
        f"{scheme}://host/0?password={secret}",
        f"{scheme}://host/0?a=b&x={secret}#y",
    ):
        assert "S3" not in redact(url)
        assert "CRET" not in redact(url)


@pytest.mark.parametrize(
    "url",
    [
        "unix://?db=x&password=s3cret",
        "redis://:s3/cret@127.0.0.1/0",
        "redis://:s3?cret@127.0.0.1:1/0",
        "redis://127.0.0.1:1/0?password=s3cret&misspelt=1",
        "redis://127.0.0.1:1/0?password=s3cret&username=u",
        "redis://:s3%40cret@127.0.0.1:1/0",
        "postgresql://u:s3/cret@127.0.0.1:1/db",
        "postgresql://127.0.0.1:1/db?user=u&password=s3cret",
        "postgresql://127.0.0.1:1/db?password=s3cret&misspelt=1",
        "mysql://u:s3cret@h/db",
    ],
)
def test_no_error_or_representation_has_the_password(url: str, caplog: pytest.LogCaptureFixture) -> None:
    said = []
    try:
        bus = Bus(url=url, store_timeout=0.5)
        said += [repr(bus.options), repr(bus), str(vars(bus).get("_options"))]
        bus.last_id("/a")
    except Exception as error:
        said += [str(error), repr(error), str(error.__cause__), str(error.__context__ if error.__cause__ else "")]
    assert said
    for text in (*said, caplog.text):
        assert "cret" not in text


def test_an_address_that_cannot_be_told_from_a_password_is_not_shown() -> None:
    from messagebus.stores.postgres_connection import describe

    assert describe("postgresql://u:s3/cret@h/db") == "the given URL"
    assert describe("postgresql://u:p@h:5432/db") == "h:5432 database db"
