"""Why somebody did not get a message, or when they did: what the store and the trails of all workers say."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from ..hub.node import Node
from ..hub.subscriber import Identity
from ..message import Message, id_key
from ..names import check_channel, store_name
from .bus import workers_of


class Finding(NamedTuple):
    """One thing that was found out."""

    code: str
    """For programs: ``not_published``, ``not_kept``, ``not_for_them``, ``filtered``, ``not_connected``,
    ``not_subscribed``, ``new_only``, ``sent``, ``acknowledged``, ``given_later``, ``cut_off`` or ``not_remembered``."""
    text: str
    """For people: a sentence without its full stop."""
    at: float | None = None
    """Unix time."""


def why(
    node: Node,
    channel: str,
    message_id: int,
    user_id: str | int | None = None,
    client_id: str | None = None,
    site_id: str | None = None,
) -> list[Finding]:
    """What became of a message for a user or a client, the most telling first. Blocks: asks the store, and all workers.

    Raises:
        InvalidChannel, InvalidSite: It is not the name of one.
        ValueError: Neither a user nor a client is given, or both are; or the id is below 1.
        BackendUnavailable: The store gives no answer.
    """
    if (user_id is None) is (client_id is None):
        raise ValueError("user_id, client_id: give one of them")
    if message_id < 1:
        raise ValueError(f"message_id: expected 1 or more, not {message_id}")
    name = store_name(check_channel(channel), site_id)
    whom = f"user {user_id}" if client_id is None else f"client {client_id}"
    backlog = node.store.backlog(name, message_id - 1)
    if message_id > backlog.last_id:
        last = f"the last one is {backlog.last_id}" if backlog.last_id else "there has been none"
        return [Finding("not_published", f"{channel} has no message {message_id} yet: {last}")]
    found = []
    message = next((each for each in backlog.messages if each.message_id == message_id), None)
    if message is None:
        text = f"message {message_id} is no longer kept: the backlog begins at {backlog.first_id}"
        found.append(Finding("not_kept", text))
    else:
        rule = _not_for(message, user_id, client_id)
        if rule is not None:
            return [Finding("not_for_them", f"message {message_id} is not for {whom}: {rule}")]
        prefix = node.access.withholding(message, node.report)
        if prefix is not None:
            text = f"the filter of {prefix} withholds message {message_id} from all clients"
            return [Finding("filtered", text)]
    asked = {"name": name, "id": message_id, "user_id": user_id, "client_id": client_id}
    reports = workers_of(node)
    for worker, answer in node.workers.ask("why", asked):
        if isinstance(answer, dict):
            found += _of_worker(_called(worker, reports), answer, message_id, channel, message)
    codes = {each.code for each in found}
    if codes <= {"not_kept", "not_remembered"}:
        found.append(Finding("not_connected", f"no process remembers a connection of {whom}"))
    return sorted(found, key=lambda each: _ORDER.index(each.code))


def read_user_id(text: str) -> str | int:
    """The id that a text means: ``7`` is the number, ``"7"`` and ``anna`` are texts."""
    try:
        value = json.loads(text)
        id_key(value)
    except (ValueError, RecursionError):  # a lone surrogate is a ValueError, too
        return text
    return value if isinstance(value, (str, int)) and not isinstance(value, bool) else text


def _called(worker: str, reports: Mapping[str, Mapping[str, Any]]) -> str:
    facts = reports.get(worker, {})
    return f"process {facts['pid']} on {facts['host']}" if "pid" in facts else f"worker {worker}"


def _not_for(message: Message, user_id: str | int | None, client_id: str | None) -> str | None:
    """The rule that a message's targets have against somebody, as far as that is known of them."""
    if message.exclude_client_ids is not None and client_id in message.exclude_client_ids:
        return "exclude_client_ids has that client"
    if message.client_ids is not None and client_id is not None and client_id not in message.client_ids:
        return "client_ids has others"
    groups = message.group_ids is not None  # whether they are in one of them is not known here
    if message.user_ids is None or user_id is None or groups or id_key(user_id) in map(id_key, message.user_ids):
        return None
    return "user_ids has others"


def _of_worker(
    called: str, answer: Mapping[str, Any], message_id: int, channel: str, message: Message | None
) -> Iterator[Finding]:
    sent_at = answer.get("sent_at")
    connections = answer.get("connections", [])
    if connections and sent_at is None:
        text = f"{called} does not remember sending message {message_id}: long ago, or nobody followed {channel}"
        yield Finding("not_remembered", text)
    for each in connections:
        if message is None or _identity(each).may_see(message):
            yield from _of_connection(called, each, sent_at, message_id, channel)
        else:
            text = f"{_who(each)}: message {message_id} is for other users, groups or clients"
            yield Finding("not_for_them", text, each["since"])


def _identity(each: Mapping[str, Any]) -> Identity:
    user_id = each["user_id"]
    groups = frozenset([group_id.encode() for group_id in each["group_ids"]])
    return Identity(each["client_id"], None if user_id is None else user_id.encode(), groups)


def _who(each: Mapping[str, Any]) -> str:
    return f"client {each['client_id']}, {each['transport']}" + (f" from {each['address']}" if each["address"] else "")


def _of_connection(
    called: str, each: Mapping[str, Any], sent_at: float | None, message_id: int, channel: str
) -> Iterator[Finding]:
    who = _who(each)
    since, until, position = each["since"], each["until"], each["position"]
    if not each["follows"]:
        yield Finding("not_subscribed", f"{who}: connected to {called}, and does not follow {channel}", since)
        return
    there = sent_at is not None and (since is None or since <= sent_at) and (until is None or sent_at <= until)
    if there:
        yield Finding("sent", f"{who}: sent at {_clock(sent_at)} by {called}", sent_at)
    if position is not None and position >= message_id:
        text = f"{who}: came at {_clock(since)} with position {position}, so it has had message {message_id}"
        yield Finding("acknowledged", text, since)
    elif position is not None and not there and (sent_at is None or since > sent_at):
        came = f"{who}: came at {_clock(since)} with position {position}"
        if position == -1:
            yield Finding("new_only", f"{came}: it asked for new messages only, and this one was there before", since)
        else:
            asked = f"asked for the last {-position - 1}" if position < 0 else "was given what it had missed"
            yield Finding("given_later", f"{came}, and {asked}", since)
    elif not there and until is not None and sent_at is not None and until < sent_at:
        yield Finding("not_connected", f"{who}: its connection ended at {_clock(until)}, before the message", until)
    if until is not None and each["end"] in _CUT:
        yield Finding("cut_off", f"{who}: cut off at {_clock(until)}: {each['end']}", until)


_CUT = ("too slow a reader, come back",)
_ORDER = (
    "not_published",
    "not_for_them",
    "filtered",
    "acknowledged",
    "sent",
    "given_later",
    "cut_off",
    "new_only",
    "not_subscribed",
    "not_connected",
    "not_kept",
    "not_remembered",
)


def _clock(at: float | None) -> str:
    return "a time that is forgotten" if at is None else time.strftime("%H:%M:%S", time.localtime(at))
