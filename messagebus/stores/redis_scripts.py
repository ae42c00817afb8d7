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
        text = Path(__file__).with_name(name).read_bytes()
        return cls(text, hashlib.sha1(text, usedforsecurity=False).hexdigest())


PUBLISH = Script.load("publish.lua")
BACKLOGS = Script.load("backlogs.lua")
RENEW_EPOCH = Script.load("renew_epoch.lua")
RIGHTS = Script.load("rights.lua")
REPORT = Script.load("report.lua")
REPORTS = Script.load("reports.lua")
