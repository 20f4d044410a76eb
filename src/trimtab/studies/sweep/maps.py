"""The maps of a sweep: one figure of every point, laid out over the first two keys of the grid."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

from trimtab.records import Estimate
from trimtab.studies.sweep.grid import Settings
from trimtab.studies.sweep.job import State
from trimtab.studies.sweep.numbers import JudgeRate, PointNumbers, figure_json
from trimtab.studies.sweep.run_table import Run


@dataclass(frozen=True, slots=True)
class PointResult:
    """A point with the figures over its seeds (None before any is done) and its runs, in the order of the seeds."""

    name: str
    values: Settings
    settings: Settings
    numbers: PointNumbers | None
    runs: tuple[Run, ...]

    @property
    def win_rates(self) -> Sequence[JudgeRate]:
        return self.numbers.answers.win_rates if self.numbers else ()

    @property
    def regimes(self) -> Sequence[str | None]:
        """A name a seed that has one."""
        return self.numbers.training.regimes if self.numbers else ()

    def count(self, state: State) -> int:
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
class MapMeasure:
    """A figure that every point may have. `rate_key`: the judge and kind of a win rate."""

    title: str
    unit: str
    read: Callable[[PointNumbers], Estimate | None]
    rate_key: tuple[str, str] | None = None

    @property
    def digits(self) -> int:
        return {"steps": 0, "of 10": 2}.get(self.unit, 1)

    def estimate(self, point: PointResult) -> Estimate | None:
        return None if point.numbers is None else self.read(point.numbers)

    def n_shrunk(self, point: PointResult) -> int:
        """Seeds whose length-controlled rate the L1 penalty shrank to exactly 50."""
        return sum(rate.n_shrunk for rate in point.win_rates if rate.key == self.rate_key)


@dataclass(frozen=True, slots=True)
class FigureMap:
    """A measure over one axis (`column_key` None) or two, at fixed values of the others (`facet`).

    `cells`: a row a value of the row axis, a point a value of the column axis.
    """

    measure: MapMeasure
    facet: Settings
    row_key: str
    row_values: Sequence[object]
    column_key: str | None
    column_values: Sequence[object]
    cells: Sequence[Sequence[PointResult]]

    def to_json(self) -> dict[str, Any]:
        return {
            "title": self.measure.title,
            "unit": self.measure.unit,
            "where": dict(self.facet),
            "rows": {"key": self.row_key, "values": list(self.row_values)},
            "columns": {"key": self.column_key, "values": list(self.column_values)},
            "cells": [[self._cell_json(point) for point in row] for row in self.cells],
        }

    def _cell_json(self, point: PointResult) -> dict[str, Any]:
        estimate, regimes = self.measure.estimate(point), point.regimes
        return {
            "point": point.name,
            "figure": None if estimate is None else figure_json(estimate),
            "starved": regimes.count("starved"),
            "linear": regimes.count("linear"),
            "n_seeds": len(regimes),
        }


def figure_maps(points: Sequence[PointResult], keys: Sequence[str]) -> list[FigureMap]:
    """One map a measure over the first two keys (rows, columns), and one more for each combination of the others."""
    row_key, column_key, fixed_keys = keys[0], keys[1] if len(keys) > 1 else None, keys[2:]
    row_values, column_values = values_of(row_key, points), values_of(column_key, points)
    maps = []
    for measure in measures(points):
        for fixed_values in product(*(values_of(key, points) for key in fixed_keys)):
            facet = dict(zip(fixed_keys, fixed_values, strict=True))
            shown_points = [point for point in points if facet.items() <= point.values.items()]
            cells = _cells(shown_points, row_key, column_key)
            maps.append(FigureMap(measure, facet, row_key, row_values, column_key, column_values, cells))
    return maps


def values_of(key: str | None, points: Sequence[PointResult]) -> list[object]:
    """The values of a key in the order of the grid; of no key, the one value None."""
    values: list[object] = []
    for point in points:
        value = None if key is None else point.values[key]
        if value not in values:
            values.append(value)
    return values


def _cells(points: Sequence[PointResult], row_key: str, column_key: str | None) -> list[list[PointResult]]:
    by_place = {(str(point.values[row_key]), str(point.values.get(column_key or ""))): point for point in points}
    columns = values_of(column_key, points)
    return [[by_place[str(row), str(column)] for column in columns] for row in values_of(row_key, points)]


def measures(points: Sequence[PointResult]) -> list[MapMeasure]:
    """What any of the points has: win rates, a mean mark, active shares, length, steps to 90 %."""
    labels: dict[tuple[str, str], str] = {}
    for rate in (rate for point in points for rate in point.win_rates):
        labels.setdefault(rate.key, rate.label)
    answers = [point.numbers.answers for point in points if point.numbers is not None]
    judge = next((entry.mark.judge for entry in answers if entry.mark is not None), None)
    unit = next((entry.length.unit for entry in answers if entry.length is not None), None)
    result = [
        MapMeasure(f"{key[1].capitalize()} win rate ({label})", "%", partial(_win_rate, key=key), key)
        for key, label in labels.items()
    ]
    if judge is not None:
        result.append(MapMeasure(f"Mean mark ({judge})", "of 10", _mark))
    names = {"pair": "pairs", "chosen": "chosen responses", "rejected": "rejected responses"}
    result += [
        MapMeasure(f"Active {name} at the end", "%", partial(_active, side=side)) for side, name in names.items()
    ]
    if unit is not None:
        result.append(MapMeasure(f"Mean length of an answer ({unit})", unit, lambda numbers: numbers.answers.length))
    steps = MapMeasure(
        "Steps to 90 % of the final reward accuracy", "steps", lambda numbers: numbers.training.steps_to_90
    )
    return [*result, steps]


def _win_rate(numbers: PointNumbers, *, key: tuple[str, str]) -> Estimate | None:
    return numbers.answers.win_rate(key)


def _mark(numbers: PointNumbers) -> Estimate | None:
    return numbers.answers.mark.estimate if numbers.answers.mark else None


def _active(numbers: PointNumbers, *, side: str) -> Estimate:
    return numbers.training.active[side].scaled(100, unit="%")
