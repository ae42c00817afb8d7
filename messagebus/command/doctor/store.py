"""What the store is, what its user may do, and how it is set."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from typing import Any

from ...errors import BackendUnavailable, MessageBusError
from ...options import Options
from ...urls import redact
from .findings import Finding, ok
from .replicas import judge_replicas, no_replicas

OLDEST_REDIS = (5, 0)
TESTED_REDIS = (6, 2)
OLDEST_POSTGRES = 120000
SMALL_OUTPUT_BUFFER = 32 * 1024 * 1024


class NoStore(Exception):
    """It does not answer. The text says why."""


def check_store(url: str, durable: int = 0) -> list[Finding]:
    """``durable``: how many replicas the bus has its publishes wait for.

    Raises:
        NoStore: It does not answer, or the URL is none that the doctor knows.
    """
    try:
        options = Options(url=url, durable=durable)
        if url.startswith(("redis:", "rediss:", "unix:", "redis+sentinel:", "rediss+sentinel:")):
            return _redis(options)
        if url.startswith(("redis+cluster:", "rediss+cluster:")):
            return _redis_cluster(options)
        if url.startswith(("postgres:", "postgresql:")):
            return _postgres(options) + no_replicas(durable)
        if url.startswith("sqlite:"):
            return _sqlite(options) + no_replicas(durable)
    except MessageBusError as error:
        raise NoStore(f"the store {redact(url)}: {error}") from None
    raise NoStore(f"{redact(url)} is no store that can be looked at: give redis://, postgresql:// or sqlite:///")


def _sqlite(options: Options) -> list[Finding]:
    from ...stores.sqlite import SqliteStore

    with closing(SqliteStore(options)) as store:
        if not os.path.exists(store.path):
            return [ok("store: file", f"{store.path}: the first process will make it")]
        return [ok("store: file", f"{store.path}: {store.state().global_id} messages so far")]


# --- Redis ---


def _redis(options: Options) -> list[Finding]:
    from ...stores.redis import RedisStore

    with closing(RedisStore(options)) as store:
        refused = store.refused_commands()
        facts = store.facts()
    return judge_redis(facts, refused, store.rights(), options.durable)


def _redis_cluster(options: Options) -> list[Finding]:
    from ...stores.redis_cluster import RedisClusterStore

    with closing(RedisClusterStore(options)) as store:
        nodes = store.nodes()
        found = [ok("store: cluster", f"{store.partitions} partitions on {len(nodes)} nodes")]
        for (host, port), part in nodes:
            try:
                refused, facts = part.refused_commands(), part.facts()
                judged = judge_redis(facts, refused, part.rights(), options.durable)
            except BackendUnavailable as error:  # the others are looked at all the same
                advice = "what is published on its partitions waits: start it again, or promote a replica of it"
                judged = [Finding("store: node", "fail", str(error), advice)]
            found += [replace(each, check=f"{each.check} of {host}:{port}") for each in judged]
    return found


def judge_redis(facts: Mapping[str, Any], refused: list[str], rights: str, durable: int = 0) -> list[Finding]:
    """``facts``: of INFO and CONFIG GET, as strings and numbers; a name that is missing may not be asked for.
    ``rights``: of an ``ACL SETUSER`` that suffices. ``durable``: how many replicas publishes wait for."""
    return [
        _redis_version(str(facts.get("redis_version", ""))),
        _redis_rights(refused, rights),
        _eviction(facts),
        _output_buffer(facts),
        _persistence(facts),
        judge_replicas(facts, durable),
    ]


def _redis_version(version: str) -> Finding:
    check = "store: version"
    if not version:
        return Finding(
            check, "warn", "unknown: this user may not run INFO", "", {"redis-cli": ("ACL SETUSER <user> +info",)}
        )
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if numbers < OLDEST_REDIS:
        return Finding(check, "fail", f"Redis {version}", "Redis 5 is the oldest that has what the bus needs")
    if numbers < TESTED_REDIS:
        return Finding(check, "warn", f"Redis {version}", "Redis 6.2 is the oldest that it was tried with")
    return ok(check, f"Redis {version}")


def _redis_rights(refused: list[str], rights: str) -> Finding:
    check = "store: rights"
    if not refused:
        return ok(check, "all commands that the bus runs")
    rule = f"ACL SETUSER <user> {rights}"
    return Finding(
        check, "fail", f"may not run {', '.join(refused)}", "give this user the rights", {"redis-cli": (rule,)}
    )


def _eviction(facts: Mapping[str, Any]) -> Finding:
    check, policy, limit = "store: eviction", facts.get("maxmemory_policy"), int(facts.get("maxmemory") or 0)
    if policy is None:
        return Finding(check, "warn", "unknown: this user may not run INFO memory", "let it be noeviction")
    lines = {"redis.conf": ("maxmemory-policy noeviction",), "redis-cli": ("CONFIG SET maxmemory-policy noeviction",)}
    if policy == "noeviction":
        return ok(check, "noeviction")
    found = f"{policy}, with maxmemory {limit}"
    if limit:
        return Finding(check, "fail", found, "full, it deletes backlogs: clients lose messages", lines)
    return Finding(check, "warn", found, "once maxmemory is set, it deletes backlogs", lines)


def _output_buffer(facts: Mapping[str, Any]) -> Finding:
    check, limits = "store: output buffer", facts.get("client-output-buffer-limit")
    if limits is None:
        return Finding(check, "warn", "unknown: this user may not run CONFIG GET", "default: pubsub 32mb 8mb 60")
    words = str(limits).split()
    hard, soft = (int(each) for each in words[words.index("pubsub") + 1 :][:2]) if "pubsub" in words else (0, 0)
    rule = "pubsub 128mb 64mb 60"
    if 0 < hard < SMALL_OUTPUT_BUFFER:
        return Finding(
            check,
            "warn",
            f"pubsub: cut at {hard} bytes",
            "a burst of large messages cuts the processes' feeds; they come back and read it again",
            {
                "redis.conf": (f"client-output-buffer-limit {rule}",),
                "redis-cli": (f'CONFIG SET client-output-buffer-limit "{rule}"',),
            },
        )
    return ok(check, f"pubsub: {hard or 'no limit'} bytes at once, {soft or 'no limit'} for a while")


def _persistence(facts: Mapping[str, Any]) -> Finding:
    check = "store: persistence"
    if "aof_enabled" not in facts:
        return Finding(check, "warn", "unknown: this user may not run INFO persistence")
    lines = {"redis.conf": ("appendonly yes", "appendfsync everysec")}
    if int(facts["aof_enabled"]):
        if str(facts.get("aof_last_write_status", "ok")) != "ok":
            return Finding(check, "fail", "the append-only file cannot be written", "is the disk full?")
        return ok(check, "append-only file")
    saves = facts.get("save")
    if saves:
        return Finding(check, "warn", f"snapshots ({saves})", "a crash loses what came since the last one", lines)
    if saves is None:
        return Finding(check, "warn", "no append-only file", "a crash may lose messages", lines)
    return Finding(check, "warn", "none", "a restart of Redis forgets all backlogs", lines)


# --- PostgreSQL ---


def _postgres(options: Options) -> list[Finding]:
    from ...stores.postgres import PostgresStore

    with closing(PostgresStore(options)) as store:
        return judge_postgres(*store.facts())


def judge_postgres(
    number: int,
    version: str,
    may_create: bool,
    schema: str,
    user: str,
    is_replica: bool,
    fsync: str,
    commits: str,
    allowed: int,
    connections: int,
) -> list[Finding]:
    findings = [
        ok("store: version", f"PostgreSQL {version}")
        if number >= OLDEST_POSTGRES
        else Finding("store: version", "fail", f"PostgreSQL {version}", "12 is the oldest that can be used")
    ]
    if is_replica:
        findings.append(Finding("store: rights", "fail", "a replica, which takes no writes", "give the primary's URL"))
    elif may_create:
        findings.append(ok("store: rights", f"{user} may use and create in schema {schema}"))
    else:
        grant = f"GRANT USAGE, CREATE ON SCHEMA {schema or '<schema>'} TO {user};"
        words = f"{user} may not create in schema {schema or '(none)'}"
        advice = "needed at the first start, and after an update that changes tables"
        findings.append(Finding("store: rights", "warn", words, advice, {"psql": (grant,)}))
    findings.append(ok("store: eviction", "PostgreSQL evicts nothing"))
    if fsync == "off":
        lines = {"postgresql.conf": ("fsync = on",)}
        findings.append(Finding("store: persistence", "fail", "fsync is off", "a crash may ruin the database", lines))
    elif commits == "off":
        words, lines = "synchronous_commit is off", {"postgresql.conf": ("synchronous_commit = on",)}
        advice = "a crash loses the newest messages, whose ids are then given again"
        findings.append(Finding("store: persistence", "warn", words, advice, lines))
    else:
        findings.append(ok("store: persistence", f"fsync on, synchronous_commit {commits}"))
    found = f"{connections} of {allowed}"
    if connections > allowed * 0.8:
        lines = {"postgresql.conf": (f"max_connections = {allowed * 2}",)}
        findings.append(Finding("store: connections", "warn", found, "nearly all are taken", lines))
    else:
        findings.append(ok("store: connections", found))
    return findings
