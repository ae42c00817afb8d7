"""What is told about a channel that was published to over HTTP, as JSON, text, XML or YAML. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import NamedTuple
from xml.sax.saxutils import escape

from werkzeug.datastructures import MIMEAccept


class Report(NamedTuple):
    """A channel after a publish, or as it is."""

    channel: str
    message_id: int | None
    """The newest message's id on the channel: the one that was published. ``None``: it waits for the store."""
    global_id: int | None
    """The published message's; ``None`` where nothing was published."""
    stored_messages: int | None
    """``None``: the store went away before it could tell."""
    published_messages: int
    """Over the channel's life."""
    subscribers: int
    """Over all workers."""
    last_requested: int | None
    """Seconds since a client last asked for the channel; ``None``: not within the workers' memory."""
    queued: bool = False
    """Whether the message waits in memory for a store that is away."""


def render(kind: str, reports: Sequence[Report], many: bool) -> bytes:
    """The body of an answer. ``many``: it is a list of reports, in the forms that know lists."""
    return _FORMS[kind](reports, many).encode()


def choose(accept: MIMEAccept) -> str | None:
    """The media type to answer with; ``None``: the client takes none that there is."""
    return accept.best_match(list(_FORMS), _DEFAULT) if not accept else accept.best_match(list(_FORMS))


def _as_json(reports: Sequence[Report], many: bool) -> str:
    bodies = [report._asdict() for report in reports]
    return json.dumps({"channels": bodies} if many else bodies[0])


def _as_text(reports: Sequence[Report], many: bool) -> str:
    """nchan's lines."""
    return "\n".join(
        f"queued messages: {'-' if report.stored_messages is None else report.stored_messages}\n"
        f"last requested: {_ago(report)}\n"
        f"active subscribers: {report.subscribers}\n"
        f"last message id: {'-' if report.message_id is None else report.message_id}\n"
        for report in reports
    )


def _ago(report: Report) -> str:
    return "never" if report.last_requested is None else f"{report.last_requested} sec. ago"


def _as_xml(reports: Sequence[Report], many: bool) -> str:
    channels = "".join(
        "<channel>{}</channel>".format(
            "".join(f"<{name}>{escape(_word(value))}</{name}>" for name, value in _named(report))
        )
        for report in reports
    )
    body = f"<channels>{channels}</channels>" if many else channels
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{body}\n'


def _as_yaml(reports: Sequence[Report], many: bool) -> str:
    """JSON's strings, numbers and ``null`` are YAML's as well."""
    lines = [
        f"{('- ' if first else '  ') if many else ''}{name}: {json.dumps(value)}\n"
        for report in reports
        for first, (name, value) in zip((True, *[False] * len(Report._fields)), _named(report), strict=False)
    ]
    return "---\n" + "".join(lines)


def _named(report: Report) -> list[tuple[str, object]]:
    fields = report._asdict()
    fields["name"] = fields.pop("channel")
    return [("name", fields.pop("name")), *fields.items()]


def _word(value: object) -> str:
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


_DEFAULT = "application/json"
_FORMS: dict[str, Callable[[Sequence[Report], bool], str]] = {
    "application/json": _as_json,
    "text/json": _as_json,
    "text/plain": _as_text,
    "application/xml": _as_xml,
    "text/xml": _as_xml,
    "application/yaml": _as_yaml,
    "text/yaml": _as_yaml,
    "text/x-yaml": _as_yaml,
}
