"""The limits of the machine and of its processes that bound how many clients one has."""

from __future__ import annotations

import os
import platform
from pathlib import Path

from ...options import Options
from .findings import Finding, Result, ok

FILES_BESIDE = 64
"""Open files of a process beside its subscribers."""
FEW_FILES = 1024
QUEUE = 1024
PORTS = 20_000
_KERNEL = Path("/proc/sys/net")


def check_machine(options: Options, kernel: Path = _KERNEL) -> list[Finding]:
    """Of the machine that the command runs on: run it where the server runs."""
    return [check_files(options.max_active_clients, *_files()), *check_kernel(kernel)]


def _files() -> tuple[int, int]:
    try:
        import resource
    except ImportError:
        return -1, -1
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    infinity = resource.RLIM_INFINITY
    return (-1 if soft == infinity else soft), (-1 if hard == infinity else hard)


def check_files(clients: int, soft: int, hard: int) -> Finding:
    """``soft`` and ``hard``: the limits of open files; -1: none."""
    check, needed = "files: one for each client", clients + FILES_BESIDE
    lines = {
        "systemd": (f"LimitNOFILE={needed}",),
        "/etc/security/limits.conf": (f"* soft nofile {needed}", f"* hard nofile {needed}"),
        "docker": (f"--ulimit nofile={needed}:{needed}",),
    }
    if soft == -1 or soft >= needed:
        return ok(check, f"ulimit -n is {'unlimited' if soft == -1 else soft}, max_active_clients {clients}")
    found = f"ulimit -n is {soft} (at most {'any' if hard == -1 else hard}), max_active_clients {clients}"
    if hard == -1 or hard >= needed:
        advice = "messagebus serve raises it by itself; raise it for other servers"
        return Finding(check, "warn", found, advice, {**lines, "shell": (f"ulimit -n {needed}",)})
    result: Result = "warn" if hard >= FEW_FILES else "fail"
    return Finding(check, result, found, "raise the limit, or lower max_active_clients", lines)


def check_kernel(kernel: Path = _KERNEL) -> list[Finding]:
    """``kernel``: where Linux shows its network's settings."""
    if not kernel.is_dir():
        return [
            Finding("kernel: limits", "warn", f"unknown on {platform.system()}", "look by hand, where there are any")
        ]
    findings = []
    queue = _numbers(kernel / "core/somaxconn")
    if queue and queue[0] < QUEUE:
        line = f"net.core.somaxconn = {QUEUE * 4}"
        advice = "after a restart everybody comes at once, and the queue is too short"
        findings.append(
            Finding("kernel: somaxconn", "warn", str(queue[0]), advice, {"/etc/sysctl.d/90-messagebus.conf": (line,)})
        )
    elif queue:
        findings.append(ok("kernel: somaxconn", str(queue[0])))
    ports = _numbers(kernel / "ipv4/ip_local_port_range")
    if len(ports) == 2 and ports[1] - ports[0] < PORTS:
        advice = "a proxy takes a port of its own for each subscriber of an upstream; or let it use a Unix socket"
        line = "net.ipv4.ip_local_port_range = 10240 65535"
        found = f"{ports[0]} to {ports[1]}"
        findings.append(
            Finding("kernel: port range", "warn", found, advice, {"/etc/sysctl.d/90-messagebus.conf": (line,)})
        )
    elif len(ports) == 2:
        findings.append(ok("kernel: port range", f"{ports[0]} to {ports[1]}"))
    return findings


def _numbers(path: Path) -> list[int]:
    try:
        return [int(word) for word in path.read_text(encoding="ascii").split()]
    except (OSError, ValueError):
        return []


def environment_url() -> str | None:
    """The store's URL that the environment says, as a bus takes it."""
    return os.environ.get("MESSAGEBUS_URL") or os.environ.get("REDIS_URL") or None
