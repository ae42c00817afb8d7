"""Which replicas a Redis has, and whether publishes that wait for them (``durable``) can end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...options import NO_REPLICAS
from .findings import Finding, Lines, ok

CHECK = "store: replicas"
SILENT_SECONDS = 10
"""Without a word of a replica, after which Redis itself (``min-replicas-max-lag``) no longer counts on it. One says
every second how far it is."""
_HOW_TO_ADD: Lines = {
    "redis.conf of a replica": ("replicaof <this host> <this port>", "masterauth <password>  # where one is needed")
}
_HOW_TO_ADD_TO_A_CLUSTER: Lines = {
    "shell": ("redis-cli --cluster add-node <new host>:<port> <this host>:<port> --cluster-slave",)
}


def judge_replicas(facts: Mapping[str, Any], durable: int) -> Finding:
    """``facts``: of INFO and CONFIG GET, see ``judge_redis``. ``durable``: how many replicas publishes wait for; 0: the
    bus asks for none."""
    if "connected_slaves" not in facts:
        return Finding(CHECK, "warn", "unknown: this user may not run INFO", "", {"redis-cli": _MAY_ASK})
    is_cluster = facts.get("redis_mode") == "cluster"
    if facts.get("role") != "master":
        primary = f"{facts.get('master_host')}:{facts.get('master_port')}"
        advice = "ask again when its failover is over" if is_cluster else "give the primary's URL"
        return Finding(CHECK, "fail", f"this is a replica of {primary}, which takes no writes", advice)
    there, late = _replicas(facts)
    lines = _HOW_TO_ADD_TO_A_CLUSTER if is_cluster else _HOW_TO_ADD
    found = f"{there or 'none'} in step" if late else str(there or "none")
    found = "; ".join([found, *late])
    needed = int(facts.get("min-replicas-to-write") or 1)
    if facts.get("min_slaves_good_slaves", needed) < needed:  # it is there where the setting is in force
        found = f"{found}; min-replicas-to-write is {needed}: Redis refuses every write"
        own = {"redis-cli": (f"CONFIG SET min-replicas-to-write {there}",)}
        return Finding(CHECK, "fail", found, "connect more replicas, or lower it", {**lines, **own})
    if there < durable:
        advice = f"each publish is stored and raises NotDurable: connect {durable - there} more, or lower durable"
        return Finding(CHECK, "fail", f"{found}; durable={durable} cannot be met", advice, lines)
    found += f"; durable={durable} can be met" if durable else f"; {_what_it_allows(there)}"
    found += ", while none of them is away" if durable == there > 0 else ""
    if late:
        return Finding(CHECK, "warn", found, "durable counts on those in step alone: look at the others' logs")
    return ok(CHECK, found)


def no_replicas(durable: int) -> list[Finding]:
    """Of a store that has no replicas which a publish could wait for."""
    return [Finding(CHECK, "fail", f"durable={durable}: {NO_REPLICAS}", "unset durable")] if durable else []


_MAY_ASK = ("ACL SETUSER <user> +info",)


def _what_it_allows(there: int) -> str:
    return f"up to durable={there} can be met" if there else "publishes with durable=1 would raise NotDurable"


def _replicas(facts: Mapping[str, Any]) -> tuple[int, list[str]]:
    """How many are in step, and what is the matter with each of the others."""
    there, late = 0, []
    for number in range(int(facts["connected_slaves"])):
        replica = facts.get(f"slave{number}")
        if not isinstance(replica, Mapping):
            continue
        place = f"{replica.get('ip')}:{replica.get('port')}"
        state, lag = str(replica.get("state")), int(replica.get("lag", 0))
        if state != "online":
            late.append(f"{place} is still copying ({state})")
        elif lag > SILENT_SECONDS:
            late.append(f"{place} has been silent for {lag} s")
        else:
            there += 1
    return there, late
