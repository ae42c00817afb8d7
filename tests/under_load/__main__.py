"""``python -m tests.under_load``: the long form of tests/integration/test_under_load.py, with its real times."""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from .story import LONG, SHORT, judge


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.under_load", description=__doc__)
    parser.add_argument("--clients", type=int)
    parser.add_argument("--short", action="store_true", help="the times of the short form")
    parser.add_argument("--kind", default="serve", help="the server, as in tests/servers.py")
    given = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="messagebus-load-"))
    plan = replace(SHORT if given.short else LONG, kind=given.kind)
    if given.clients is not None:
        plan = replace(plan, clients=given.clients, rooms=max(1, given.clients // 10))
    verdict = judge(plan, directory)
    print(*verdict.lines, f"faults: {len(verdict.faults)}", *verdict.faults[:40], f"logs: {directory}", sep="\n")
    return int(bool(verdict.faults))


if __name__ == "__main__":
    sys.exit(main())
