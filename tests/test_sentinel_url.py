"""URLs of Redis behind sentinels."""

from __future__ import annotations

import pytest

from messagebus.errors import InvalidOption
from messagebus.options import Options
from messagebus.stores import open_store
from messagebus.stores.sentinel_url import read_sentinel_url
from messagebus.urls import redact


def test_the_password_of_the_url_is_for_the_primary_and_sentinels_have_their_own() -> None:
    url = read_sentinel_url("redis+sentinel://u:p%40@a:1,[::1]:2,c/bus/3?sentinel_password=q%26&client_name=x")
    assert url.name == "bus"
    assert url.sentinels == tuple(f"redis://{place}?password=q%26" for place in ("a:1", "[::1]:2", "c:26379"))
    assert url.primary == "redis://u:p%40@/3?client_name=x"


def test_with_tls_the_sentinels_are_asked_with_the_same_certificates_unless_the_url_says_otherwise() -> None:
    tls = "rediss+sentinel://h/bus/0?ssl_ca_certs=/ca.pem"
    assert read_sentinel_url(tls).sentinels == ("rediss://h:26379?ssl_ca_certs=%2Fca.pem",)
    assert read_sentinel_url(tls).primary == "rediss:///0?ssl_ca_certs=%2Fca.pem"
    assert read_sentinel_url(f"{tls}&sentinel_ssl=false").sentinels == ("redis://h:26379",)
    own = f"{tls}&sentinel_ssl_ca_certs=/other.pem"
    assert read_sentinel_url(own).sentinels == ("rediss://h:26379?ssl_ca_certs=%2Fother.pem",)


@pytest.mark.parametrize(
    ("rest", "words"),
    [
        ("h:26379", "name of the primary"),
        ("h:26379/", "name of the primary"),
        ("h:26379/b us/0", "name of the primary"),
        ("/bus/0", "host or port"),
        ("h:x/bus/0", "host or port"),
        ("h:0/bus/0", "host or port"),
        ("h:70000/bus/0", "host or port"),
        ("h,,i/bus/0", "host or port"),
        ("h/bus/x", "database must be a number"),
        ("h/bus/0/1", "database must be a number"),
        ("h/bus/0?sentinel_ssl=perhaps", "true or false"),
        ("h/bus/0?colour=red", "unexpected keyword argument 'colour'"),
        ("h/bus/0?sentinel_colour=red", "unexpected keyword argument 'colour'"),
    ],
)
def test_a_malformed_url_is_refused_when_it_is_set_without_a_word_of_it(rest: str, words: str) -> None:
    with pytest.raises(InvalidOption, match=words) as raised:
        open_store(Options(url=f"redis+sentinel://u:s3cret@{rest}"))
    assert "s3cret" not in str(raised.value)


def test_a_url_is_shown_without_its_secrets() -> None:
    url = "redis+sentinel://u:s3cret@h:26379,i/bus/0?sentinel_password=s3cret"
    assert redact(url) == "redis+sentinel://***@h:26379,i/bus/0?***"
