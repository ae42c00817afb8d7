"""Judges what the probes of a public URL measured: transports, buffering, silence, Host, Origin and prefix."""

from __future__ import annotations

import http.client
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from urllib.parse import urljoin, urlsplit

from . import remedies
from .findings import Finding, Lines, ok
from .probe import Place, Probe, events, poll, request, websocket

LATE_SECONDS = 1.0
"""Beyond the answer of a plain poll: so long no network takes, but a proxy's buffer does."""
FOREIGN = "https://messagebus-doctor.invalid"
PAGE_BYTES = 1 << 20
_SCRIPT = re.compile(r"""<script[^>]*\ssrc=["']([^"']*message-?bus[^"']*)["']""", re.IGNORECASE)


class CannotConnect(Exception):
    """Nobody answers at the URL."""


def check_way(place: Place) -> list[Finding]:
    """All that can be seen from outside. Takes up to twice the patience.

    Raises:
        CannotConnect: Nobody answers there.
    """
    plain = poll(place, "dlp=t")
    if not plain.reached:
        raise CannotConnect(f"cannot connect to {place.origin}: {plain.words}")
    findings = [_reached(place, plain)]
    if findings[0].result == "fail":
        return findings
    with ThreadPoolExecutor(6) as pool:
        running = {
            "websocket": pool.submit(websocket, place, place.origin),
            "eventsource": pool.submit(events, place),
            "streaming": pool.submit(poll, place),
            # A held poll: it stands at the end of the channel, and nobody publishes there.
            "long-polling": pool.submit(poll, place, position=plain.position, headers={"Dont-Chunk": "true"}),
        }
        bare = pool.submit(websocket, place, None, False)
        foreign = pool.submit(websocket, place, FOREIGN, False)
        probes = {name: each.result() for name, each in running.items()}
        without_origin, of_stranger = bare.result(), foreign.result()
    findings += _websocket(probes["websocket"], without_origin)
    for name in ("eventsource", "streaming"):
        findings += _stream(name, probes[name], plain)
    findings += _long_poll(probes["long-polling"], place)
    findings += _silences(probes)
    findings += _host_and_origin(probes["websocket"], without_origin, of_stranger, place)
    findings += _page(place)
    return findings


def _reached(place: Place, plain: Probe) -> Finding:
    check = "polling: opens"
    if plain.status == 200 and plain.first_at is not None:
        return ok(check, f"answered in {plain.first_at * 1000:.0f} ms")
    if plain.code == "forbidden_host":
        return Finding(
            check,
            "fail",
            plain.words,
            "the server does not know itself by the name that it is asked for: pass Host on, and start it with "
            f"--allowed-host {place.parts.hostname}",
            {**remedies.HOST, "messagebus serve": (f"--allowed-host {place.parts.hostname}",)},
        )
    if plain.code:
        return Finding(check, "fail", plain.words, "the bus answers, and refuses; --channel names one that is open")
    prefix, _, last = place.parts.path.rpartition("/")
    lines: Lines = {}
    advice = "is this the address of the bus? It ends with /message-bus, unless the app says otherwise"
    if plain.status in (502, 503, 504):
        advice = "the proxy is there, and the server behind it is not: does it run, and where?"
    elif prefix or last != "message-bus":
        lines = remedies.prefix(prefix or "/shop")
        elsewhere = poll(replace(place, url=f"{place.origin}/message-bus"), "dlp=t")
        if elsewhere.status == 200 and elsewhere.first_at is not None:
            advice = (
                f"the bus answers at {place.origin}/message-bus, without the prefix: ask there, or pass {prefix}/ on"
            )
        else:
            advice = f"the proxy has to take the prefix {prefix or '/'} off, and to tell the app of it"
    return Finding("prefix: comes through", "fail", plain.words or "an answer that is not the bus's", advice, lines)


def _websocket(probe: Probe, bare: Probe) -> list[Finding]:
    check = "websocket: opens"
    if probe.status == 101 and probe.first_at is not None:
        return [ok(check, f"first batch after {probe.first_at * 1000:.0f} ms")]
    if probe.status == 101:
        return [
            Finding(
                check, "fail", probe.words, "something on the way swallows frames; is TLS spoken?", remedies.UPGRADE
            )
        ]
    if probe.code == "forbidden_origin" and bare.status == 101:
        return [Finding(check, "fail", f"{probe.words}; without Origin it opens", "see 'host: comes through'")]
    return [
        Finding(
            check,
            "fail",
            probe.words,
            "let the proxy pass the upgrade on; a server that keeps its sockets (waitress, uWSGI, TLS in gunicorn) has "
            "no WebSocket",
            remedies.UPGRADE,
        )
    ]


def _stream(name: str, probe: Probe, plain: Probe) -> list[Finding]:
    opens, buffers = f"{name}: opens", f"{name}: is not held back"
    if probe.status not in (0, 200):
        return [Finding(opens, "fail", probe.words, "let the proxy pass this path on as it is", remedies.BUFFERING)]
    if probe.first_at is None:
        held = f"nothing came for {probe.watched:.1f} s ({probe.words})"
        return [
            Finding(buffers, "fail", held, "the proxy holds the stream back: switch buffering off", remedies.BUFFERING)
        ]
    late = probe.first_at - (plain.first_at or 0.0)
    found = f"first batch after {probe.first_at * 1000:.0f} ms"
    if late > LATE_SECONDS:
        return [
            ok(opens, found),
            Finding(
                buffers, "fail", f"bytes are held back for {late:.1f} s", "switch buffering off", remedies.BUFFERING
            ),
        ]
    return [ok(opens, found), ok(buffers, f"held back for {max(0.0, late) * 1000:.0f} ms")]


def _long_poll(probe: Probe, place: Place) -> list[Finding]:
    check = "long-polling: opens"
    if probe.status == 0 and probe.silent_for is None:
        return [ok(check, f"held for {probe.watched:.1f} s")]
    if probe.status == 200 and probe.silent_for is None:
        return [ok(check, "answered")]
    if probe.status == 200:
        return [ok(check, f"answered after {probe.first_at or 0.0:.1f} s, within its interval")]
    if probe.silent_for is not None:
        return [ok(check, "held, and cut: see 'silence'")]
    return [Finding(check, "fail", probe.words, "let the proxy pass POST on", remedies.TIMEOUT)]


def _silences(probes: dict[str, Probe]) -> list[Finding]:
    """After what silence somebody on the way ends a connection; a held poll that the bus answered is none."""
    cut = {
        name: probe.silent_for
        for name, probe in probes.items()
        if probe.silent_for is not None and not (name == "long-polling" and probe.status == 200)
    }
    check = "silence: is not cut"
    if cut:
        found = ", ".join(f"{name} after {seconds:.1f} s" for name, seconds in cut.items())
        advice = (
            f"let the proxy wait for {remedies.LOOSE_SECONDS} s, above heartbeat_interval and long_polling_interval"
        )
        return [Finding(check, "fail", f"cut: {found}", advice, remedies.TIMEOUT)]
    watched = [probe.watched for probe in probes.values() if probe.first_at is not None or probe.status == 0]
    if not watched:
        return [Finding(check, "warn", "no held connection opened, so nothing was seen", "mend the transports first")]
    return [ok(check, f"nothing was cut within {min(watched):.1f} s; --patience 80 watches for longer")]


def _host_and_origin(probe: Probe, bare: Probe, stranger: Probe, place: Place) -> list[Finding]:
    host, origin = "host: comes through", "origin: comes through"
    if bare.status != 101:
        words = "unknown: no WebSocket opens, which would show it"
        return [Finding(host, "warn", words, "mend the WebSocket first"), Finding(origin, "warn", words)]
    findings = []
    if probe.code == "forbidden_origin":
        findings.append(
            Finding(
                host,
                "fail",
                f"a page of {place.origin} is refused as another origin",
                "the proxy changes Host, or leaves out its port: pass it on as it came",
                {**remedies.HOST, "app": (f"allowed_origins=[{place.origin!r}]  # where Host has to be changed",)},
            )
        )
    else:
        findings.append(ok(host, f"a page of {place.origin} may connect"))
    if stranger.status == 101:
        advice = (
            "the proxy takes Origin away, or allowed_origins has '*': then any page reads what its visitor may read"
        )
        findings.append(Finding(origin, "warn", "a page of any other origin may connect", advice, remedies.ORIGIN))
    else:
        findings.append(ok(origin, "a page of another origin is refused"))
    return findings


def _page(place: Place) -> list[Finding]:
    """Below a path the app must know its prefix: its pages name the client's script by it."""
    prefix = place.parts.path.rpartition("/")[0]
    if not prefix:
        return []
    check = "prefix: the app knows it"
    try:
        connection, response = request(place, "GET", f"{prefix}/", headers={"Accept": "text/html"})
        try:
            text = response.read(PAGE_BYTES).decode("utf-8", "replace") if response.status == 200 else ""
        finally:
            connection.close()
    except (OSError, http.client.HTTPException):
        text = ""
    script = _SCRIPT.search(text)
    if script is None:
        return [Finding(check, "warn", f"{prefix}/ has no page with the client's script", "nothing, if that is so")]
    path = urlsplit(urljoin(f"{place.origin}{prefix}/", script[1])).path
    if path.startswith(f"{prefix}/"):
        return [ok(check, f"its page asks for {path}")]
    lines: Lines = remedies.prefix(prefix)
    return [Finding(check, "fail", f"its page asks for {path}", "tell the app of the prefix", lines)]
