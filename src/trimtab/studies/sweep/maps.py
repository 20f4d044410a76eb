"""The maps of a sweep: one figure of every point, laid out over the first two keys of the grid."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from typing import Any

from trimtab.records import Estimate
from trimtab.studies.sweep.grid import Settings
from trimtab.studies.sweep.numbers import PointNumbers, figure_json
from trimtab.studies.sweep.run_table import Run


@dataclass(frozen=True, slots=True)
class PointResult:
    """A point with the figures over its seeds (None before any is done) and its runs, in the order of the seeds."""

    name: str
    values: Settings
    settings: Settings
    numbers: PointNumbers | None
    runs: tuple[Run, ...]

    def count(self, state: str) -> int:
        return sum(run.state == state for run in self.runs)

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "values": dict(self.values),
            "settings": dict(self.settings),
            "n_done": self.count("done"),
            "n_starved": self.count("starved"),
            "numbers": None if self.numbers is None else self.numbers.to_json(),
            "runs": [run.to_json() for run in self.runs],
        }


@dataclass(frozen=True, slots=True)
class Measure:
    """A figure that every point may have. `rate`: the judge and kind of a win rate."""

    title: str
    unit: str
    read: Callable[[PointNumbers], Estimate | None] = field(compare=False)
    rate: tuple[str, str] | None = None

    @property
    def digits(self) -> int:
        return {"steps": 0, "of 10": 2}.get(self.unit, 1)

    def estimate(self, point: PointResult) -> Estimate | None:
        return None if point.numbers is None else self.read(point.numbers)

    def n_shrunk(self, point: PointResult) -> int:
        """Seeds whose length-controlled rate the L1 penalty shrank to exactly 50."""
        return point.numbers.n_shrunk(self.rate) if point.numbers and self.rate else 0


@dataclass(frozen=True, slots=True)
class FigureMap:
    """A measure over one axis (`column_key` None) or two, at fixed values of the others (`where`).

    `cells`: a row a value of the row axis, a point a value of the column axis.
    """

    measure: Measure
    where: Settings
    row_key: str
    row_values: Sequence[object]
    column_key: str | None
    column_values: Sequence[object]
    cells: Sequence[Sequence[PointResult]]

    def to_json(self) -> dict[str, Any]:
        return {
            "title": self.measure.title,
            "unit": self.measure.unit,
            "where": dict(self.where),
            "rows": {"key": self.row_key, "values": list(self.row_values)},
            "columns": {"key": self.column_key, "values": list(self.column_values)},
            "cells": [[self._cell_json(point) for point in row] for row in self.cells],
        }

    def _cell_json(self, point: PointResult) -> dict[str, Any]:
        estimate, regimes = self.measure.estimate(point), regimes_of(point)
        return {
            "point": point.name,
            "figure": None if estimate is None else figure_json(estimate),
            "starved": regimes.count("starved"),
            "linear": regimes.count("linear"),
            "n_seeds": len(regimes),
        }


def regimes_of(point: PointResult) -> tuple[str | None, ...]:
    """A name a seed that has one."""
    return point.numbers.regimes if point.numbers else ()


def figure_maps(points: Sequence[PointResult], keys: Sequence[str]) -> list[FigureMap]:
    """One map a measure over the first two keys (rows, columns), and one more for each combination of the others."""
    row_key, column_key, fixed_keys = keys[0], keys[1] if len(keys) > 1 else None, keys[2:]
    row_values, column_values = values_of(row_key, points), values_of(column_key, points)
    maps = []
    for measure in measures(points):
        for fixed_values in product(*(values_of(key, points) for key in fixed_keys)):
            where = dict(zip(fixed_keys, fixed_values, strict=True))
            facet = [point for point in points if all(point.values[key] == value for key, value in where.items())]
            cells = _cells(facet, row_key, column_key)
            maps.append(FigureMap(measure, where, row_key, row_values, column_key, column_values, cells))
    return maps


def values_of(key: str | None, points: Sequence[PointResult]) -> list[object]:
    """The values of a key in the order of the grid; of no key, the one value None."""
    values: list[object] = []
    for point in points:
        value = None if key is None else point.values[key]
        if value not in values:
            values.append(value)
    return values


def _cells(facet: Sequence[PointResult], row_key: str, column_key: str | None) -> list[list[PointResult]]:
    by_place = {(str(point.values[row_key]), str(point.values.get(column_key or ""))): point for point in facet}
    columns = values_of(column_key, facet)
    return [[by_place[str(row), str(column)] for column in columns] for row in values_of(row_key, facet)]


def measures(points: Sequence[PointResult]) -> list[Measure]:
    """What any of the points has: win rates, a mean mark, active shares, length, steps to 90 %."""
    known = [point.numbers for point in points if point.numbers is not None]
    labels: dict[tuple[str, str], str] = {}
    for rate in (rate for numbers in known for rate in numbers.win_rates):
        labels.setdefault(rate.key, rate.label)
    marks = [numbers.mark for numbers in known if numbers.mark is not None]
    lengths = [numbers.length for numbers in known if numbers.length is not None]
    return [
        *(
            Measure(
                f"{kind.capitalize()} win rate ({label})",
                "%",
                partial(PointNumbers.win_rate, key=(judge, kind)),
                (judge, kind),
            )
            for (judge, kind), label in labels.items()
        ),
        *(
            Measure(f"Mean mark ({mark.judge})", mark.estimate.unit, lambda n: n.mark.estimate if n.mark else None)
            for mark in marks[:1]
        ),
        Measure("Active pairs at the end", "%", lambda n: n.active.pair.scaled(100, unit="%")),
        Measure("Active chosen responses at the end", "%", lambda n: n.active.chosen.scaled(100, unit="%")),
        Measure("Active rejected responses at the end", "%", lambda n: n.active.rejected.scaled(100, unit="%")),
        *(
            Measure(f"Mean length of an answer ({length.unit})", length.unit, lambda n: n.length)
            for length in lengths[:1]
        ),
        Measure("Steps to 90 % of the final reward accuracy", "steps", lambda n: n.steps_to_90),
    ]
