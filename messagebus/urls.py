"""URLs of stores as logs, errors and people may see them: only what is known to be no secret."""

from __future__ import annotations

import re

_HOST = r"(?:[\w.-]+|\[[\w:.%]+\])(?::\d+)?"
_HARMLESS = re.compile(
    # scheme, who (never shown), hosts, path, parameters (never shown). A password that was not percent-encoded may
    # hold any of the characters between them: then the URL does not fit, and none of it is shown.
    rf"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<who>[^/?#@]*@)?(?P<place>(?:{_HOST}(?:,{_HOST})*)?(?:/[\w./-]*)?)"
    r"(?P<parameters>\?[^@#]*)?",
    re.ASCII,
)


def redact(url: str) -> str:
    """A store's URL without user, password and parameters: ``redis://***@host:6379/0?***``.

    What does not look as a URL should is left out as a whole, but for a scheme that is known."""
    found = _HARMLESS.fullmatch(url)
    if found is None:
        scheme, separator, _ = url.partition("://")
        return f"{scheme}://***" if separator and scheme.isalpha() and len(scheme) <= 10 else "***"
    who = "***@" if found["who"] else ""
    parameters = "?***" if found["parameters"] else ""
    return f"{found['scheme']}://{who}{found['place']}{parameters}"
