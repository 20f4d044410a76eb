"""A number with what belongs to it, for one seed (K = 1: bootstrap over prompts) or several (see `analysis.seeds`).

An estimate is `{"value", "ci95", "n", "n_missing", "n_seeds", "method"}`; value and interval are null where they could
not be computed. Shapes: K seeds, N prompts; NaN where a prompt has no value.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from trimtab.analysis import intervals, seeds
from trimtab.analysis.intervals import FloatArray, finite

BOOTSTRAP = "bootstrap over prompts (percentile, 10,000 draws)"
WILSON = "Wilson at the effective number of prompts"
PAIRED = "paired bootstrap over prompts with two pseudo-rows (percentile, 10,000 draws)"

Estimate = dict[str, Any]
Direction = Literal["above", "below", "not distinguishable", "unknown"]


def estimate(
    value: float, ci95: tuple[float, float], *, n: int, method: str, n_missing: int = 0, n_seeds: int = 1
) -> Estimate:
    """NaN becomes null; half an interval is none."""
    bounds = [finite(bound) for bound in ci95]
    return {
        "value": finite(value),
        "ci95": None if None in bounds else bounds,
        "n": n,
        "n_missing": n_missing,
        "n_seeds": n_seeds,
        "method": method,
    }


def of_seeds(pooled: seeds.Pooled, *, method: str) -> Estimate:
    """An estimate over several seeds, with the standard deviation of the seeds' own values."""
    told = estimate(
        pooled.mean, pooled.ci95, n=pooled.n_prompts, n_missing=pooled.n_left_out, n_seeds=pooled.n_seeds, method=method
    )
    return told | {"seed_deviation": finite(pooled.seed_deviation)}


def rate(scores_KN: FloatArray) -> Estimate:
    """Mean of values in [0, 1]."""
    if len(scores_KN) > 1:
        return of_seeds(seeds.pooled_rate(scores_KN), method=seeds.METHOD)
    known = scores_KN[0][~np.isnan(scores_KN[0])]
    return estimate(
        float(known.mean()) if len(known) else math.nan,
        intervals.rate_interval(known),
        n=len(known),
        n_missing=scores_KN.shape[1] - len(known),
        method=WILSON,
    )


def percent(scores_KN: FloatArray) -> Estimate:
    """`rate` in percent."""
    return scaled(rate(scores_KN), 100)


def mean(values_KN: FloatArray) -> Estimate:
    """Mean of values in any unit; no value may be missing."""
    if len(values_KN) > 1:
        return of_seeds(seeds.pooled_mean(values_KN), method=seeds.METHOD)
    centre = float(values_KN[0].mean()) if values_KN.size else math.nan
    return estimate(centre, intervals.bootstrap_interval(values_KN[0]), n=values_KN.shape[1], method=BOOTSTRAP)


def paired(differences_KN: FloatArray) -> Estimate:
    """Mean of paired differences in any unit; none may be missing."""
    if len(differences_KN) > 1:
        return mean(differences_KN)
    centre = float(differences_KN[0].mean()) if differences_KN.size else math.nan
    bounds = intervals.paired_interval(differences_KN[0])
    return estimate(centre, bounds, n=differences_KN.shape[1], method=PAIRED)


def change(before_KN: FloatArray, after_KN: FloatArray, *, in_unit_interval: bool = False) -> dict[str, Any]:
    """Before, after and their paired difference; `relative` is the difference as a share of before.

    `in_unit_interval` says that the values lie in [0, 1], and keeps the intervals of both sides there.
    """
    side = rate if in_unit_interval else mean
    before, difference = side(before_KN), paired(after_KN - before_KN)
    relative = difference["value"] / before["value"] if before["value"] and difference["value"] is not None else None
    return {
        "before": before,
        "after": side(after_KN),
        "difference": difference,
        "relative": relative,
        "direction": direction(difference, 0.0),
    }


def scaled(told: Mapping[str, Any], factor: float) -> Estimate:
    """The same estimate in another unit."""
    result = dict(told)
    for key in ("value", "seed_deviation"):
        if result.get(key) is not None:
            result[key] = factor * result[key]
    if result["ci95"] is not None:
        result["ci95"] = [factor * bound for bound in result["ci95"]]
    return result


def direction(told: Mapping[str, Any], even: float) -> Direction:
    """On which side of `even` the whole 95 % interval lies."""
    if told["value"] is None or told["ci95"] is None:
        return "unknown"
    low, high = told["ci95"]
    return "above" if low > even else "below" if high < even else "not distinguishable"
