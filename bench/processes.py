"""Starting servers on a core of their own, what they use, and stopping them, whatever happens."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType

from . import machine

ROOT = Path(__file__).parent.parent
TICKS = os.sysconf("SC_CLK_TCK")
_processes: list[Process] = []


class Process:
    """A program with everything that it starts. Ends at the latest when the bench does."""

    def __init__(self, command: Sequence[str], core: int | None, environment: Mapping[str, str] | None = None) -> None:
        self.log = tempfile.TemporaryFile("w+b")  # noqa: SIM115 - lives as long as the process
        self._process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=subprocess.STDOUT,
            # Of its own: Ctrl-C is for the bench, which then ends the others in order.
            start_new_session=True,
            preexec_fn=lambda: machine.pin(core),
        )
        _processes.append(self)

    def pids(self) -> list[int]:
        """It and its descendants."""
        found, new = [], [self._process.pid]
        while new:
            found += new
            children: list[int] = []
            for pid in new:
                with contextlib.suppress(OSError):
                    children += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
            new = children
        return found

    def cpu_seconds(self) -> float:
        ticks = 0
        for pid in self.pids():
            with contextlib.suppress(OSError):
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                ticks += int(fields[11]) + int(fields[12])
        return ticks / TICKS

    def resident_kb(self) -> int:
        size = 0
        for pid in self.pids():
            with contextlib.suppress(OSError):
                for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                    if line.startswith("VmRSS:"):
                        size += int(line.split()[1])
        return size

    def settle(self, timeout: float = 20.0) -> None:
        """Wait until it has nothing left to do: it has used next to no time for a while."""
        deadline = time.monotonic() + timeout
        before = self.cpu_seconds()
        while time.monotonic() < deadline:
            time.sleep(0.15)
            now = self.cpu_seconds()
            if now - before <= 1 / TICKS:
                return
            before = now

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Stop it while its work is put in front of it."""
        os.killpg(self._process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.killpg(self._process.pid, signal.SIGCONT)

    def wait_for(self, port: int, timeout: float = 20.0) -> None:
        """Wait until it listens."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline and self._process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1.0):
                return
            time.sleep(0.05)
        raise RuntimeError(f"{self._process.args!r} does not listen on port {port}:\n{self.output()}")

    def output(self) -> str:
        self.log.seek(0)
        return self.log.read().decode(errors="replace")[-4000:]

    def run(self, timeout: float = 120.0) -> str:
        """Wait until it has ended, and return what it said."""
        try:
            code = self._process.wait(timeout)
            if code:
                raise RuntimeError(f"{self._process.args!r} ended with {code}:\n{self.output()}")
            return self.output()
        finally:
            self.stop()

    def end(self, timeout: float) -> None:
        """Tell it to end, as a supervisor does, and wait until it has."""
        self._process.terminate()
        try:
            self._process.wait(timeout)
        finally:
            self.stop()

    def kill(self) -> None:
        """End it at once, and all that it has started."""
        if self in _processes:
            _processes.remove(self)
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self.log.close()

    def stop(self) -> None:
        if self in _processes:
            _processes.remove(self)
        for number, seconds in ((signal.SIGTERM, 8.0), (signal.SIGKILL, 8.0)):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(seconds)
                break
        self.log.close()


def stop_all() -> None:
    for process in reversed(list(_processes)):
        process.stop()


def stop_on_signals() -> None:
    """Make SIGTERM end the bench as Ctrl-C does, through its ``finally`` clauses; and Ctrl-C also where the shell has
    started it in the background and ignores that."""

    def end(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port
