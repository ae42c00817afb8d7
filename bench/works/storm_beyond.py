"""Reconnect storms of clients that are served more than the newest messages: those that were away for longer than the
backlog reaches, those that ask for all of it, and those that return to a large one."""

from __future__ import annotations

from ..contenders import MessageBus
from ..context import Context
from ..results import Bound, Section, measure
from .storm import TRANSPORTS, Backlog, figures, held, section

CLIENTS = 1000
KEPT = 1000
"""Messages, as ``max_backlog_size`` has it."""
WHOLE = 500
LARGE_CLIENTS, LARGE_MESSAGES, LARGE_SIZE = 400, 250, 40_000
MOST_GROWN = 2.0
"""Times the backlog."""


def _run(context: Context, title: str, clients: int, backlog: Backlog) -> Section:
    with context.started(MessageBus(), MessageBus(context.redis)) as entries:
        rows = measure(held(entries), context.runs, lambda e: figures(context, e, clients, backlog), context.say)
    return section(title, clients, rows)


def beyond(context: Context) -> Section:
    clients = context.some(CLIENTS)
    title = f"Storm beyond the backlog: {clients:,} clients, further behind than its {KEPT:,} messages"
    return _run(context, title, clients, Backlog(KEPT + 100, 160, 5, KEPT))


def whole(context: Context) -> Section:
    clients = context.some(CLIENTS)
    title = f"Storm from 0: {clients:,} clients, each asking for all {WHOLE} messages"
    return _run(context, title, clients, Backlog(WHOLE, 160, 0, WHOLE))


def large(context: Context) -> Section:
    clients = context.some(LARGE_CLIENTS)
    megabytes = LARGE_MESSAGES * LARGE_SIZE / 1_000_000
    title = f"Storm to a large backlog: {clients:,} clients, {megabytes:.0f} MB each"
    made = _run(context, title, clients, Backlog(LARGE_MESSAGES, LARGE_SIZE, 0, LARGE_MESSAGES))
    for transport in TRANSPORTS:
        grown = made.median(f"messagebus, Redis, {transport}", "grown")
        what = f"storm to a large backlog, {transport}, growth of the server to the backlog"
        made.bounds.append(Bound(what, grown / megabytes, most=MOST_GROWN))
    return made
