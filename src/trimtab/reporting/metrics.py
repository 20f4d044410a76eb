"""`metrics.jsonl` as a table: means and curves of what a training run logged."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from trimtab.analysis.plots import Curves

POINTS = 80  # a drawing is 245 points wide: more could not be told apart, and report.json stays small


@dataclass(frozen=True, slots=True)
class Metrics:
    """Rows of `metrics.jsonl`, one an optimizer step. What is no finite number in a row counts as absent."""

    rows: tuple[Mapping[str, Any], ...]

    def __len__(self) -> int:
        return len(self.rows)

    def part(self, start: int, stop: int | None = None) -> Metrics:
        return Metrics(self.rows[start:stop])

    def has(self, name: str) -> bool:
        return any(name in row for row in self.rows)

    def values(self, name: str) -> list[float]:
        return [n for row in self.rows if (n := _finite(row.get(name))) is not None]

    def last(self, name: str) -> float | None:
        return _finite(self.rows[-1].get(name))

    def mean(self, name: str) -> float | None:
        values = self.values(name)
        return float(np.mean(values)) if values else None

    def median(self, name: str) -> float | None:
        values = self.values(name)
        return float(np.median(values)) if values else None

    def curves(self, names: tuple[str, ...]) -> Curves:
        """`step` and every one of `names` that a row has, as means over at most `POINTS` equal stretches of steps.

        So a report of a long run stays small; the rows themselves stay in `metrics.jsonl`.
        """
        width = math.ceil(len(self) / POINTS)
        stretches = [self.part(start, start + width) for start in range(0, len(self), width)]
        columns = ("step", *(name for name in names if self.has(name)))
        return {name: [stretch.mean(name) for stretch in stretches] for name in columns}

    def by_epoch(self) -> dict[int, Metrics]:
        """The rows of every epoch, from 1; rows that name none are left out."""
        epochs: dict[int, list[Mapping[str, Any]]] = {}
        for row in self.rows:
            epoch = _finite(row.get("epoch"))
            if epoch is not None:
                # the epoch after the step: 1.0 still belongs to the first, whatever the division left behind it
                epochs.setdefault(max(1, math.ceil(epoch - 1e-9)), []).append(row)
        return {epoch: Metrics(tuple(rows)) for epoch, rows in sorted(epochs.items())}


def _finite(value: object) -> float | None:
    return value if isinstance(value, int | float) and math.isfinite(value) else None
