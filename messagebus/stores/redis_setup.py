"""How a Redis is set up: what this user may do there, and what makes it lose messages."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import Any

import redis

from ..errors import BackendUnavailable, InvalidOption, PublishRefused
from .advice import redis_commands, redis_rights
from .redis_access import RedisAccess
from .redis_scripts import RIGHTS

logger = logging.getLogger("messagebus.stores")


class RedisSetup(RedisAccess):
    """The store's questions about its server and its user."""

    def _clear(self) -> None:
        super()._clear()
        self._findings: list[str] = []
        self._may_wait = False

    def check_setup(self) -> None:
        """Say in the log what this user may not do, and what is set so that messages will be lost. For the feed, when
        it connects."""
        findings = []
        try:
            self.check()
        except BackendUnavailable:
            return
        except (PublishRefused, InvalidOption) as error:
            findings.append(str(error))
        try:
            memory = self._client().info("memory")
        except (redis.RedisError, OSError):
            memory = {}  # it may not ask that, and need not
        policy = memory.get("maxmemory_policy", "noeviction")
        if memory.get("maxmemory") and policy != "noeviction":
            findings.append(
                f"Redis at {self.where}: maxmemory-policy is {policy}, which deletes backlogs: "
                "CONFIG SET maxmemory-policy noeviction"
            )
        findings += self._missing_replicas()
        for finding in findings:
            if finding not in self._findings:
                logger.error("%s", finding)
        self._findings = findings

    def _missing_replicas(self) -> list[str]:
        wanted = self._options.durable
        if not wanted:
            return []
        try:
            replicas = self._client().info("replication")["connected_slaves"]
        except (redis.RedisError, OSError, KeyError):
            return []  # it may not ask that, and need not
        if replicas >= wanted:
            return []
        return [
            f"Redis at {self.where}: durable is {wanted}, and {replicas} replicas are connected: publishes raise "
            "NotDurable meanwhile"
        ]

    def check(self) -> None:
        """See ``Store``."""
        try:
            refused = self._refused()
        except (redis.RedisError, OSError) as error:
            raise self._explain(error) from error
        if refused:
            raise PublishRefused(
                f"Redis at {self.where}: this user may not run {', '.join(refused)}; it needs: "
                f"ACL SETUSER <user> {self.rights()}",
                "forbidden",
            )

    def rights(self) -> str:
        """The rules of an ``ACL SETUSER`` that suffice."""
        return " ".join([redis_rights(self.pubsub_channel, self.by_channel), *[f"+{each}" for each in self.waits]])

    @property
    def waits(self) -> tuple[str, ...]:
        """The command that is needed as well where every publish waits for replicas."""
        return ("wait",) if self._options.durable else ()

    @property
    def pubsub_channel(self) -> str:
        """What processes listen to for what is published."""
        return self._pubsub_channel.decode(errors="replace")

    def refused_commands(self) -> list[str]:
        """Those of the commands that the bus runs which this user may not run.

        Raises:
            BackendUnavailable: Redis does not answer, or does not even let it ask (``reason`` is ``forbidden``).
        """
        with self._errors():
            return self._refused()

    def _refused(self) -> list[str]:
        channels = (self._pubsub_channel, self._announcements, self.own_prefix + b"/" if self.by_channel else b"")
        refused = self._run(
            RIGHTS, (1, self.keys.backlog + b"/", *channels, *redis_commands(self.by_channel), *self.waits)
        )
        return [command.decode() for command in refused]

    def facts(self) -> dict[str, Any]:
        """What INFO and CONFIG GET say of the server, memory, persistence and replicas; without what this user may not
        ask."""
        facts: dict[str, Any] = {}
        with self._errors():
            client = self._client()
            for section in ("server", "memory", "persistence", "replication"):
                with suppress(redis.ResponseError):
                    facts |= client.info(section)
            for name in ("client-output-buffer-limit", "save", "min-replicas-to-write"):
                with suppress(redis.ResponseError):
                    facts |= client.config_get(name)
        return facts

    def _check_may_wait(self) -> None:
        """Before anything is written: what is stored and cannot be waited for is neither done nor undone."""
        if self._may_wait:
            return
        try:
            refused = self._run(
                RIGHTS, (1, self.keys.backlog + b"/", self._pubsub_channel, self._announcements, "", "wait")
            )
        except (redis.RedisError, OSError) as error:
            raise self._explain(error) from error
        if refused:
            raise PublishRefused(
                f"Redis at {self.where}: this user may not run wait, which durable needs: ACL SETUSER <user> +wait",
                "forbidden",
            )
        self._may_wait = True
