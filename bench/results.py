"""What was measured: rows of figures, each with all its runs, and the bounds that were set. No I/O."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from .contenders import Entry
from .crowd import Failed


@dataclass
class Row:
    """A contender's figures."""

    name: str
    runs: dict[str, list[float]] = field(default_factory=dict)
    """Figure -> its value in each run."""
    failed: str = ""
    """Why there are none: what it lost or repeated."""

    def median(self, figure: str) -> float:
        values = self.runs.get(figure)
        return statistics.median(values) if values and not self.failed else float("nan")

    def add(self, **figures: float) -> None:
        for name, value in figures.items():
            self.runs.setdefault(name, []).append(value)


class Bound(NamedTuple):
    """Something that had to be reached."""

    what: str
    reached: float
    least: float | None = None
    most: float | None = None

    @property
    def met(self) -> bool:
        # A figure that is missing, not a number, meets nothing.
        return self.reached >= self.least if self.least is not None else self.reached <= (self.most or 0.0)

    @property
    def must(self) -> str:
        return f"≥ {self.least:,g}" if self.least is not None else f"≤ {self.most:,g}"


@dataclass
class Section:
    """One work's table."""

    title: str
    figures: dict[str, str]
    """Figure -> its column's title, with the unit."""
    rows: list[Row]
    bounds: list[Bound] = field(default_factory=list)
    reference: str = ""
    """The row that the others are compared with; empty: none."""
    notes: list[str] = field(default_factory=list)

    def median(self, row: str, figure: str) -> float:
        return next((r.median(figure) for r in self.rows if r.name == row), float("nan"))


def measure(
    entries: Sequence[Entry], runs: int, once: Callable[[Entry], dict[str, float]], say: Callable[[str], object]
) -> list[Row]:
    """Have every entry do the same, one after the other, ``runs`` times over; one that fails does not go on."""
    rows = {entry: Row(entry.name) for entry in entries}
    for _ in range(runs):
        for entry in entries:
            row = rows[entry]
            if row.failed:
                continue
            try:
                row.add(**once(entry))
            except Failed as error:
                row.failed = str(error)
            say(f"{row.name}: {row.failed or _last(row)}")
    return list(rows.values())


def _last(row: Row) -> str:
    return ", ".join(f"{name} {values[-1]:,.6g}" for name, values in row.runs.items())


def table(section: Section) -> Iterable[str]:
    """In Markdown, with the ratio to the reference behind each figure."""
    yield f"| | {' | '.join(section.figures.values())} |"
    yield f"| --- |{' --: |' * len(section.figures)}"
    for row in section.rows:
        if row.failed:
            yield f"| {row.name} | not timed: {row.failed} |{' |' * (len(section.figures) - 1)}"
            continue
        cells = []
        for figure in section.figures:
            value = row.median(figure)
            reference = section.median(section.reference, figure)
            ratio = f" ({value / reference:.2f})" if reference > 0 and row.name != section.reference else ""
            cells.append("–" if value != value else number(value) + ratio)
        yield f"| {row.name} | {' | '.join(cells)} |"


def number(value: float) -> str:
    """With as many digits as it deserves."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
