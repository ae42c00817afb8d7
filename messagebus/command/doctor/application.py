"""What of an app touches the bus's answers: gevent's patches, and extensions of Flask."""

from __future__ import annotations

import sys
from typing import Any

from flask import Flask

from ...bus import Bus
from ...lifecycle import buses
from .findings import Finding, ok

PATCHED = ("socket", "select", "threading", "ssl", "time")


def check_application(app: Any) -> list[Finding]:
    """``app``: the WSGI app, loaded into this process as its server would."""
    findings = [check_gevent()]
    found = [bus for bus in buses() if isinstance(bus, Bus) and bus.has_blueprint]
    if not found:
        advice = "no page can connect until it does"
        lines = {"app": ("app.register_blueprint(MessageBus.blueprint)",)}
        findings.append(Finding("app: has the bus", "fail", "no blueprint is registered", advice, lines))
    else:
        stores = {bus.options.url.partition(":")[0] for bus in found}
        findings.append(ok("app: has the bus", f"{len(found)}, in {', '.join(sorted(stores))}"))
    if isinstance(app, Flask):
        findings += check_extensions(app)
    else:
        name = type(app).__name__
        findings.append(Finding("app: extensions", "warn", f"unknown: {name} is no Flask app", "name the Flask app"))
    return findings


def stores() -> dict[str, int]:
    """The URLs of the stores that the app's buses use, but for memory, and how many replicas publishes wait for there
    (``durable``)."""
    found: dict[str, int] = {}
    for bus in buses():
        if isinstance(bus, Bus) and bus.has_blueprint and not bus.options.url.startswith("memory:"):
            found[bus.options.url] = max(found.get(bus.options.url, 0), bus.options.durable)
    return found


def check_gevent() -> Finding:
    """Of this process, after the app was loaded."""
    check = "app: gevent"
    if "gevent" not in sys.modules:
        return ok(check, "not used by the app; messagebus serve and gunicorn -k gevent patch by themselves")
    from gevent import monkey

    done = [name for name in PATCHED if monkey.is_module_patched(name)]
    if len(done) == len(PATCHED):
        return ok(check, "patched")
    lines = {"app, its first lines": ("from gevent import monkey", "monkey.patch_all()")}
    if done:
        missing = ", ".join(name for name in PATCHED if name not in done)
        return Finding(check, "fail", f"patched in part; {missing} not", "patch all, before any other import", lines)
    advice = "a server that patches nothing (pywsgi) blocks in every read: patch before any other import"
    return Finding(check, "warn", "imported, and nothing is patched", advice, lines)


def check_extensions(app: Flask) -> list[Finding]:
    """Those that look at all requests or answers of the app."""
    findings = []
    extensions = app.extensions
    limiters = extensions.get("limiter")
    for limiter in limiters if isinstance(limiters, set | list | tuple) else [limiters] if limiters else []:
        exempt = _exempt_blueprints(limiter)
        own = {each.name for each in app.blueprints.values() if each.import_name.startswith("messagebus")}
        if exempt is not None and not own <= exempt:
            findings.append(
                Finding(
                    "app: Flask-Limiter",
                    "warn",
                    "its limits count polls and connections of the bus",
                    "exempt the bus, which has limits of its own",
                    {"app": ("limiter.exempt(MessageBus.blueprint)",)},
                )
            )
    csrf = extensions.get("csrf")
    if csrf is not None:
        views: set[str] = getattr(csrf, "_exempt_views", set())
        told = any("messagebus" in str(view) for view in views)
        findings.append(
            ok("app: Flask-WTF", "the bus is exempt from its tokens")
            if told
            else Finding(
                "app: Flask-WTF",
                "warn",
                "it may ask polls for a token",
                "make CSRFProtect(app) before the first request, or exempt the bus",
                {"app": ("csrf.exempt(MessageBus.blueprint)",)},
            )
        )
    if "session" in extensions or not type(app.session_interface).__module__.startswith("flask."):
        words = f"{type(app.session_interface).__module__} opens a session for each request to the bus"
        findings.append(
            Finding("app: sessions", "warn", words, "let it be quick, or keep the bus in an app of its own")
        )
    if "debugtoolbar" in extensions:
        advice = "switch it off where streams matter: it reads answers to their end"
        findings.append(Finding("app: Flask-DebugToolbar", "warn", "it looks into answers", advice))
    if "compress" in extensions:
        findings.append(ok("app: Flask-Compress", "leaves streams and held answers alone"))
    return findings or [ok("app: extensions", "none that touches the bus's answers")]


def _exempt_blueprints(limiter: Any) -> set[str] | None:
    """The blueprints that a limiter leaves alone; ``None`` where this version does not say."""
    names = getattr(limiter, "_blueprint_exemptions", None)
    return None if names is None else {str(name) for name in names}
