"""What the kernel says about processes; Linux only, as are the tests that ask."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

PROC = Path("/proc")


def _stat(pid: int) -> list[str]:
    """The fields of ``/proc/PID/stat`` from the third on; empty where the process is gone."""
    try:
        # The second field is the command in brackets and may itself hold blanks and brackets.
        return (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def running(pid: int) -> bool:
    """Whether the process exists and is no zombie."""
    stat = _stat(pid)
    return bool(stat) and stat[0] not in "ZX"


def _pids() -> list[int]:
    return sorted(int(entry.name) for entry in PROC.iterdir() if entry.name.isdigit())


def children(pid: int) -> list[int]:
    return [child for child in _pids() if (stat := _stat(child)) and stat[1] == str(pid) and stat[0] not in "ZX"]


def group_members(group: int) -> list[int]:
    """The running processes of a process group."""
    return [pid for pid in _pids() if (stat := _stat(pid)) and stat[2] == str(group) and stat[0] not in "ZX"]


def cpu_used(pid: int) -> float:
    """Seconds of processor time."""
    fields = _stat(pid)
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def thread_count(pid: int) -> int:
    return len(list((PROC / str(pid) / "task").iterdir()))


def open_fds(pid: int) -> dict[int, str]:
    """Each open descriptor and what it leads to, such as ``socket:[1234]``, ``anon_inode:[eventpoll]`` or a path."""
    found = {}
    for entry in (PROC / str(pid) / "fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed since it was listed
            found[int(entry.name)] = os.readlink(entry)
    return found


def socket_count(pid: int) -> int:
    return sum(target.startswith("socket:") for target in open_fds(pid).values())


def rss_kb(pid: int) -> int:
    """Resident memory in KiB, shared pages included."""
    for line in (PROC / str(pid) / "status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise ProcessLookupError(pid)
