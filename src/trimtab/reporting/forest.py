"""A forest plot: a dot and a bar a row on one scale, laid out in percent of its width and drawn by the page's CSS."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from trimtab.reporting.sections import Forest
from trimtab.reporting.text import interval, number

EVEN = 50.0  # percent


@dataclass(frozen=True, slots=True)
class LaidRow:
    """A row with its places in percent of the plot's width; None where there is nothing to draw."""

    name: str
    note: str
    kind: str
    at: float | None
    low: float | None
    high: float | None
    was: float | None
    figure: str
    interval: str


@dataclass(frozen=True, slots=True)
class Tick:
    at: float
    label: str


@dataclass(frozen=True, slots=True)
class Layout:
    """A forest plot in percent of its width."""

    label: str
    rows: Sequence[LaidRow]
    even: float | None
    ticks: Sequence[Tick]

    @property
    def has_before(self) -> bool:
        return any(row.was is not None for row in self.rows)


def forest_layout(plot: Forest) -> Layout:
    """All rows on one scale with round ends that hold every value, interval and `even`."""
    ends = [plot.even] + [row.was for row in plot.rows] + [row.estimate.value for row in plot.rows]
    ends += [end for row in plot.rows for end in row.estimate.ci95 or ()]
    low, high, step = _scale([end for end in ends if end is not None] or [0.0, 1.0], plot.even)

    def place(value: float) -> float:
        return round(100 * (value - low) / (high - low), 2)

    def place_known(value: float | None) -> float | None:
        return None if value is None else place(value)

    rows = [
        LaidRow(
            name=row.name,
            note=row.note,
            kind=row.kind,
            at=place_known(row.estimate.value),
            low=None if row.estimate.ci95 is None else place(row.estimate.ci95[0]),
            high=None if row.estimate.ci95 is None else place(row.estimate.ci95[1]),
            was=place_known(row.was),
            figure=number(row.estimate.value, digits=plot.digits),
            interval=interval(row.estimate.ci95, digits=plot.digits),
        )
        for row in plot.rows
    ]
    ticks = [Tick(place(low + i * step), f"{low + i * step:g}") for i in range(round((high - low) / step) + 1)]
    return Layout(plot.label, rows, place_known(plot.even), ticks)


def _scale(values: Sequence[float], even: float | None) -> tuple[float, float, float]:
    """Round ends and a round step that give three to seven ticks; `even` stands inside, not on the edge."""
    low, high = min(values), max(values)
    spread = (high - low) or max(abs(high), 1.0) / 10
    step = 10 ** math.floor(math.log10(spread / 3))
    for factor in (1, 2, 5, 10):
        if spread / (step * factor) <= 5:
            step *= factor
            break
    start, stop = math.floor(low / step), math.ceil(high / step)
    start -= even is not None and even <= start * step
    stop += start == stop or (even is not None and even >= stop * step)
    return round(start * step, 10), round(stop * step, 10), step
