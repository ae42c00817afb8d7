"""The command ``messagebus`` as people call it: a process with a URL in its environment."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


class Shell:
    """Runs the command as a shell would, with a URL in its environment."""

    def __init__(self, url: str, key: str | None = None) -> None:
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("MESSAGEBUS", "REDIS"))
        }
        self.environment = {**environment, "PYTHONPATH": str(ROOT), "MESSAGEBUS_URL": url}
        if key is not None:
            self.environment["MESSAGEBUS_KEY"] = key
        self.url = url
        self.is_server = url.startswith("http")

    def run(self, *arguments: str, input: str | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "messagebus", *arguments],
            input=input,
            stdin=subprocess.DEVNULL if input is None else None,
            capture_output=True,
            text=True,
            timeout=60,
            env=self.environment,
            check=False,
        )

    def lines(self, *arguments: str, input: str | None = None) -> list[Any]:
        """What it prints, one JSON value a line."""
        done = self.run(*arguments, input=input)
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    def data(self, *arguments: str) -> list[Any]:
        return [message["data"] for message in self.lines(*arguments)]

    def start(self, *arguments: str, stdout: int = subprocess.PIPE) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "messagebus", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.PIPE,
            env=self.environment,
        )
