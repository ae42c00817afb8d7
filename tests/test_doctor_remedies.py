"""The lines that ``messagebus doctor`` prints for proxies that the tests do not run. They were tried with Apache 2.4,
Caddy 2.6 and HAProxy 2.6."""

from __future__ import annotations

import re

import pytest

from messagebus.command.doctor import remedies
from messagebus.command.doctor.findings import Lines

PROXIES = {"nginx", "Apache", "Caddy", "Traefik", "HAProxy"}
KINDS: dict[str, Lines] = {
    "upgrade": remedies.UPGRADE,
    "buffering": remedies.BUFFERING,
    "timeout": remedies.TIMEOUT,
    "host": remedies.HOST,
    "origin": remedies.ORIGIN,
    "prefix": remedies.prefix("/shop"),
}
ALL = [(kind, server, lines) for kind, servers in KINDS.items() for server, lines in servers.items()]


@pytest.mark.parametrize("kind", KINDS)
def test_every_remedy_has_lines_for_every_proxy(kind: str) -> None:
    assert KINDS[kind].keys() >= PROXIES
    assert all(KINDS[kind][proxy] for proxy in PROXIES)


@pytest.mark.parametrize(
    ("kind", "proxy", "words"),
    [
        ("upgrade", "Apache", ["ProxyPass / ", "upgrade=websocket", "timeout=75"]),
        ("upgrade", "Caddy", ["reverse_proxy 127.0.0.1:8000"]),
        ("upgrade", "HAProxy", ["timeout tunnel 75s", "httpclose"]),
        ("buffering", "Apache", ['SetEnvIf Request_URI "/message-bus/" no-gzip', "flushpackets=on"]),
        ("buffering", "Caddy", ["@app not path /message-bus/*", "encode @app gzip", "flush_interval -1"]),
        ("buffering", "Traefik", ["compress", "buffering", "/message-bus/"]),
        ("buffering", "HAProxy", ["option http-no-delay", "option http-buffer-request", "compression"]),
        ("timeout", "Apache", ["ProxyTimeout 75", "timeout=75"]),
        ("timeout", "Caddy", ["transport http {", "read_timeout 75s", "response_header_timeout 75s"]),
        ("timeout", "Traefik", ["forwardingTimeouts.responseHeaderTimeout: 75s"]),
        ("timeout", "HAProxy", ["timeout client 75s", "timeout server 75s", "timeout tunnel 75s"]),
        ("host", "Apache", ["ProxyPreserveHost On"]),
        ("host", "Caddy", ["header_up Host"]),
        ("host", "Traefik", ["passHostHeader: true"]),
        ("host", "HAProxy", ["http-request set-header Host"]),
        ("origin", "Apache", ["RequestHeader unset Origin"]),
        ("origin", "Caddy", ["header_up -Origin"]),
        ("origin", "Traefik", ["customRequestHeaders"]),
        ("origin", "HAProxy", ["http-request del-header Origin"]),
        ("prefix", "Apache", ["ProxyPass /shop/ ", "<Location /shop/>", 'X-Forwarded-Prefix "/shop"', "</Location>"]),
        ("prefix", "Caddy", ["handle_path /shop/* {", "header_up X-Forwarded-Prefix /shop"]),
        ("prefix", "Traefik", ["stripPrefix.prefixes: [/shop]"]),
        ("prefix", "HAProxy", ["set-header X-Forwarded-Prefix /shop if { path_beg /shop/ }", r"/shop/(.*) /\1"]),
    ],
)
def test_the_lines_say_what_is_to_be_changed(kind: str, proxy: str, words: list[str]) -> None:
    text = "\n".join(KINDS[kind][proxy])
    assert [word for word in words if word not in text] == []


@pytest.mark.parametrize(("kind", "server", "lines"), ALL, ids=[f"{kind}-{server}" for kind, server, _ in ALL])
def test_blocks_are_closed_and_nothing_is_cut_before_the_bus_speaks(
    kind: str, server: str, lines: tuple[str, ...]
) -> None:
    code = "\n".join(line.partition("#")[0] for line in lines)
    for opening, closing in ("{}", "[]", "()", "<>"):
        assert code.count(opening) == code.count(closing)
    assert len(re.findall("<[A-Z]", code)) == code.count("</")
    assert all(line == line.rstrip() and "\t" not in line for line in lines)
    seconds = re.findall(r"(?<![\d.:])(\d+)s\b|timeout=(\d+)|ProxyTimeout (\d+)", code)
    assert all(int("".join(found)) >= remedies.LOOSE_SECONDS for found in seconds)


def test_apache_has_one_line_for_a_path_as_it_takes_the_first_alone() -> None:
    lines = {
        line for _, server, lines in ALL if server == "Apache" for line in lines if line.startswith("ProxyPass / ")
    }
    assert len(lines) == 1


def test_apaches_comments_stand_on_lines_of_their_own_as_it_knows_no_others() -> None:
    lines = [line for _, server, lines in ALL if server == "Apache" for line in lines]
    assert [line for line in lines if "#" in line.lstrip()[1:]] == []
