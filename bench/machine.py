"""This machine: its cores, its limits, what it is called."""

from __future__ import annotations

import os
import platform
import resource
from pathlib import Path

SERVER_CORE = 0
LOAD_CORE = 1 if (os.cpu_count() or 1) > 1 else 0
FILES = 65_536


def pin(core: int | None) -> None:
    """Keep this process on one core; ``None``: on those that the bench uses. Undoes an inherited ``give_way``."""
    os.sched_setaffinity(0, {SERVER_CORE, LOAD_CORE} if core is None else {core})
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def give_way() -> None:
    """Let whatever else wants this process's core have it at once.

    Redis has the load generator's, answers a publisher before it writes to the servers, and would now and then be kept
    from that for milliseconds by a load generator that goes on polling."""
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


def allow_many_files() -> int:
    """Raise the limit of open files for this process and its children. Returns what it is now."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for wanted in (FILES, hard):
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, max(wanted, hard)))
            return wanted
        except (ValueError, OSError):
            continue
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def describe() -> str:
    """Processor, cores, kernel."""
    model = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return f"{model}, {os.cpu_count()} cores, {platform.system()} {platform.release()}"


def load() -> float:
    """Processes that wanted to run, on average over the last minute."""
    return os.getloadavg()[0]
