"""``python -m bench [WORK ...] [--quick]``: run the works, print their tables.

A full run of all works also writes ``bench/results/latest.json`` and the tables in ``docs/performance.md``.
"""

from __future__ import annotations

import argparse
import gc
import sys
import time

from . import machine, report
from .context import Context
from .processes import ROOT, stop_all, stop_on_signals
from .redis_server import RedisServer
from .results import Section
from .works import WORKS


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("works", nargs="*", metavar="WORK", help=f"one of: {', '.join(WORKS)}; all of them if none")
    parser.add_argument("--quick", action="store_true", help="a tenth of the work, once: to see that it runs")
    arguments = parser.parse_args()
    unknown = set(arguments.works) - set(WORKS)
    if unknown:
        parser.error(f"no such work: {', '.join(sorted(unknown))}; there are {', '.join(WORKS)}")
    names = arguments.works or list(WORKS)

    machine.pin(machine.LOAD_CORE)
    machine.give_way()
    files = machine.allow_many_files()
    if files < 20_000:
        print(f"This process may open {files} files, too few for 15,000 subscribers: raise the limit (ulimit -n).")
        return 1
    gc.disable()  # the load generator makes no cycles, and must not stop for them
    stop_on_signals()
    facts = report.circumstances()
    print(f"{facts['machine']}; load average {facts['load_before']}", flush=True)
    sections: dict[str, Section] = {}
    began = time.monotonic()
    redis = None
    try:
        redis = RedisServer()
        context = Context(redis, arguments.quick)
        for name in names:
            print(f"\n{name}", flush=True)
            sections[name] = WORKS[name](context)
            print("\n" + report.show(sections[name]), flush=True)
            facts["highest_load"] = max(facts["highest_load"], round(machine.load(), 2))
            gc.collect()
        facts |= {"runs": context.runs, "minutes": (time.monotonic() - began) / 60}
    except KeyboardInterrupt:
        print("\ninterrupted: nothing is written", file=sys.stderr)
        return 130
    finally:
        stop_all()
        if redis is not None:
            redis.stop()
    missed = [bound for section in sections.values() for bound in section.bounds if not bound.met]
    print(f"{len(names)} works in {facts['minutes']:.1f} min; {len(missed)} bounds missed")
    if arguments.quick:
        print("a short run: it shows that the works run, its figures mean little")
    if not arguments.works and not arguments.quick:
        report.write(facts, sections)
        print(f"written: {report.JSON.relative_to(ROOT)}, {report.DOCUMENT.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
