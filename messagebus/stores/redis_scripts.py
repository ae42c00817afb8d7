"""The scripts that run in Redis. Each stands in a file of its own beside this one, with its keys and arguments."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import NamedTuple


class Script(NamedTuple):
    text: bytes
    sha: str

    @classmethod
    def load(cls, name: str) -> Script:
        return cls.of(Path(__file__).with_name(name).read_bytes())

    @classmethod
    def of(cls, text: bytes) -> Script:
        return cls(text, hashlib.sha1(text, usedforsecurity=False).hexdigest())

    def sharded(self) -> Script:
        """The same script with the pub/sub channels of a cluster's shards in place of the common ones."""
        text = self.text.replace(b"IS_SHARDED = false", b"IS_SHARDED = true")
        return Script.of(text.replace(b'"PUBLISH"', b'"SPUBLISH"'))


PUBLISH = Script.load("publish.lua")
BACKLOGS = Script.load("backlogs.lua")
RENEW_EPOCH = Script.load("renew_epoch.lua")
RENEW_HISTORY = Script.load("renew_history.lua")
RIGHTS = Script.load("rights.lua")
REPORT = Script.load("report.lua")
REPORTS = Script.load("reports.lua")
CLUSTER_LAYOUT = Script.load("cluster_layout.lua")
