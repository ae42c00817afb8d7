"""ActionCable of Rails, on puma and Redis. ``works.actions`` speaks to it on its own wire."""

from __future__ import annotations

import subprocess

from ..machine import SERVER_CORE
from ..processes import ROOT, Process, free_port
from ..redis_server import RedisServer
from .base import Server

GEMS = ("actioncable", "puma", "redis")
_VERSIONS = "puts ARGV.map { |name| Gem::Specification.find_by_name(name).version }"


class ActionCable(Server):
    name = "ActionCable, puma"

    def __init__(self, redis: RedisServer) -> None:
        self.port = free_port()
        command = ["puma", "--bind", f"tcp://127.0.0.1:{self.port}", str(ROOT / "bench/servers/action_cable.ru")]
        environment = {"REDIS_URL": redis.url(), "RACK_ENV": "production"}
        self.process = Process(command, SERVER_CORE, environment)
        self.process.wait_for(self.port)


def action_cable_versions() -> dict[str, str] | None:
    """Those of its gems; ``None``: they are not all there, or Ruby is not."""
    try:
        said = subprocess.run(["ruby", "-e", _VERSIONS, *GEMS], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    return dict(zip(GEMS, said.split(), strict=True))
