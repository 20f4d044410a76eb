"""A number of the page: an estimate with its interval, and how far off it could have been told from zero.

Nothing is computed here that `trimtab.analysis` computes: intervals over prompts and seeds are its own. Shapes: K
seeds, N prompts (or pairs).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.special import stdtrit
from scipy.stats import kendalltau

from trimtab.analysis import estimates, intervals, seeds
from trimtab.analysis import sweep as sweep_statistics
from trimtab.analysis.intervals import FloatArray, finite, student_t
from trimtab.records import Estimate

OVER_SEEDS = "t interval over seeds"
SINGLE_SEED = "Student's t over prompts, corrected for skewness, one seed"
POWER = 0.8
CORRELATION = (-1.0, 1.0)
ANYTHING = (-math.inf, math.inf)


@dataclass(frozen=True, slots=True)
class Measurement:
    """An estimate with its p-value, of a mean of zero, where several seeds give one.

    `detectable`: the smallest true difference that this many seeds and prompts show with 80 % chance, in its unit.
    """

    estimate: Estimate
    p_value: float | None = None
    detectable: float | None = None

    @property
    def value(self) -> float | None:
        return self.estimate.value

    @property
    def ci95(self) -> tuple[float, float] | None:
        return self.estimate.ci95

    def to_json(self) -> dict[str, Any]:
        """As `numbers.json` keeps it: with its unit, and without what is not there."""
        tree = self.estimate.to_json()
        keys = ("value", "ci95", "n", "n_seeds", "method")
        power = {"p_value": self.p_value, "detectable": self.detectable}
        return (
            {key: tree[key] for key in keys}
            | {"unit": self.estimate.unit}
            | {key: value for key, value in power.items() if value is not None}
        )

    @classmethod
    def from_json(cls, tree: Mapping[str, Any] | None, *, unit: str, factor: float = 1.0) -> Measurement:
        """An estimate as trimtab's own reports write it, times `factor`; one that is not there has no value."""
        if tree is None or tree["value"] is None:
            return cls(Estimate(None, None, 0, "not measured", n_seeds=0, unit=unit))
        defaults = {"ci95": None, "n": 0, "method": ""}
        detectable = tree.get("detectable")
        return cls(
            Estimate.from_json(defaults | dict(tree)).scaled(factor, unit=unit),
            detectable=None if detectable is None else factor * detectable,
        )


def mean(values_KN: FloatArray, *, unit: str, within: tuple[float, float] = ANYTHING) -> Measurement:
    """Mean over seeds and prompts, or of paired differences; with one seed over the prompts alone.

    `within`: what the number can be at all; the interval is cut there.
    """
    if len(values_KN) > 1:
        return cut(_of_pool(seeds.pooled_mean(values_KN), method=seeds.METHOD, unit=unit), within)
    row_N = values_KN[0]
    ci95 = intervals.paired_mean_test(row_N).ci95
    estimate = estimates.estimate(float(row_N.mean()), ci95, n=len(row_N), method=SINGLE_SEED, unit=unit)
    return cut(Measurement(estimate), within)


def over_seeds(
    values: Sequence[float | None], *, unit: str = "", within: tuple[float, float] = ANYTHING
) -> Measurement:
    """Mean of one number a seed, such as a rank correlation or a number of steps; None where a seed has none.

    `within`: what the number can be at all; the interval is cut there.
    """
    numbers = [float(value) for value in values if value is not None and math.isfinite(value)]
    return cut(_of_pool(sweep_statistics.over_seeds(numbers), method=OVER_SEEDS, unit=unit), within)


def detectable(standard_error: float, *, freedom: float) -> float:
    """(t.975 + t.80) · se: a two-sided 5 % t test sees a difference of this size with a chance of about 80 %.

    As `analysis.comparison.power`, with the t quantiles that few seeds ask for in place of the normal's.
    """
    return (student_t(freedom) + float(stdtrit(max(1.0, freedom), POWER))) * standard_error


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's adjusted p-values (1979, Scandinavian Journal of Statistics 6:65) in the order given; None stays None."""
    ranks = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    adjusted_p_values: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for rank, (p, i) in enumerate(ranks):
        highest = max(highest, min(1.0, (len(ranks) - rank) * p))
        adjusted_p_values[i] = highest
    return adjusted_p_values


def rank_correlation(a: Sequence[float], b: Sequence[float]) -> float:
    """Kendall's τ-b; NaN where either side is constant."""
    return float(kendalltau(np.asarray(a), np.asarray(b)).statistic)


def cut(measurement: Measurement, within: tuple[float, float]) -> Measurement:
    """With its interval ended at what the number can be at all."""
    if measurement.ci95 is None:
        return measurement
    low, high = measurement.ci95
    bounds = max(within[0], low), min(within[1], high)
    return replace(measurement, estimate=replace(measurement.estimate, ci95=bounds))


def _of_pool(pool: seeds.Pooled, *, method: str, unit: str) -> Measurement:
    error = pool.standard_error
    return Measurement(
        estimates.of_seeds(pool, method=method, unit=unit),
        p_value=finite(pool.p_value) if pool.n_seeds > 1 else None,
        detectable=detectable(error, freedom=pool.degrees_of_freedom) if math.isfinite(error) else None,
    )
