"""How well a number tells two kinds of rows apart, whatever its scale: the area under the ROC curve.

Shapes: K seeds, N rows.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from trimtab.analysis.estimates import estimate
from trimtab.analysis.intervals import NO_INTERVAL, Z_95, FloatArray, Interval
from trimtab.records import Estimate

_METHOD = "Newcombe's score interval of an area under the curve (2006, method 5), rows taken as independent"


def auc(values_N: FloatArray, good_N: npt.NDArray[np.bool_]) -> float:
    """The chance that a good row, drawn at random, has a higher value than a bad one; a tie counts half. NaN where
    there are none of either."""
    good, bad = values_N[good_N], np.sort(values_N[~good_N])
    if not len(good) or not len(bad):
        return math.nan
    twice = np.searchsorted(bad, good, side="left") + np.searchsorted(bad, good, side="right")
    return float(twice.sum()) / (2 * len(good) * len(bad))


def auc_interval(area: float, *, n_good: int, n_bad: int) -> Interval:
    """95 %: the areas from which this one is no more than 1.96 standard errors away, by Hanley and McNeil's variance at
    those areas. Never empty, and in [0, 1], also where the kinds do not overlap (Newcombe, Stat Med 25:559)."""
    if math.isnan(area):
        return NO_INTERVAL
    return _bound(area, 0.0, n_good, n_bad), _bound(area, 1.0, n_good, n_bad)


def _bound(area: float, end: float, m: int, n: int) -> float:
    """By bisection between the area, which is always in the interval, and an end of the scale."""
    inside, outside = area, end
    for _ in range(60):
        middle = (inside + outside) / 2
        spread = middle * (1 - middle) / (m * n)
        star = (m + n) / 2 - 1
        variance = spread * (1 + star * (1 - middle) / (2 - middle) + star * middle / (1 + middle))
        inside, outside = (middle, outside) if abs(area - middle) <= Z_95 * math.sqrt(variance) else (inside, middle)
    return inside


def auc_estimate(values_KN: FloatArray, good_N: npt.NDArray[np.bool_]) -> Estimate:
    """Of one seed, or the mean of several on the same rows, whose interval is then that of one: seeds add no rows."""
    areas = [auc(values_N, good_N) for values_N in values_KN]
    area, n_good = float(np.mean(areas)), int(good_N.sum())
    interval = auc_interval(area, n_good=n_good, n_bad=len(good_N) - n_good)
    deviation = float(np.std(areas, ddof=1)) if len(areas) > 1 else math.nan
    return estimate(area, interval, n=len(good_N), method=_METHOD, n_seeds=len(areas), seed_deviation=deviation)
