"""What mends a refusal of a store: the parameter to change, the line to run. Words in, words out; knows no driver."""

from __future__ import annotations

import re

REDIS_COMMANDS = (
    *("evalsha", "script|load", "multi", "exec", "select", "ping", "subscribe", "publish", "scan", "del"),
    *("get", "mget", "set", "exists", "expire", "pttl", "getbit", "setbit", "time"),
    *("zadd", "zcard", "zcount", "zrange", "zrevrange", "zrangebyscore", "zremrangebyscore"),
    *("zrem", "hset", "hget", "hdel"),
)
"""All that a process runs, the scripts' commands among them."""

REDIS_WISHES = ("info",)
"""What it runs as well, where it may."""

ANNOUNCEMENTS = "_announcements"
"""What the name of the pub/sub channel of announcements ends with, behind the one of messages."""

OWN_CHANNEL = ":"
"""What stands between that name and the name of a channel, in the name of the channel's own pub/sub channel."""


def redis_commands(by_channel: bool = False) -> tuple[str, ...]:
    """All that a process runs; ``by_channel``: where each channel has a pub/sub channel of its own."""
    return (*REDIS_COMMANDS, "unsubscribe") if by_channel else REDIS_COMMANDS


def redis_rights(pubsub_channel: str, by_channel: bool = False) -> str:
    """The rules of an ``ACL SETUSER`` that suffice."""
    commands = " ".join("+" + command for command in (*redis_commands(by_channel), *REDIS_WISHES))
    channels = f"&{pubsub_channel} &{pubsub_channel}{ANNOUNCEMENTS}"
    if by_channel:
        channels += f" &{pubsub_channel}{OWN_CHANNEL}*"
    return f"~__mb_* {channels} {commands}"


def redis_cluster_commands() -> tuple[str, ...]:
    """All that a process runs on a Redis Cluster."""
    others = tuple(command for command in REDIS_COMMANDS if command != "select")
    return (*others, "spublish", "ssubscribe", "sunsubscribe", "cluster|slots", "command")


def redis_cluster_rights(announcements: str) -> str:
    """The rules of an ``ACL SETUSER`` that suffice on a Redis Cluster. ``announcements``: their pub/sub channel."""
    commands = " ".join("+" + command for command in (*redis_cluster_commands(), *REDIS_WISHES))
    common = announcements.removesuffix(ANNOUNCEMENTS)
    return f"~{{*}}__mb_* &{{*}}{common} &{{*}}{common}{OWN_CHANNEL}* &{announcements} {commands}"


_REDIS = (
    (
        re.compile(r"\b(MOVED|ASK|CROSSSLOT)\b"),
        "this is a node of a Redis Cluster, whose URL is redis+cluster://[[user]:password@]host[:6379]/",
    ),
    (
        re.compile(r"(?i)certificate verify failed.*(hostname|ip address) mismatch"),
        "the certificate is for another host name; use that in the URL, or add ssl_check_hostname=false to it",
    ),
    (
        re.compile(r"(?i)certificate verify failed"),
        "the certificate is signed by nobody known here; add ssl_ca_certs=/path/to/ca.pem to the URL (or "
        "ssl_cert_reqs=none, which trusts whoever answers)",
    ),
    (re.compile(r"(?i)wrong.version.number|record layer failure"), "is TLS spoken on that port? Without it: redis://"),
    (
        re.compile(r"(?i)NOPERM|no permissions|executing the script can't"),
        f"a user needs at least: ACL SETUSER <user> {redis_rights('_message_bus_*')}",
    ),
    (re.compile(r"(?i)WRONGPASS|NOAUTH|invalid (username|password)"), "is the user or the password in the URL right?"),
)
_POSTGRES = (
    (
        re.compile(r"permission denied for schema (\S+)"),
        r"the schema's owner may run: GRANT USAGE, CREATE ON SCHEMA \1 TO <role>; or choose another schema, with "
        r"?options=-csearch_path%3D<schema> in the URL",
    ),
    (
        re.compile(r"no schema has been selected to create in"),
        "the first schema of the search path must exist: CREATE SCHEMA <schema>, or choose another with "
        "?options=-csearch_path%3D<schema> in the URL",
    ),
    (
        re.compile(r"permission denied for (?:table|relation) (\S+)"),
        r"the tables' owner may run: GRANT SELECT, INSERT, UPDATE, DELETE ON \1 TO <role>; and for every other table "
        r"whose name begins with messagebus_",
    ),
    (re.compile(r"permission denied for database (\S+)"), r"its owner may run: GRANT CONNECT ON DATABASE \1 TO <role>"),
    (re.compile(r"must be owner of"), "the tables are another role's, which has to start this version once"),
)


def for_redis(words: str) -> str:
    """What Redis or the way to it said, and what mends it where that is known."""
    return _with_advice(words, _REDIS)


def for_postgres(words: str) -> str:
    """The same of PostgreSQL."""
    return _with_advice(words, _POSTGRES)


def _with_advice(words: str, table: tuple[tuple[re.Pattern[str], str], ...]) -> str:
    for pattern, advice in table:
        found = pattern.search(words)
        if found:
            return f"{words}; {found.expand(advice)}"
    return words
