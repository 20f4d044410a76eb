"""Did alignment harm what the model could do? Every measure of every task before and after, paired by sample.

Shapes: K seeds, N samples of a task.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from trimtab.analysis import estimates
from trimtab.analysis.comparison import MIN_COMMON
from trimtab.analysis.estimates import Change
from trimtab.analysis.intervals import FloatArray
from trimtab.records import Direction
from trimtab.reporting.json_form import fields_form

_OPPOSITE: dict[Direction, Direction] = {"above": "below", "below": "above"}


@dataclass(frozen=True, slots=True)
class MeasureNumbers:
    """One measure of one task. `in_shares`: its values lie in [0, 1], as accuracies do."""

    task: str
    measure: str
    higher_is_better: bool
    in_shares: bool
    change: Change

    @property
    def direction(self) -> Direction:
        """`above`: better after alignment; unknown below ten samples."""
        if self.change.difference.n < MIN_COMMON:
            return "unknown"
        direction = self.change.direction
        return direction if self.higher_is_better else _OPPOSITE.get(direction, direction)

    def to_json(self) -> dict[str, object]:
        return fields_form(self) | {"direction": self.direction}


@dataclass(frozen=True, slots=True)
class CheckNumbers:
    """`left_out`: measures of a whole task that no sample has a value of. `limit`: samples of each task, at most."""

    lm_eval: str
    limit: int | None
    chat: bool
    measures: tuple[MeasureNumbers, ...]
    left_out: tuple[str, ...]


def check_numbers(tree: Mapping[str, Any]) -> CheckNumbers:
    """Of `check.json`, which has the scores of each seed's model and of the unaligned one."""
    seeds = tree["seeds"]
    measures, left_out = [], []
    for number, unaligned in enumerate(tree["unaligned"]):
        after = [seed["tasks"][number] for seed in seeds]
        left_out += [f"{unaligned['task']} {name}" for name in unaligned["left_out"]]
        for name, values in unaligned["metrics"].items():
            before_KN = np.array([values] * len(seeds), dtype=np.float64)
            after_KN = np.array([task["metrics"][name] for task in after], dtype=np.float64)
            measures.append(
                _measure(unaligned["task"], name, before_KN, after_KN, up=unaligned["higher_is_better"][name])
            )
    return CheckNumbers(tree["lm_eval"], tree["limit"], tree["chat"], tuple(measures), tuple(left_out))


def _measure(task: str, name: str, before_KN: FloatArray, after_KN: FloatArray, *, up: bool) -> MeasureNumbers:
    both = np.concatenate([before_KN, after_KN])
    in_shares = bool(((both >= 0) & (both <= 1)).all())
    sides = [
        estimates.rate(values_KN, rows="samples") if in_shares else estimates.mean(values_KN, rows="samples")
        for values_KN in (before_KN[:1], after_KN)
    ]
    difference = estimates.paired(after_KN - before_KN, in_unit_interval=in_shares, rows="samples")
    return MeasureNumbers(task, name, up, in_shares, Change(sides[0], sides[1], difference))


def worse(numbers: CheckNumbers) -> Sequence[MeasureNumbers]:
    """The measures that fell distinguishably."""
    return [measure for measure in numbers.measures if measure.direction == "below"]


def better(numbers: CheckNumbers) -> Sequence[MeasureNumbers]:
    """The measures that rose distinguishably."""
    return [measure for measure in numbers.measures if measure.direction == "above"]
