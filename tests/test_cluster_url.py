"""URLs of Redis Clusters."""

from __future__ import annotations

import pytest
import redis

from messagebus.errors import InvalidOption
from messagebus.options import Options
from messagebus.stores import open_store
from messagebus.stores.redis_cluster_url import read_cluster_url
from messagebus.urls import redact


def test_a_url_names_nodes_a_user_and_the_number_of_partitions() -> None:
    url = read_cluster_url("redis+cluster://u:p%40@a:1,[::1]:2,c/?partitions=8&client_name=x", 5)
    assert url.places == (("a", 1), ("::1", 2), ("c", 6379))
    assert url.partitions == 8
    assert url.connection_class is redis.Connection
    assert {"username": "u", "password": "p@", "client_name": "x"}.items() <= url.arguments.items()
    assert "host" not in url.arguments
    assert url.where == "cluster a:1,::1:2,c:6379"


def test_there_are_64_partitions_unless_the_url_says_otherwise() -> None:
    assert read_cluster_url("redis+cluster://a", 5).partitions == 64
    assert read_cluster_url("redis+cluster://a/0", 5).partitions == 64


def test_with_tls_the_parameters_are_those_of_each_connection() -> None:
    url = read_cluster_url("rediss+cluster://a/?ssl_ca_certs=/ca.pem", 5)
    assert url.connection_class is redis.SSLConnection
    assert url.arguments["ssl_ca_certs"] == "/ca.pem"


@pytest.mark.parametrize(
    ("rest", "words"),
    [
        ("", "host or port"),
        ("h:x/", "host or port"),
        ("h:0/", "host or port"),
        ("h:70000/", "host or port"),
        ("h,,i/", "host or port"),
        ("h/1", "no databases but 0"),
        ("h/?db=1", "no databases but 0"),
        ("h/?partitions=0", "from 1 to 1024"),
        ("h/?partitions=1025", "from 1 to 1024"),
        ("h/?partitions=-1", "from 1 to 1024"),
        ("h/?partitions=" + "9" * 5000, "from 1 to 1024"),
        ("h/?partitions=", "from 1 to 1024"),
        ("h/?partitions=²", "from 1 to 1024"),
        ("h/?unknown=1", "unknown"),
    ],
)
def test_a_malformed_url_is_refused_without_being_shown(rest: str, words: str) -> None:
    with pytest.raises(InvalidOption, match=words) as caught:
        open_store(Options(url=f"redis+cluster://u:s3cret@{rest}"))
    assert "s3cret" not in str(caught.value)


def test_no_log_shows_the_password() -> None:
    assert redact("redis+cluster://u:s3cret@a:1,b:2/?partitions=8") == "redis+cluster://***@a:1,b:2/?***"
