"""A server that has the bus, as commands use it: over HTTP, and for what comes live as any other client."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any
from urllib.parse import quote, urlencode

import click

from ..client import Client, Gap, Refusal, StateInfo
from ..client.types import ConnectionState
from ..message import Message, encode_data, encode_json
from ..names import check_channel
from ..option_kinds import check_pattern
from ..statistics.why import Finding
from .ending import CannotDo, Failed
from .places import Backlog, Channel, Channels, Place, Published
from .server_requests import FAILURES, Refused, Requests, Unreachable

LISTS = ("user_ids", "group_ids", "client_ids", "exclude_client_ids")
ATTEMPTS = 5
"""Of one request that a server takes no time for, or whose answer is lost."""
LONGEST_PAUSE = 10.0
"""Seconds."""
ANY_SIZE = 1 << 62


class ServerPlace(Place):
    def __init__(self, url: str, key: str | None) -> None:
        self._url = url
        self._requests = Requests(url, key)
        self._client: Client | None = None

    # --- publishing ---

    def check(self, channel: str) -> None:
        self._report("GET", channel)

    def _report(self, method: str, channel: str) -> None:
        try:
            self._requests.ask(method, f"publish?channel={quote(check_channel(channel), safe='')}")
        except Refused as refusal:
            raise refusal.as_ending() from None

    def publish(self, channel: str, data: Sequence[Any], options: dict[str, Any]) -> Published:
        path = f"publish?channel={quote(check_channel(channel), safe='')}{_query(options)}"
        key = options.get("idempotency_key") or secrets.token_hex(16)
        body = b"\n".join([encode_data(each, ANY_SIZE) for each in data])
        kind = "application/json" if len(data) == 1 else "application/x-ndjson"
        try:
            return _published(channel, self._post(path, body, kind, key))
        except Refused as refusal:
            raise refusal.as_ending() from None

    def _post(self, path: str, body: bytes, kind: str, key: str) -> Any:
        """Raises Refused, or Unreachable once it has been tried some times: nothing is stored twice."""
        headers = {"Content-Type": kind, "Idempotency-Key": key}
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return self._requests.ask("POST", path, body, headers)
            except Refused as refusal:
                if refusal.retry_after is None or refusal.status == 503 or attempt == ATTEMPTS:
                    raise
                time.sleep(min(refusal.retry_after, LONGEST_PAUSE))
            except Unreachable:
                if attempt > 1:
                    raise
        raise AssertionError("unreachable")

    # --- reading ---

    def backlog(self, channel: str, last_id: int) -> Backlog:
        check_channel(channel)
        client_id = secrets.token_hex(16)
        newest, _ = self._poll(client_id, channel, -1, 1)
        return Backlog(newest, self._batches(client_id, channel, last_id, newest))

    def _batches(self, client_id: str, channel: str, position: int, newest: int) -> Iterator[Message]:
        sequence = 2
        while position < newest:
            reached, messages = self._poll(client_id, channel, position, sequence)
            for message in messages:
                if message.message_id > newest:
                    return
                yield message
            if reached <= position:
                return
            position, sequence = reached, sequence + 1

    def _poll(self, client_id: str, channel: str, position: int, sequence: int) -> tuple[int, list[Message]]:
        """A poll that is answered at once: the position that it leads to, and messages."""
        body = encode_json({channel: position, "__seq": sequence})
        try:
            batch = self._requests.ask("POST", f"{client_id}/poll?dlp=t", body, {"Content-Type": "application/json"})
        except Refused as refusal:
            raise refusal.as_ending() from None
        messages, status = [], position
        try:
            for each in batch:
                if each["channel"] == channel:
                    messages.append(_message(each["channel"], each["data"], each["message_id"], each["global_id"]))
                elif each["channel"] == "/__status":
                    status = int(each["data"].get(channel, status))
        except (KeyError, TypeError, ValueError, AttributeError):
            raise CannotDo("the server's answer is no batch of messages") from None
        return max([status, *(message.message_id for message in messages)]), messages

    def subscribe(self, channels: Sequence[str], last_id: int) -> Iterator[Message]:
        patterns = [channel for channel in channels if channel.endswith("*")]
        if patterns:
            raise CannotDo(f"{patterns[0]}: name the channels of a server; only a store takes patterns here")
        ended: list[CannotDo | Failed] = []

        def fail(error: CannotDo | Failed) -> None:
            ended.append(error)
            client.stop()

        def state_changes(state: ConnectionState, info: StateInfo) -> None:
            # Without a delay another transport is tried at once. Where it has been connected, the client comes back by
            # itself, unless it is not wanted any more.
            if info.message is not None and info.delay is not None and (state == "connecting" or not info.retry):
                fail((Failed if info.status in FAILURES else CannotDo)(f"{self._requests.place}: {info.message}"))
            elif state == "reconnecting" and info.message is not None:
                click.echo(f"the connection broke, and is made again: {info.message}", err=True)

        def is_refused(refusal: Refusal) -> None:
            if not refusal.retry:
                fail(Failed(f"{refusal.channel}: {refusal.message} ({refusal.code})"))

        client = self._client = Client(
            self._url,
            headers=self._requests.headers,
            on_state_change=state_changes,
            on_refused=is_refused,
            on_gap=_tell_gap,
        )
        logging.getLogger("messagebus.client").setLevel(logging.ERROR)  # its warnings are told here
        with client.listen(*channels, last_id=last_id) as listening:
            for message in listening:
                yield _message(message.channel, message.data, message.message_id, message.global_id)
        if ended:
            raise ended[0]

    def watch(self, channel: str) -> Callable[[], Collection[str]]:
        raise CannotDo(
            "a server tells nobody which clients it has, nor who has sent a message: who knows a client's id can speak "
            "for it. Give the URL of the store"
        )

    def channels(self, pattern: str = "/*") -> Channels:
        away: set[int] = set()
        return Channels(self._channels(pattern, away), away)

    def _channels(self, pattern: str, away: set[int]) -> Iterator[Channel]:
        if not pattern.endswith("*"):
            found = _channel(self._ask(f"stats?channel={quote(check_channel(pattern), safe='')}"))
            if found.published_messages:
                yield found
            return
        cursor = ""
        while True:
            query = f"channels={quote(check_pattern(pattern), safe='')}&cursor={quote(cursor, safe='')}"
            page = self._ask(f"stats?{query}")
            if not isinstance(page.get("channels"), list):
                raise _no_statistics()
            away.update(page.get("partitions_away", ()))
            yield from map(_channel, page["channels"])
            cursor = page.get("cursor", "")
            if not cursor:
                return

    def stats(self) -> dict[str, Any]:
        found = self._ask("stats")
        if "published_messages" not in found:
            raise _no_statistics()
        return found

    def _ask(self, path: str) -> dict[str, Any]:
        try:
            found = self._requests.ask("GET", path)
        except Refused as refusal:
            raise refusal.as_ending() from None
        if not isinstance(found, dict):
            raise _no_statistics()
        return found

    def forget(self, channel: str) -> None:
        self._report("DELETE", channel)

    def why(self, channel: str, message_id: int, user: str | None, client: str | None) -> list[Finding]:
        whom = {"user": user} if client is None else {"client": client}
        query = urlencode({"channel": channel, "id": message_id, **whom})
        return [Finding(**each) for each in self._ask(f"why?{query}").get("findings", [])]

    def close(self) -> None:
        self._requests.close()
        if self._client is not None:
            self._client.stop()


def _tell_gap(gap: Gap) -> None:
    if gap.after is None:
        click.echo(f"{gap.channel}: the store was reset; its messages begin with {gap.before}", err=True)
    else:
        click.echo(f"{gap.channel}: messages {gap.after + 1} to {gap.before - 1} are not kept any more", err=True)


def _query(options: dict[str, Any]) -> str:
    parts = []
    for name, value in options.items():
        if name in LISTS and value is not None:
            # An id that is a text but looks like a number goes in quotes.
            ids = [each if name.endswith("client_ids") else encode_json(each).decode() for each in value]
            value = ",".join(ids)
        if value is not None and name != "idempotency_key":
            parts.append(f"&{name}={quote(str(value), safe='')}")
    return "".join(parts)


def _published(channel: str, answer: Any) -> Published:
    report = answer["channels"][-1] if isinstance(answer, dict) and answer.get("channels") else answer
    if not isinstance(report, dict) or "message_id" not in report:
        raise CannotDo("the server's answer is no report of a publish")
    return Published(channel, report["message_id"], report.get("global_id"), report.get("subscribers"))


def _channel(found: dict[str, Any]) -> Channel:
    try:
        return Channel(
            found["channel"], found["stored_messages"], found["published_messages"], found["subscribers"], found["site"]
        )
    except (KeyError, TypeError):
        raise _no_statistics() from None


def _no_statistics() -> CannotDo:
    return CannotDo("the server's answer is no statistics of a bus")


def _message(channel: str, data: Any, message_id: int, global_id: int) -> Message:
    return Message(global_id, message_id, channel, encode_data(data, ANY_SIZE))
