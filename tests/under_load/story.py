"""What happens to the deployment while clients publish, and what has to be true afterwards."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests import processes
from tests.clients import WebSocket

from .people import crowd
from .site import NAMES, Site, deployed, stored

GHOSTS = 4
"""Members on the server whose worker is killed, who do not come back."""
SPARE_SOCKETS, SPARE_THREADS, SPARE_KB = 25, 40, 60_000
"""What a worker may have more of at the end than at the beginning: connections to the store, threads of its pools."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How much and how long; times are in seconds."""

    clients: int
    rooms: int
    every: float
    """Between two publishes of a client."""
    steady: float
    """Before, between and after what happens."""
    silent: float
    """After so much silence a worker counts as dead: 25 s, where not told otherwise."""
    grace: float
    """Of presence: above the longest time for which a client finds no way. A request that reaches the server which is
    cut off from Redis waits as long as that."""
    cut: float
    """For how long there is no way between nginx and a server."""
    down: float
    """For how long Redis is not there."""
    stalled: float
    """For how long nothing comes through between a server and Redis."""
    kind: str = "serve"
    longest: float = 280.0
    """For the whole of it."""


LONG = Plan(clients=200, rooms=20, every=5.0, steady=5.0, silent=25.0, grace=15.0, cut=3.0, down=10.0, stalled=10.0)
SHORT = Plan(clients=60, rooms=6, every=1.5, steady=1.0, silent=12.0, grace=8.0, cut=2.0, down=4.0, stalled=4.0)


@dataclass
class Verdict:
    faults: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)

    def check(self, is_right: bool, fault: str) -> None:
        if not is_right:
            self.faults.append(fault)


async def until(condition: Callable[[], bool], timeout: float) -> bool:
    """Whether it comes true in that time; it is asked in a thread, as it may block, and seldom: it takes time from the
    clients."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if await asyncio.to_thread(condition):
            return True
        await asyncio.sleep(1.0)
    return False


class Story:
    def __init__(self, plan: Plan, site: Site) -> None:
        self.plan = plan
        self.site = site
        self.verdict = Verdict()
        self.people = crowd(site.url, plan.clients, plan.rooms)
        self.rooms = sorted({person.room for person in self.people})
        self.killed_at = 0.0
        self.killed: list[int] = []
        self.began = time.monotonic()

    def say(self, text: str) -> None:
        line = f"{time.monotonic() - self.began:6.1f} s  {text}"
        self.verdict.lines.append(line)
        print(line, file=sys.stderr, flush=True)

    async def tell(self) -> Verdict:
        site, verdict = self.site, self.verdict
        before = {name: self._used(name) for name in NAMES}
        ghosts = await asyncio.to_thread(self._haunt)
        for batch in range(0, len(self.people), 20):
            await asyncio.gather(*(person.begin() for person in self.people[batch : batch + 20]))
        names = {room: {p.name for p in self.people if p.room == room} for room in self.rooms}
        names[self.rooms[0]] |= {f"ghost{number}" for number in range(GHOSTS)}
        await self._check_presence(names, "at the beginning")
        self.say(f"{len(self.people)} clients are there")

        stop = asyncio.Event()
        publishing = [asyncio.create_task(person.publish_until(stop, self.plan.every)) for person in self.people]
        await asyncio.sleep(self.plan.steady)
        await self._happens()
        await asyncio.sleep(self.plan.steady)
        stop.set()
        await asyncio.wait_for(asyncio.gather(*publishing), 60.0)
        self.say("nobody publishes any more")

        counts = await asyncio.to_thread(self._count_stored)
        arrived = await until(lambda: all(p.seen >= counts[p.room] or not p.seen for p in self.people), 30.0)
        late = [
            f"{p.name} ({p.kind}) has {p.seen} of {counts[p.room]}" for p in self.people if 0 < p.seen < counts[p.room]
        ]
        verdict.check(arrived, f"messages did not arrive: {late}")
        names[self.rooms[0]] -= {f"ghost{number}" for number in range(GHOSTS)}
        await self._check_presence(names, "at the end")
        self._check_log()
        for person in self.people:
            verdict.faults.extend(person.faults)

        # Half of them leave by themselves; the others are there when the servers are told to stop.
        for person in self.people[::2]:
            await person.end()
        for ghost in ghosts:
            ghost.cut()
        others = self.people[1::2]
        stopping = [asyncio.to_thread(server.stop, 60.0) for server in site.servers.values()]
        self._check_used(before, len(others))
        codes = await asyncio.gather(*stopping)
        self.say("the servers have stopped")
        verdict.check(codes == [0, 0], f"the servers ended with {codes}")
        for person in others:
            await person.end()
        begun, ended = (Counter(site.count(word, self.killed)) for word in ("subscribed", "unsubscribed"))
        verdict.check(begun == ended, f"subscribed, and not unsubscribed: {begun - ended}; too often: {ended - begun}")
        self.say(f"{len(begun)} subscriptions have ended, each once")
        return verdict

    # --- what happens ---

    async def _happens(self) -> None:
        site, plan = self.site, self.plan
        east = site.servers["east"]
        self.killed = east.worker_pids()
        self.killed_at = time.time()
        for pid in self.killed:
            os.kill(pid, signal.SIGKILL)
        back = await until(lambda: not {*self.killed} & {*east.worker_pids()} and self._answers("east"), 30.0)
        self.verdict.check(back, "the worker did not come back")
        self.say("a worker was killed, and another one is there")
        await asyncio.sleep(plan.steady)

        site.to_server["west"].close()
        await asyncio.sleep(plan.cut)
        site.to_server["west"].open()
        self.say("the way between nginx and a server was cut")

        gone = await until(lambda: len(self._log("left")) >= GHOSTS, 1.2 * plan.silent + 5.0)
        self.verdict.check(gone, "the members of the killed process are still there")
        self.say("the members of the killed process are gone")

        await asyncio.to_thread(site.redis.kill)
        await asyncio.sleep(plan.down)
        await asyncio.to_thread(site.redis.start)
        self.say("Redis was away, and is back")
        await asyncio.sleep(plan.steady + 3.0)

        site.to_redis["west"].stall()
        await asyncio.sleep(plan.stalled)
        site.to_redis["west"].cut()
        site.to_redis["west"].stall(False)
        self.say("the way between a server and Redis was cut")
        await asyncio.sleep(plan.steady)

    def _haunt(self) -> list[WebSocket]:
        ghosts = []
        for number in range(GHOSTS):
            headers = {"X-User": f"ghost{number}"}
            ghost = WebSocket(self.site.servers["east"].url, {self.rooms[0]: -1}, headers=headers)
            ghost.reconnect()
            ghosts.append(ghost)
        return ghosts

    def _answers(self, name: str) -> bool:
        try:
            return self.site.servers[name].get("/hello")[0] == 200
        except OSError:
            return False

    # --- what has to be true ---

    def _seen(self, names: dict[str, set[str]]) -> list[str]:
        told = []
        for name in NAMES:
            found = self.site.ask(name, f"/members?rooms={','.join(self.rooms)}")
            for room, there in names.items():
                missing, more = there - {*found[room]}, {*found[room]} - there
                if missing or more:
                    told.append(f"{name} {room}: {sorted(missing)} are missing, {sorted(more)} should not be there")
        return told

    async def _check_presence(self, names: dict[str, set[str]], when: str) -> None:
        if not await until(lambda: not self._seen(names), 30.0):
            self.verdict.faults.append(f"presence {when}: {await asyncio.to_thread(self._seen, names)}")

    def _log(self, word: str) -> list[tuple[str, float]]:
        return [(who, at) for said, who, at in stored(self.site.redis, "/log") if said == word]

    def _check_log(self) -> None:
        joined, left = Counter(who for who, _ in self._log("joined")), self._log("left")
        here = {person.name for person in self.people} | {f"ghost{number}" for number in range(GHOSTS)}
        self.verdict.check(
            joined == Counter(here), f"came more or less than once: {joined - Counter(here)}, {Counter(here) - joined}"
        )
        by_name = {person.name: person for person in self.people}
        wrong = [
            f"{who} ({by_name[who].kind}) {at - self.killed_at:.1f} s after the kill: "
            + "; ".join(
                f"{was - self.killed_at:.1f} {what}" for was, what in by_name[who].states if at - 20 < was < at + 5
            )
            for who, at in left
            if not who.startswith("ghost")
        ]
        self.verdict.check(not wrong, f"left though they were there: {wrong}")
        after = sorted(at - self.killed_at for who, at in left if who.startswith("ghost"))
        self.verdict.check(len(after) == GHOSTS, f"{len(after)} of {GHOSTS} ghosts have left")
        if after:
            self.say(f"those of the killed process left after {after[0]:.1f} to {after[-1]:.1f} s")
            in_time = 0.8 * self.plan.silent <= after[0] and after[-1] <= 1.2 * self.plan.silent
            self.verdict.check(in_time, f"they left after {after} s, not after about {self.plan.silent:g} s")

    def _count_stored(self) -> dict[str, int]:
        """Every publish that was answered is stored once and in order, others at most once. How many each room has."""
        counts = {}
        by_name = {person.name: person for person in self.people}
        for room in self.rooms:
            messages = stored(self.site.redis, room)
            counts[room] = len(messages)
            found: dict[str, list[int]] = {}
            for data in messages:
                found.setdefault(data["by"], []).append(data["n"])
            for name in {person.name for person in self.people if person.room == room}:
                person, numbers = by_name[name], found.get(name, [])
                twice = [number for number, times in Counter(numbers).items() if times > 1]
                self.verdict.check(not twice, f"{name} ({person.kind}): stored twice: {twice}")
                answered = {*person.acknowledged}
                order = [number for number in dict.fromkeys(numbers) if number in answered]
                lost = sorted(answered - {*numbers})
                self.verdict.check(not lost, f"{name} ({person.kind}): answered, and not stored: {lost}")
                self.verdict.check(
                    order == sorted(order), f"{name} ({person.kind}): in another order: {_disorder(order)}"
                )
        answered_, unknown = sum(len(p.acknowledged) for p in self.people), sum(len(p.unknown) for p in self.people)
        why = Counter((p.kind, word) for p in self.people for _, word in p.unknown)
        slowest = max(self.people, key=lambda person: person.slowest)
        self.say(
            f"{answered_} publishes were answered and {unknown} were not {dict(why)}; {sum(counts.values())} are stored"
        )
        self.say(f"the slowest answer took {slowest.slowest:.1f} s ({slowest.kind})")
        return counts

    def _used(self, name: str) -> tuple[int, int, int]:
        server = self.site.servers[name]
        pid = server.worker_pids()[0]
        return processes.socket_count(pid), processes.thread_count(pid), processes.rss_kb(pid)

    def _check_used(self, before: dict[str, tuple[int, int, int]], connections: int) -> None:
        for name in NAMES:
            sockets, threads, kb = self._used(name)
            self.say(f"{name}: {sockets} sockets, {threads} threads, {kb / 1000:.0f} MB (before: {before[name]})")
            self.verdict.check(sockets <= before[name][0] + connections + SPARE_SOCKETS, f"{name}: {sockets} sockets")
            self.verdict.check(threads <= before[name][1] + SPARE_THREADS, f"{name}: {threads} threads")
            self.verdict.check(kb <= before[name][2] + SPARE_KB, f"{name}: {kb} kB")


def _disorder(numbers: Sequence[int]) -> list[tuple[int, int]]:
    return [(before, after) for before, after in itertools.pairwise(numbers) if after < before]


async def _run(plan: Plan, directory: Path) -> Verdict:
    settings = {"SILENT_SECONDS": str(plan.silent), "MESSAGEBUS_PRESENCE_GRACE": str(plan.grace)}
    async with deployed(directory, plan.kind, **settings) as site:
        story = Story(plan, site)
        try:
            return await asyncio.wait_for(story.tell(), plan.longest)
        finally:
            for name, server in site.servers.items():
                (directory / f"{name}.log").write_text(server.output())


def judge(plan: Plan, directory: Path) -> Verdict:
    """``directory``: an empty one, which keeps what the servers said."""
    return asyncio.run(_run(plan, directory))
