"""Where a request comes from, how many subscribers an address has, and how refusals are counted."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import flask
import pytest

from messagebus import Bus
from messagebus.http.addresses import client_address
from messagebus.hub.addresses import Addresses, source_of
from messagebus.limit_counts import LimitCounts

SOMEBODY = "203.0.113.7"


@pytest.mark.parametrize(
    ("proxies", "header", "address"),
    [
        (0, "203.0.113.7", "10.0.0.1"),
        (1, None, "10.0.0.1"),
        (1, "", "10.0.0.1"),
        (1, "203.0.113.7", "203.0.113.7"),
        (1, "198.51.100.1, 203.0.113.7", "203.0.113.7"),
        (1, "203.0.113.7, nonsense", "10.0.0.1"),
        (1, "203.0.113.7:4711", "203.0.113.7"),
        (1, "[2001:db8::1]:4711", "2001:db8::1"),
        (1, "2001:DB8::1", "2001:db8::1"),
        (2, "198.51.100.1, 203.0.113.7, 10.0.0.2", "203.0.113.7"),
        (2, "203.0.113.7", "10.0.0.1"),
    ],
)
def test_the_address_is_the_one_that_the_outermost_trusted_proxy_has_seen(
    proxies: int, header: str | None, address: str
) -> None:
    environ = {"REMOTE_ADDR": "10.0.0.1"}
    if header is not None:
        environ["HTTP_X_FORWARDED_FOR"] = header
    assert client_address(environ, proxies) == address


def test_a_unix_socket_has_no_address() -> None:
    assert client_address({}, 0) == client_address({"REMOTE_ADDR": ""}, 1) == ""


def test_an_ipv6_address_counts_as_its_network_and_a_mapped_one_as_that_of_ipv4() -> None:
    assert source_of("2001:db8:0:1::1") == source_of("2001:db8:0:1:ffff::2") != source_of("2001:db8:0:2::1")
    assert source_of("::ffff:203.0.113.7") == source_of("203.0.113.7") == "203.0.113.7"
    assert source_of("fe80::1%eth0") == "fe80::/64"
    assert source_of("what is no address") == "what is no address"


def test_an_address_is_kept_while_somebody_is_there() -> None:
    held = Addresses()
    for address in (SOMEBODY, SOMEBODY, "2001:db8::1", ""):
        held.add(address)
    assert (held.count(SOMEBODY), held.count("2001:db8::2"), held.count(""), len(held)) == (2, 1, 0, 2)
    for address in (SOMEBODY, "2001:db8::1", "", SOMEBODY):
        held.remove(address)
    assert (held.count(SOMEBODY), len(held)) == (0, 0)


def test_refusals_are_counted_from_many_threads() -> None:
    counts = LimitCounts()

    def count() -> None:
        for _ in range(1000):
            counts.count("a")

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    counts.count("b", 3)
    assert counts.as_dict() == {"a": 4000, "b": 3}


@pytest.fixture
def bus() -> Iterator[Bus]:
    bus = Bus(
        url="memory://",
        anonymous_publish=True,
        http_publishing=True,
        max_channels=2,
        max_request_body=100,
        max_message_size=10,
        max_publishes_per_client=1,
        trusted_proxies=1,
    )
    yield bus
    bus.close()


@pytest.mark.parametrize(
    ("path", "request_of", "status", "limit"),
    [
        ("me/poll?dlp=t", {"data": {"/a": 0, "/b": 0, "/c": 0}}, 400, "max_channels"),
        ("me/poll?dlp=t&__refusals=t", {"data": {"/a": 0, "/b": 0, "/c": 0}}, 200, "max_channels"),
        ("me/poll?dlp=t", {"data": b"x" * 101}, 413, "max_request_body"),
        ("channels/a", {"data": b"x" * 11}, 413, "max_message_size"),
    ],
)
def test_a_refusal_is_counted_by_the_name_of_its_limit(
    bus: Bus, path: str, request_of: dict[str, Any], status: int, limit: str
) -> None:
    assert client_of(bus).post(f"/message-bus/{path}", **request_of).status_code == status
    assert counted(bus) == {limit: 1}


def test_a_publisher_goes_by_the_address_that_the_trusted_proxy_has_seen(bus: Bus) -> None:
    client = client_of(bus)

    def publish(forwarded: str) -> Any:  # five at once, which take five seconds to be paid for
        headers = {"X-Forwarded-For": forwarded, "Content-Type": "application/x-ndjson"}
        return client.post("/message-bus/channels/a", data="1\n1\n1\n1\n1", headers=headers)

    assert publish(SOMEBODY).status_code == 202
    refused = publish(f"198.51.100.1, {SOMEBODY}")
    assert refused.status_code == 429
    assert 1 <= int(refused.headers["Retry-After"]) <= 5
    assert refused.get_json()["error"]["field"] == "max_publishes_per_client"
    assert publish("198.51.100.1").status_code == 202
    assert counted(bus) == {"max_publishes_per_client": 1}


def client_of(bus: Bus) -> Any:
    app = flask.Flask(__name__)
    app.register_blueprint(bus.blueprint)
    return app.test_client()


def counted(bus: Bus) -> dict[str, int]:
    return bus._running_node().hub.refused.as_dict()
