"""Verdicts and the tables that length control needs, read from disk."""

from __future__ import annotations

import math
from pathlib import Path

from trimtab.errors import DataError
from trimtab.judging.files import read_csv, read_objects
from trimtab.judging.rows import Place
from trimtab.judging.verdicts import Annotations, annotations_from_rows

GAMED_COLUMNS = ("preference", "std_delta_len", "instruction_difficulty")


def read_annotations(path: Path) -> Annotations:
    """An `annotations.json` (or JSON lines, also gzipped) of AlpacaEval or of this project. Raises DataError."""
    return annotations_from_rows(read_objects(path))


def read_difficulty(path: Path) -> list[float]:
    """AlpacaEval's `instruction_difficulty.csv`: columns `index` (or nameless) and `instruction_difficulty`.

    In the order of the index, which is the official order of the instructions. Raises DataError for a gap in it.
    """
    by_index: dict[int, float] = {}
    for place, row in read_csv(path):
        index = _number(row, "index", place=place)
        if index != int(index) or int(index) in by_index:
            raise DataError(f"{place}: index {row['index']} is not new and whole", remedy="download the file again")
        by_index[int(index)] = _number(row, "instruction_difficulty", place=place)
    missing = next((k for k in range(len(by_index)) if k not in by_index), None)
    if missing is not None:
        raise DataError(f"{path} has no row for index {missing}", remedy="download the file again")
    return [by_index[k] for k in range(len(by_index))]


def read_gamed(path: Path) -> dict[str, list[float]]:
    """AlpacaEval's `df_gamed.csv`, the regularising rows, by column; `preference` is a probability there."""
    columns: dict[str, list[float]] = {name: [] for name in GAMED_COLUMNS}
    for place, row in read_csv(path):
        for name, values in columns.items():
            values.append(_number(row, name, place=place))
        if not 0 <= columns["preference"][-1] <= 1:
            raise DataError(f"{place}: 'preference' is not in [0, 1]", remedy="give the file that AlpacaEval publishes")
    return columns


def _number(row: dict[str, str], name: str, *, place: Place) -> float:
    if name not in row:
        raise DataError(f"{place} has no column {name!r}; it has {', '.join(row)}", remedy=f"add the column {name!r}")
    try:
        value = float(row[name])
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DataError(f"{place}: {name!r} is {row[name]!r}, not a finite number", remedy="download the file again")
    return value
