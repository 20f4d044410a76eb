"""Estimates of one seed (K = 1: over prompts) or of several (over prompts and seeds, see `analysis.seeds`).

Shapes: K seeds, N prompts (or what else was sampled: `rows` names it in the method); NaN where a prompt has no value.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from trimtab.analysis import intervals, seeds
from trimtab.analysis.intervals import FloatArray, finite
from trimtab.records import Direction, Estimate

_STUDENT = "Student's t over {rows}, corrected for skewness"
_WILSON = "Wilson at the effective number of {rows}"
_PAIRED = "Student's t over paired {rows}, corrected for skewness"
_SCORE = "score interval of paired {rows} (Tango), at their effective number"
PAIRED = _SCORE.format(rows="prompts")


def estimate(
    value: float,
    ci95: tuple[float, float],
    *,
    n: int,
    method: str,
    n_missing: int = 0,
    n_seeds: int = 1,
    unit: str = "",
    seed_deviation: float = math.nan,
) -> Estimate:
    """NaN becomes None; half an interval is none."""
    low, high = finite(ci95[0]), finite(ci95[1])
    return Estimate(
        value=finite(value),
        ci95=None if low is None or high is None else (low, high),
        n=n,
        method=method,
        n_missing=n_missing,
        n_seeds=n_seeds,
        unit=unit,
        seed_deviation=finite(seed_deviation),
    )


def of_seeds(pool: seeds.Pooled, *, method: str, unit: str = "") -> Estimate:
    """An estimate over several seeds, with the standard deviation of the seeds' own values."""
    return estimate(
        pool.mean,
        pool.ci95,
        n=pool.n_prompts,
        n_missing=pool.n_left_out,
        n_seeds=pool.n_seeds,
        method=method,
        unit=unit,
        seed_deviation=pool.seed_deviation,
    )


def rate(scores_KN: FloatArray, *, rows: str = "prompts") -> Estimate:
    """Mean of values in [0, 1]."""
    if len(scores_KN) > 1:
        return of_seeds(seeds.pooled_rate(scores_KN), method=seeds.method(rows))
    scores_N = scores_KN[0][~np.isnan(scores_KN[0])]
    return estimate(
        float(scores_N.mean()) if len(scores_N) else math.nan,
        intervals.rate_interval(scores_N),
        n=len(scores_N),
        n_missing=scores_KN.shape[1] - len(scores_N),
        method=_WILSON.format(rows=rows),
    )


def percent(scores_KN: FloatArray) -> Estimate:
    """`rate` in percent."""
    return rate(scores_KN).scaled(100, unit="%")


def mean(values_KN: FloatArray, *, unit: str = "", rows: str = "prompts") -> Estimate:
    """Mean of values in any unit; no value may be missing."""
    if len(values_KN) > 1:
        return of_seeds(seeds.pooled_mean(values_KN), method=seeds.method(rows), unit=unit)
    centre = float(values_KN[0].mean()) if values_KN.size else math.nan
    ci95 = intervals.mean_test(values_KN[0]).ci95
    return estimate(centre, ci95, n=values_KN.shape[1], method=_STUDENT.format(rows=rows), unit=unit)


def paired(
    differences_KN: FloatArray, *, in_unit_interval: bool = False, unit: str = "", rows: str = "prompts"
) -> Estimate:
    """Mean of paired differences; none may be missing. `in_unit_interval`: of values in [0, 1]."""
    if len(differences_KN) > 1:
        pool = (seeds.pooled_difference if in_unit_interval else seeds.pooled_mean)(differences_KN)
        return of_seeds(pool, method=seeds.method(rows), unit=unit)
    centre = float(differences_KN[0].mean()) if differences_KN.size else math.nan
    test = (intervals.difference_test if in_unit_interval else intervals.paired_mean_test)(differences_KN[0])
    method = (_SCORE if in_unit_interval else _PAIRED).format(rows=rows)
    return estimate(centre, test.ci95, n=differences_KN.shape[1], method=method, unit=unit)


@dataclass(frozen=True, slots=True)
class Change:
    """Before, after and their paired difference; `relative` is the difference as a share of before."""

    before: Estimate
    after: Estimate
    difference: Estimate

    @property
    def relative(self) -> float | None:
        """None where before is 0 or either is unknown."""
        if not self.before.value or self.difference.value is None:
            return None
        return self.difference.value / self.before.value

    @property
    def direction(self) -> Direction:
        return self.difference.direction(0.0)

    def to_json(self) -> dict[str, object]:
        return {
            "before": self.before.to_json(),
            "after": self.after.to_json(),
            "difference": self.difference.to_json(),
            "relative": self.relative,
            "direction": self.direction,
        }


def change(before_KN: FloatArray, after_KN: FloatArray, *, in_unit_interval: bool = False, unit: str = "") -> Change:
    """`in_unit_interval`: the values lie in [0, 1], and the intervals of both sides are kept there."""
    if in_unit_interval:
        before, after = rate(before_KN), rate(after_KN)
    else:
        before, after = mean(before_KN, unit=unit), mean(after_KN, unit=unit)
    return Change(before, after, paired(after_KN - before_KN, in_unit_interval=in_unit_interval, unit=unit))
