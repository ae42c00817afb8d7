"""What is read from PostgreSQL: backlogs, ids, the state."""

from __future__ import annotations

import logging
import math
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from typing import Any

from ..codecs import Codec
from ..message import Message, decode_message
from ..options import Options
from .base import BacklogPage, BacklogQuery, ChannelPage, StoreState, Trace
from .channel_sequencer import Snapshot
from .postgres_access import PostgresAccess, Row
from .sequencer import Entry, Unreadable

logger = logging.getLogger("messagebus.stores")

STATE = "SELECT global_id, epoch FROM messagebus_state"
# The window counts the bytes of an ask's messages from the first on: a page ends with the one that passes the bound.
_BACKLOGS = """
    SELECT query.number, channel.last_id, CASE WHEN backlog_until > now() THEN first_id ELSE channel.last_id + 1 END,
        extract(epoch FROM backlog_until - now())::float8, message.size,
        message.global_id, message.message_id, channel.name, message.envelope
    FROM unnest(%s::text[], %s::bigint[]) WITH ORDINALITY AS query (name, after, number)
    JOIN messagebus_channels AS channel ON channel.name = query.name
    LEFT JOIN LATERAL (
        SELECT global_id, message_id, envelope,
            sum(octet_length(envelope)) OVER (ORDER BY message_id)::bigint AS size
        FROM messagebus_messages AS kept
        WHERE kept.name = channel.name AND backlog_until > now() AND message_id >= greatest(
            first_id, CASE WHEN query.after < 0 THEN channel.last_id + query.after ELSE query.after END + 1)
    ) AS message ON message.size - octet_length(message.envelope) < %s
    ORDER BY query.number, message.message_id"""
_LAST_IDS = "SELECT name, last_id FROM messagebus_channels WHERE name = ANY(%s)"
# One statement: at one moment.
_SNAPSHOT = """
    SELECT global_id, epoch, channel.name, channel.last_id FROM messagebus_state
    LEFT JOIN messagebus_channels AS channel ON channel.name = ANY(%s)"""
_MESSAGES = """
    SELECT message.global_id, message_id, name, envelope
    FROM messagebus_state, messagebus_messages AS message JOIN messagebus_channels USING (name)
    WHERE backlog_until > now() AND """
_GLOBAL_BACKLOG = (
    _MESSAGES + "global_until > now() AND message.global_id >= greatest(global_first, %s) ORDER BY message.global_id"
)
_READ = _MESSAGES + "message.global_id = ANY(%s)"
_BELOW = """
    SELECT FROM unnest(%s::text[], %s::bigint[]) AS trace (name, message_id)
    JOIN messagebus_channels AS channel USING (name) WHERE last_id < message_id LIMIT 1"""
_IN_PLACE = """
    SELECT message.global_id, message.message_id, message.name, envelope
    FROM unnest(%s::bigint[]) AS trace (global_id) JOIN messagebus_messages AS message USING (global_id)
    UNION
    SELECT message.global_id, message.message_id, message.name, envelope
    FROM unnest(%s::text[], %s::bigint[]) AS trace (name, message_id)
    JOIN messagebus_messages AS message USING (name, message_id)"""
_CHANNELS = """
    SELECT name FROM messagebus_channels
    WHERE first_id <= last_id AND backlog_until > now() AND name COLLATE "C" > %s ORDER BY name COLLATE "C" LIMIT %s"""
FACTS = """SELECT current_setting('server_version_num')::int, current_setting('server_version'),
    coalesce(has_schema_privilege(current_schema(), 'CREATE'), false), coalesce(current_schema(), ''), current_user,
    pg_is_in_recovery(), current_setting('fsync'), current_setting('synchronous_commit'),
    current_setting('max_connections')::int, (SELECT count(*) FROM pg_stat_activity)"""


class PostgresReading(PostgresAccess):
    """The store's methods that change nothing."""

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self._codec = None if options.transport_codec is None else _Base64Codec(options.transport_codec)

    def backlogs(self, queries: Sequence[BacklogQuery], max_bytes: int) -> list[BacklogPage]:
        names, positions = [query.name for query in queries], [query.after for query in queries]
        found: dict[int, list[Row]] = {}
        for row in self._read(_BACKLOGS, names, positions, max_bytes) if queries else ():
            found.setdefault(row[0], []).append(row[1:])
        return [self._page(query, found.get(number), max_bytes) for number, query in enumerate(queries, 1)]

    def _page(self, query: BacklogQuery, rows: list[Row] | None, max_bytes: int) -> BacklogPage:
        if rows is None:
            return BacklogPage([], max(query.after, 0), 0, 0, 1)
        last_id, first_id, expires_in = rows[0][:3]
        after = query.after if query.after >= 0 else max(last_id + query.after, 0)
        size, through = rows[-1][3], rows[-1][5]
        entries = _entries([row[4:] for row in rows if row[4] is not None], self._codec)
        return BacklogPage(
            [entry for entry in entries if isinstance(entry, Message)],
            after,
            through if size is not None and size >= max_bytes else last_id,
            last_id,
            first_id,
            expires_in if first_id <= last_id else math.inf,
        )

    def last_ids(self, names: Sequence[str]) -> list[int]:
        if not names:
            return []
        found: dict[str, int] = dict(self._read(_LAST_IDS, list(names)))
        return [found.get(name, 0) for name in names]

    def global_backlog(self, after: int = 0) -> list[Message]:
        return [entry for entry in self.entries(after) if isinstance(entry, Message)]

    def entries(self, after: int) -> list[Entry]:
        """The global backlog after a global id, with stand-ins for what cannot be decoded. For the feed."""
        return _entries(self._read(_GLOBAL_BACKLOG, after + 1), self._codec)

    def read(self, global_ids: Sequence[int]) -> dict[int, Entry]:
        """Those of the messages that are still kept, by global id. For the feed."""
        return {entry.global_id: entry for entry in _entries(self._read(_READ, list(global_ids)), self._codec)}

    def state(self, partition: int = 0) -> StoreState:
        for row in self._read(STATE):
            return StoreState(*row)
        return StoreState(0, None)

    def facts(self) -> Row:
        """What the server is, what this role may do, and how it is set: see ``FACTS``."""
        with self._connection() as connection:
            row: Row = connection.execute(FACTS).fetchone()
        return row

    def contradicts(self, traces: Sequence[Trace]) -> bool:
        """Whether something else is stored in the place of one of these messages. For the feed."""
        if not traces:
            return False
        global_ids, names, message_ids, _ = map(list, zip(*traces, strict=True))
        if self._read(_BELOW, names, message_ids):
            return True
        found = _entries(self._read(_IN_PLACE, global_ids, names, message_ids), self._codec)
        return not {Trace.of(entry) if isinstance(entry, Message) else None for entry in found} <= {*traces}

    def snapshot(self, names: Sequence[str]) -> Snapshot:
        """How far the store and some of its channels are. For the feed."""
        rows = self._read(_SNAPSHOT, list(names))
        if not rows:
            return Snapshot(0, None, {name.encode(): None for name in names})
        found: dict[str, int] = {row[2]: row[3] for row in rows}
        global_id, epoch = rows[0][:2]
        return Snapshot(global_id, epoch, {name.encode(): found.get(name) for name in names})

    def pages(self, after: Mapping[bytes, int]) -> Mapping[bytes, BacklogPage]:
        """The backlogs of channels after a message id. For the feed."""
        queries = [BacklogQuery(channel.decode(), message_id) for channel, message_id in after.items()]
        return dict(zip(after, self.backlogs(queries, 1 << 53), strict=True))

    def channels(self, cursor: str = "", limit: int = 1000) -> ChannelPage:
        if "\0" in cursor:  # which its texts cannot have
            raise ValueError(f"expected a page's cursor, not {cursor!r:.80}")
        names = [name for (name,) in self._read(_CHANNELS, cursor, limit)]
        return ChannelPage(names, names[-1] if len(names) == limit else "")


class _Base64Codec:
    """A codec whose bytes are text, as NOTIFY and the column want it."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec

    def encode(self, envelope: dict[str, Any]) -> bytes:
        return b64encode(self._codec.encode(envelope))

    def decode(self, stored: bytes) -> dict[str, Any]:
        return self._codec.decode(b64decode(stored))


def _entries(rows: Sequence[Row], codec: Codec | None) -> list[Entry]:
    """Messages from rows of global id, message id, name and envelope. What cannot be decoded is logged."""
    entries: list[Entry] = []
    for global_id, message_id, name, envelope in rows:
        try:
            entries.append(decode_message(global_id, message_id, name, envelope.encode(), codec))
        except ValueError as error:
            logger.warning("skipped a message that cannot be decoded: %s", error)
            entries.append(Unreadable(global_id))
    return entries
