"""The maps of a sweep: one figure of every point, laid out over the first two keys of the grid."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import Any

from trimtab.reporting.estimates import Estimate, scaled

Point = Mapping[str, Any]  # of `sweep.json`
Read = Callable[[Mapping[str, Any]], Estimate | None]  # a figure from a point's numbers


def maps(points: Sequence[Point], keys: Sequence[str]) -> list[dict[str, Any]]:
    """One map a figure over the first two keys (rows, columns), and one more for each combination of the others."""
    rows, columns, others = keys[0], keys[1] if len(keys) > 1 else None, keys[2:]
    found = []
    for title, unit, read in _figures(points):
        for facet in product(*(values_of(key, points) for key in others)):
            fixed = dict(zip(others, facet, strict=True))
            among = [point for point in points if all(point["values"][key] == value for key, value in fixed.items())]
            found.append(
                {
                    "title": title,
                    "unit": unit,
                    "where": fixed,
                    "rows": {"key": rows, "values": values_of(rows, points)},
                    "columns": {"key": columns, "values": values_of(columns, points)},
                    "cells": _cells(among, rows, columns, read),
                }
            )
    return found


def values_of(key: str | None, points: Sequence[Point]) -> list[Any]:
    """The values of a key in the order of the grid; of no key, the one value None."""
    found: list[Any] = []
    for point in points:
        value = point["values"].get(key)
        if value not in found:
            found.append(value)
    return found


def _cells(among: Sequence[Point], rows: str, columns: str | None, read: Read) -> list[list[dict[str, Any]]]:
    by_place = {(str(point["values"][rows]), str(point["values"].get(columns))): point for point in among}
    across = values_of(columns, among)
    return [[_cell(by_place[str(row), str(column)], read) for column in across] for row in values_of(rows, among)]


def _cell(point: Point, read: Read) -> dict[str, Any]:
    numbers = point["numbers"]
    regimes = numbers["regimes"] if numbers else []
    return {
        "point": point["name"],
        "figure": read(numbers) if numbers else None,
        "starved": regimes.count("starved"),
        "linear": regimes.count("linear"),
        "n_seeds": len(regimes),
    }


def _figures(points: Sequence[Point]) -> list[tuple[str, str, Read]]:
    """Title, unit and how to read it from a point's numbers: win rates, active share, length, steps to 90 %."""
    rates: dict[tuple[str, str], str] = {}
    units: dict[str, None] = {}
    markers: dict[str, None] = {}
    for point in points:
        numbers = point["numbers"] or {}
        for row in numbers.get("win_rates") or []:
            rates.setdefault((row["judge"], row["kind"]), row["label"])
        if numbers.get("mark"):
            markers.setdefault(numbers["mark"]["judge"])
        if numbers.get("length"):
            units.setdefault(numbers["length"]["unit"])
    found: list[tuple[str, str, Read]] = [
        (f"{'True' if kind == 'true' else kind.capitalize()} win rate ({label})", "%", _rate_of(judge, kind))
        for (judge, kind), label in rates.items()
    ]
    found += [(f"Mean mark ({judge})", "of 10", lambda told: told.get("mark")) for judge in list(markers)[:1]]
    found += [
        (f"Active {what} at the end", "%", _active(side))
        for what, side in (("pairs", "pair"), ("chosen responses", "chosen"), ("rejected responses", "rejected"))
    ]
    if units:
        unit = next(iter(units))
        found.append((f"Mean length of an answer ({unit})", unit, lambda told: (told["length"] or {}).get("mean")))
    found.append(("Steps to 90 % of the final reward accuracy", "steps", lambda told: told["steps_to_90"]))
    return found


def _active(side: str) -> Read:
    return lambda numbers: scaled(numbers["active"][side], 100)


def _rate_of(judge: str, kind: str) -> Read:
    def read(numbers: Mapping[str, Any]) -> Estimate | None:
        return next(
            (row["win_rate"] for row in numbers["win_rates"] if (row["judge"], row["kind"]) == (judge, kind)), None
        )

    return read
