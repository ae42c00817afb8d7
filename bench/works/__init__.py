"""The works, in the order of the document: name -> function."""

from __future__ import annotations

from collections.abc import Callable

from ..context import Context
from ..results import Section
from . import (
    actions,
    cluster,
    connect,
    eight,
    fan_out,
    idle_cpu,
    idle_memory,
    imports,
    load,
    many_fans,
    many_to_few,
    one_host,
    pages,
    polls,
    presence,
    publish,
    steady,
    storm,
    storm_beyond,
    strangers,
    targeted,
    wire_bytes,
    workers,
)

WORKS: dict[str, Callable[[Context], Section]] = {
    "load": load.run,
    "fan-out": fan_out.run,
    "many-fans": many_fans.run,
    "steady": steady.run,
    "many-to-few": many_to_few.run,
    "targeted": targeted.run,
    "idle-memory": idle_memory.run,
    "connect": connect.run,
    "storm": storm.run,
    "storm-beyond": storm_beyond.beyond,
    "storm-whole": storm_beyond.whole,
    "storm-large": storm_beyond.large,
    "publish": publish.run,
    "pages": pages.run,
    "polls": polls.run,
    "presence": presence.run,
    "actions": actions.run,
    "one-host": one_host.run,
    "import": imports.run,
    "workers": workers.run,
    "strangers": strangers.run,
    "cluster": cluster.run,
    "eight": eight.run,
    "wire-bytes": wire_bytes.run,
    "idle-cpu": idle_cpu.run,
}
