"""A figure of the page: a value with its interval, how many rows made it, and how far off it could have seen.

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

from trimtab.analysis import intervals, seeds
from trimtab.analysis import sweep as sweeping
from trimtab.analysis.intervals import FloatArray, finite, student_t

OVER_SEEDS = "t interval over seeds"
ONE_SEED = "paired bootstrap over prompts, one seed"
POWER = 0.8
CORRELATION = (-1.0, 1.0)


@dataclass(frozen=True, slots=True)
class Figure:
    """In `unit`. `detectable`: the smallest true difference that this many seeds and prompts show with 80 % chance."""

    value: float | None
    ci95: tuple[float, float] | None
    n: int
    n_seeds: int
    method: str
    unit: str = ""
    p_value: float | None = None
    detectable: float | None = None

    def to_json(self) -> dict[str, Any]:
        told: dict[str, Any] = {
            "value": self.value,
            "ci95": None if self.ci95 is None else list(self.ci95),
            "n": self.n,
            "n_seeds": self.n_seeds,
            "method": self.method,
            "unit": self.unit,
        }
        return told | {
            key: value
            for key, value in (("p_value", self.p_value), ("detectable", self.detectable))
            if value is not None
        }


def mean(values_KN: FloatArray, *, unit: str) -> Figure:
    """Mean over seeds and prompts, or of paired differences; with one seed a bootstrap over the prompts."""
    if len(values_KN) > 1:
        return _of(seeds.pooled_mean(values_KN), method=seeds.METHOD, unit=unit)
    row_N = values_KN[0]
    return Figure(float(row_N.mean()), _bounds(intervals.paired_interval(row_N)), len(row_N), 1, ONE_SEED, unit)


def over_seeds(
    values: Sequence[float | None], *, unit: str = "", within: tuple[float, float] = (-math.inf, math.inf)
) -> Figure:
    """Mean of one number a seed, such as a rank correlation or a number of steps; None where a seed has none.

    `within`: what the number can be at all; the interval is cut there.
    """
    known = [float(value) for value in values if value is not None and math.isfinite(value)]
    told = _of(sweeping.over_seeds(known), method=OVER_SEEDS, unit=unit)
    if told.ci95 is None:
        return told
    return replace(told, ci95=(max(within[0], told.ci95[0]), min(within[1], told.ci95[1])))


def from_estimate(told: Mapping[str, Any] | None, *, unit: str, factor: float = 1.0) -> Figure:
    """A figure as trimtab's own reports write it; one that is not there has no value."""
    if told is None or told["value"] is None:
        return Figure(None, None, 0, 0, "not measured", unit)
    bounds = told["ci95"]
    seen = told.get("detectable")
    return Figure(
        factor * told["value"],
        None if bounds is None else (factor * bounds[0], factor * bounds[1]),
        told.get("n", 0),
        told.get("n_seeds", 1),
        told.get("method", ""),
        unit,
        detectable=None if seen is None else factor * seen,
    )


def detectable(standard_error: float, *, freedom: float) -> float:
    """(t.975 + t.80) · se: a two-sided 5 % t test sees a difference of this size with a chance of about 80 %.

    As `analysis.comparison.power`, with the t quantiles that few seeds ask for in place of the normal's.
    """
    return (student_t(freedom) + float(stdtrit(max(1.0, freedom), POWER))) * standard_error


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's adjusted p-values (1979, Scandinavian Journal of Statistics 6:65) in the order given; None stays None."""
    known = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for rank, (p, i) in enumerate(known):
        highest = max(highest, min(1.0, (len(known) - rank) * p))
        adjusted[i] = highest
    return adjusted


def rank_correlation(a: Sequence[float], b: Sequence[float]) -> float:
    """Kendall's τ-b; NaN where either side is constant."""
    return float(kendalltau(np.asarray(a), np.asarray(b)).statistic)


def _of(pooled: seeds.Pooled, *, method: str, unit: str) -> Figure:
    error = pooled.standard_error
    return Figure(
        value=finite(pooled.mean),
        ci95=_bounds(pooled.ci95),
        n=pooled.n_prompts,
        n_seeds=pooled.n_seeds,
        method=method,
        unit=unit,
        p_value=finite(pooled.p_value) if pooled.n_seeds > 1 else None,
        detectable=detectable(error, freedom=pooled.degrees_of_freedom) if math.isfinite(error) else None,
    )


def _bounds(ci95: tuple[float, float]) -> tuple[float, float] | None:
    return ci95 if all(math.isfinite(bound) for bound in ci95) else None
